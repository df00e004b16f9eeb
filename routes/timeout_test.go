package routes

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestATimeoutIsTheRoutesOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gatehouse.yaml")
	const text = `
listeners: [{address: 127.0.0.1:8080}]
services: {orders: {targets: ["http://127.0.0.1:9000"], timeouts: {request: 5s}}}
routes:
  - {path: /a, service: orders, public: true, timeout: 2m}
  - {path: /b, service: orders, public: true}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := Load(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []time.Duration{2 * time.Minute, 5 * time.Second} {
		if got := file.Routes[i].Upstream.Timeouts.Request; got != want {
			t.Errorf("route %d: %v, want %v", i, got, want)
		}
	}
	if got := file.Services["orders"].Timeouts.Request; got != 5*time.Second {
		t.Errorf("the service has %v", got)
	}
}
