package forwardauth

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

func TestMistakesAreNamedWithTheirPlace(t *testing.T) {
	plugintest.Bad(t, "testdata/bad/*.yaml", func(path string) error {
		_, err := plugintest.Load(path, New())
		return err
	})
}

// step builds the step of a route that asks decide.
func step(t *testing.T, more string, decide http.HandlerFunc) plugins.Step {
	t.Helper()
	service := httptest.NewServer(decide)
	t.Cleanup(service.Close)
	return stepTo(t, service.URL+"/check?from=gate", more)
}

func stepTo(t *testing.T, url, more string) plugins.Step {
	t.Helper()
	p := New()
	t.Cleanup(p.Close)
	steps := plugintest.Steps(t, p, fmt.Sprintf(`
routes:
  - {path: /orders/**, service: orders, public: true, forward_auth: {url: %q, timeout: 20s%s}}
  - {path: /v2, service: orders-v2, public: true}
`, url, more))
	if steps[1] != nil {
		t.Error("a route without forward_auth has a step")
	}
	return steps[0]
}

func TestTheServiceIsAskedAboutTheRequest(t *testing.T) {
	var got *http.Request
	var content []byte
	asked := step(t, ", request_headers: [Authorization, X-Env]", func(_ http.ResponseWriter, r *http.Request) {
		got = r
		content, _ = io.ReadAll(r.Body)
	})
	x := plugintest.WithBody(plugintest.New("POST", "api.example.com:8443", "/orders/1?a=b", "Authorization: Bearer x", "x-env: test", "Cookie: a=b", "X-Auth-Subject: root"), "content")
	x.TLS = true
	x.Fields[0].Drop = true // as auth leaves it
	x.Principal = &plugins.Principal{Identity: []byte("X-Auth-Subject: alice\r\nX-Auth-Client: web\r\n")}
	passed := false
	if err := asked(func(*plugins.Exchange) error { passed = true; return nil })(x); err != nil || !passed {
		t.Fatal(passed, err)
	}
	if got.Method != "GET" || got.URL.String() != "/check?from=gate" || len(content) > 0 || got.ContentLength > 0 {
		t.Errorf("%s %s with %q", got.Method, got.URL, content)
	}
	for name, want := range map[string]string{
		"X-Forwarded-Method": "POST", "X-Forwarded-Uri": "/orders/1?a=b", "X-Forwarded-Host": "api.example.com:8443",
		"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1", "X-Request-Id": "test-request",
		"Authorization": "Bearer x", "X-Env": "test", "Cookie": "", "X-Auth-Subject": "alice", "X-Auth-Client": "web", "User-Agent": "",
	} {
		if v := strings.Join(got.Header.Values(name), "|"); v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if x.Body == nil {
		t.Error("the content is gone")
	}
}

func TestAConsentPassesWithItsFields(t *testing.T) {
	asked := step(t, ", response_headers: [Remote-User, Remote-Groups]", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Remote-User", "alice")
		w.Header().Set("X-Other", "1")
		w.WriteHeader(204)
	})
	x := plugintest.New("GET", "api.example.com", "/orders/1", "Remote-User: root", "remote.user: root", "Remote-Groups: admins", "A: 1")
	var got []string
	err := asked(func(x *plugins.Exchange) error {
		for i := range x.Fields {
			if !x.Fields[i].Drop {
				got = append(got, strings.TrimSpace(string(x.Fields[i].Line)))
			}
		}
		return nil
	})(x)
	if want := "A: 1|Remote-User: alice"; err != nil || strings.Join(got, "|") != want {
		t.Errorf("%v, fields %q, want %q", err, got, want)
	}
}

func TestARefusalIsRelayed(t *testing.T) {
	for _, status := range []int{302, 401, 403, 404} {
		asked := step(t, "", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://login.example/")
			w.Header().Set("X-Auth-Subject", "root")
			w.Header().Add("Set-Cookie", "a=b")
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(status)
			fmt.Fprint(w, "who are you?")
		})
		x := plugintest.WithBody(plugintest.New("POST", "api.example.com", "/orders/1"), "content")
		err := asked(func(*plugins.Exchange) error { t.Error("the request passed"); return nil })(x)
		c := plugintest.Client(x)
		if err != nil || c.Status != status || c.Content.String() != "who are you?" || !c.Finished || !c.Head.Close || c.Head.Length != 12 {
			t.Errorf("%d: %v, %d %q", status, err, c.Status, c.Content.String())
		}
		for _, want := range []string{"Location: https://login.example/\r\n", "Set-Cookie: a=b\r\n", "Content-Length: 12\r\n"} {
			if strings.Count(c.Fields, want) != 1 {
				t.Errorf("%d: %q lacks %q", status, c.Fields, want)
			}
		}
		if strings.Contains(c.Fields, "X-Auth-") || strings.Contains(c.Fields, "Date") || x.Record.Reason != plugins.ForwardAuthDenied {
			t.Errorf("%d: fields %q, reason %q", status, c.Fields, x.Record.Reason)
		}
	}
}

func TestCallersOfGRPCGetARefusalOfTheirs(t *testing.T) {
	asked := step(t, "", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) })
	x := plugintest.New("POST", "api.example.com", "/orders.v1.Orders/Get")
	x.GRPC = true
	err := asked(func(*plugins.Exchange) error { t.Error("the call passed"); return nil })(x)
	var e *plugins.Error
	if !errors.As(err, &e) || e.Status != 403 || e.Code != plugins.ForwardAuthDenied || plugintest.Client(x).Status != 0 {
		t.Errorf("%v, and %d was written", err, plugintest.Client(x).Status)
	}
}

func TestNoAnswerIsNoConsent(t *testing.T) {
	refused := func(what string, asked plugins.Step) {
		t.Helper()
		x := plugintest.New("GET", "api.example.com", "/orders/1")
		err := asked(func(*plugins.Exchange) error { t.Errorf("%s: the request passed", what); return nil })(x)
		var e *plugins.Error
		if !errors.As(err, &e) || e.Status != 503 || e.Code != plugins.ForwardAuthSilent {
			t.Errorf("%s: %v, want %s", what, err, plugins.ForwardAuthSilent)
		}
	}
	answers := func(status int, content string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Remote-User", "caf\u00e9")
			w.WriteHeader(status)
			fmt.Fprint(w, content)
		}
	}
	refused("it fails", step(t, "", answers(500, "")))
	refused("it is too long", step(t, "", answers(403, strings.Repeat("x", maxContent+1))))
	refused("a field is not safe", step(t, ", response_headers: [Remote-User]", answers(200, "")))
	refused("nobody is there", stepTo(t, "http://127.0.0.1:1/", ""))
	refused("it breaks off", step(t, "", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	done := make(chan struct{})
	defer close(done)
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-done:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(slow.Close)
	p := New()
	t.Cleanup(p.Close)
	began := time.Now()
	refused("it is slow", plugintest.Steps(t, p, fmt.Sprintf(`
routes:
  - {path: /orders/**, service: orders, public: true, forward_auth: {url: %q, timeout: 50ms}}
`, slow.URL))[0])
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}
