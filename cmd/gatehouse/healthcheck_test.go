package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestHealthcheckExitsByTheAnswer(t *testing.T) {
	status := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer s.Close()
	f := func(want int, args ...string) {
		t.Helper()
		if got := execute(t.Context(), append([]string{"healthcheck"}, args...), io.Discard, io.Discard); got != want {
			t.Errorf("healthcheck %v: exit %d, want %d", args, got, want)
		}
	}
	f(0, s.URL+"/readyz")
	status = http.StatusServiceUnavailable
	f(exitFailed, s.URL+"/readyz")
	status = http.StatusFound
	f(exitFailed, s.URL+"/readyz")
	f(exitFailed, "http://127.0.0.1:1/readyz")
	f(exitUsage, "127.0.0.1:9901")
	f(exitUsage, s.URL, "more")
}
