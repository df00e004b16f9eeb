package admin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
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
