package admin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse/gatehouse/gateway"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

func TestWhoMayUseWhat(t *testing.T) {
	failing := errors.New("starting")
	reloaded := 0
	handler := func(token string) http.Handler {
		return New(Config{
			Token: token, Ready: func() error { return failing }, Registry: prometheus.NewRegistry(),
			Reload:   func(context.Context) error { reloaded++; return nil },
			Routes:   func() []*routes.Route { return []*routes.Route{{Name: "orders", Path: "/orders"}} },
			Services: func() []gateway.ServiceStatus { return nil },
		}).Handler()
	}
	f := func(h http.Handler, method, path, authorization string, want int) string {
		t.Helper()
		r := httptest.NewRequest(method, path, nil)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s %s with %q: %d, want %d", method, path, authorization, w.Code, want)
		}
		return w.Body.String()
	}
	h := handler("secret")
	f(h, "GET", "/livez", "", 200)
	f(h, "GET", "/readyz", "", 503)
	f(h, "GET", "/readyz/authserver", "", 404)
	f(h, "GET", "/metrics", "", 200)
	for _, path := range []string{"/api/v1/routes", "/api/v1/services", "/debug/pprof/"} {
		f(h, "GET", path, "", 401)
		f(h, "GET", path, "Bearer wrong", 401)
		f(h, "GET", path, "Basic secret", 401)
		f(h, "GET", path, "Bearer secret", 200)
		// Without a token configured nobody gets in, not even with an empty one.
		f(handler(""), "GET", path, "Bearer ", 401)
	}
	f(h, "POST", "/api/v1/config/reload", "", 401)
	if reloaded != 0 {
		t.Error("reloaded for a stranger")
	}
	f(h, "POST", "/api/v1/config/reload", "bearer secret", 200)
	if reloaded != 1 {
		t.Error("not reloaded")
	}
	if body := f(h, "GET", "/api/v1/routes", "Bearer secret", 200); !strings.Contains(body, `"name":"orders"`) {
		t.Errorf("routes: %s", body)
	}
	failing = nil
	f(h, "GET", "/readyz", "", 200)
}

func TestAccessTokenAdmitsByScope(t *testing.T) {
	var asked []bool
	h := New(Config{
		Token: "secret", Registry: prometheus.NewRegistry(), Reload: func(context.Context) error { return nil },
		Routes: func() []*routes.Route { return nil }, Services: func() []gateway.ServiceStatus { return nil },
		AuthServer: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(Actor(r.Context()))) }),
		Verify: func(r *http.Request, changes bool) (*plugins.Principal, error) {
			asked = append(asked, changes)
			switch {
			case r.Header.Get("Authorization") == "Bearer broken":
				return nil, errors.New("no plugins.Error")
			case changes && r.Header.Get("Authorization") == "Bearer reader":
				return nil, &plugins.Error{Status: 403, Code: plugins.ScopeMissing, Header: [][2]string{{"WWW-Authenticate", "Bearer x"}}}
			}
			return &plugins.Principal{ClientID: "ci"}, nil
		},
	}).Handler()
	f := func(method, path, token string, status int, body string, changes ...bool) {
		t.Helper()
		asked = nil
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != status || !strings.Contains(w.Body.String(), body) || !slices.Equal(asked, changes) {
			t.Errorf("%s %s with %s: %d %s, asked %v", method, path, token, w.Code, w.Body, asked)
		}
	}
	f("GET", "/api/v1/clients", "reader", 200, "client:ci", false)
	f("HEAD", "/api/v1/clients", "reader", 200, "", false)
	f("POST", "/api/v1/tokens/inspect", "reader", 200, "client:ci", false)
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		f(method, "/api/v1/clients", "reader", 403, `"reason":"scope_missing"`, true)
		f(method, "/api/v1/clients", "writer", 200, "client:ci", true)
	}
	f("POST", "/api/v1/config/reload", "reader", 403, "scope_missing", true)
	f("GET", "/debug/pprof/", "reader", 403, "scope_missing", true)
	f("GET", "/api/v1/clients", "broken", 500, `"reason":"internal_error"`, false)
	f("GET", "/api/v1/clients", "secret", 200, "static-token")
}

func TestRequestsAreCountedByRouteAndReason(t *testing.T) {
	r := &routes.Route{Name: "orders", Service: "orders"}
	m := NewRequests()
	m.Retain([]*routes.Route{r})
	registry := prometheus.NewRegistry()
	registry.MustRegister(m)
	record := func(x plugins.Exchange) { m.Record(&x, 3*time.Millisecond) }
	for range 3 {
		record(plugins.Exchange{Route: r, Method: []byte("GET"), Record: plugins.Record{Status: 200, Attempts: 1, Upstream: 2 * time.Millisecond, BytesOut: 10}})
	}
	record(plugins.Exchange{Route: r, Method: []byte("BREW"), Record: plugins.Record{Status: 403, Reason: plugins.ScopeMissing}})
	record(plugins.Exchange{Method: []byte("GET"), Record: plugins.Record{Status: 404, Reason: plugins.NoRoute}})
	record(plugins.Exchange{Route: &routes.Route{Name: "gone"}, Method: []byte("GET"), Record: plugins.Record{Status: 200, ShadowReason: plugins.TokenMissing}})

	w := httptest.NewRecorder()
	New(Config{Registry: registry}).Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`http_server_request_duration_seconds_count{error_type="",http_request_method="GET",http_response_status_code="200",http_route="orders"} 3`,
		`http_server_request_duration_seconds_bucket{error_type="",http_request_method="GET",http_response_status_code="200",http_route="orders",le="0.0025"} 0`,
		`http_server_request_duration_seconds_bucket{error_type="",http_request_method="GET",http_response_status_code="200",http_route="orders",le="0.005"} 3`,
		`http_server_request_duration_seconds_count{error_type="scope_missing",http_request_method="_OTHER",http_response_status_code="403",http_route="orders"} 1`,
		`http_client_request_duration_seconds_count{http_request_method="GET",http_response_status_code="200",server_address="orders"} 3`,
		`gateway_auth_decisions_total{decision="allow",http_route="orders",mode="enforce",reason=""} 3`,
		`gateway_auth_decisions_total{decision="deny",http_route="orders",mode="enforce",reason="scope_missing"} 1`,
		`gateway_refusals_total{http_route="",reason="no_route"} 1`,
		`gateway_content_bytes_total{direction="out",http_route="orders"} 30`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("missing %s", want)
		}
	}
	if t.Failed() {
		t.Log(w.Body.String())
	}
}

func TestRecordingDoesNotAllocate(t *testing.T) {
	r := &routes.Route{Name: "orders", Service: "orders"}
	m := NewRequests()
	m.Retain([]*routes.Route{r})
	x := &plugins.Exchange{Route: r, Method: []byte("GET"), Record: plugins.Record{Status: 200, Attempts: 1}}
	m.Record(x, time.Millisecond)
	if n := testing.AllocsPerRun(1000, func() { m.Record(x, time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
