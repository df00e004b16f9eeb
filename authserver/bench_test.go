package authserver_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/authserver"
)

// sink is a ResponseWriter that keeps only the status.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(status int)      { s.status = status }

// BenchmarkClientCredentials measures one token, without the socket; half of
// it and more is the signature.
func BenchmarkClientCredentials(b *testing.B) {
	e := start(b, func(c *authserver.Config) {
		discard := slog.New(slog.DiscardHandler)
		c.Logger, c.Audit = discard, discard
	})
	h := e.server.Handler()
	body := clientCredentials.Encode()
	authorization := basic(url.QueryEscape("batch:1"), url.QueryEscape(bSecret))
	b.ReportAllocs()
	for b.Loop() {
		req := httptest.NewRequest("POST", "/oauth/token", strings.NewReader(body))
		req.Header.Set("Content-Type", urlencoded)
		req.Header.Set("Authorization", authorization)
		w := &sink{header: http.Header{}}
		h.ServeHTTP(w, req)
		if w.status != 200 {
			b.Fatalf("status %d", w.status)
		}
	}
}

// BenchmarkSign is the part of a token that cannot be saved.
func BenchmarkSign(b *testing.B) {
	e := start(b)
	claims := []byte(`{"iss":"` + strings.Repeat("x", 300) + `"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.keys.Sign("token", "at+jwt", claims); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRefresh(b *testing.B) {
	e := start(b)
	token := e.grant().str("refresh_token")
	b.ReportAllocs()
	for b.Loop() {
		token = e.refresh(token).want(b, 200, "").str("refresh_token")
	}
}
