package server

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
)

func TestS07_UnderscoresAreRefusedWhereTheyAreToBe(t *testing.T) {
	t.Parallel()
	r := startHTTP2(t, func(c *Config) { c.Limits.UnderscoreHeaders = "reject" }, func(x *plugins.Exchange) error {
		return answer(x, 200, "Content-Length: 0\r\n", "")
	})
	r.both(t, func(t *testing.T, c *http.Client, base string) {
		for name, want := range map[string]int{"X-A": 200, "X_a": 400, "Transfer_encoding": 400} {
			req, err := http.NewRequest("GET", base+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header[name] = []string{"chunked"}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s: %d, want %d", name, resp.StatusCode, want)
			}
		}
	})
	addr := start(t, func(c *Config) { c.Limits.UnderscoreHeaders = "reject" }, func(x *plugins.Exchange) error {
		t.Error("it reached the handler")
		return nil
	})
	for _, line := range []string{"x_y: 1", "Connection: x_y\r\nx_y: 1", "Transfer_Encoding: chunked"} {
		if got := talk(t, addr, "GET / HTTP/1.1\r\nHost: a\r\n"+line+"\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.HasSuffix(got, "<closed>") {
			t.Errorf("%s: %q", line, got)
		}
	}
}
