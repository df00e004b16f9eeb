package consul

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
)

// maxAnswer bounds one answer of Consul. Thousands of instances fit in it.
const maxAnswer = 64 << 20

// tokens holds the ACL token that is in use.
type tokens struct {
	file    string
	current atomic.Pointer[string]
}

func newTokens(token, file string) (*tokens, error) {
	t := &tokens{file: file}
	t.current.Store(&token)
	if file == "" {
		return t, nil
	}
	if token != "" {
		return nil, fmt.Errorf("consul token: given both as a value and as file %s", file)
	}
	return t, t.reload()
}

// reload reads the file again; the old token stays when that fails.
func (t *tokens) reload() error {
	if t.file == "" {
		return nil
	}
	data, err := os.ReadFile(t.file)
	if err != nil {
		return fmt.Errorf("consul token: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return fmt.Errorf("consul token: file %s is empty", t.file)
	}
	t.current.Store(&token)
	return nil
}

// roundTripper puts the token into each request and bounds each answer.
type roundTripper struct {
	next   http.RoundTripper
	tokens *tokens
}

func (r *roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Del("X-Consul-Token")
	if token := *r.tokens.current.Load(); token != "" {
		req.Header.Set("X-Consul-Token", token)
	}
	resp, err := r.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusForbidden {
		// The request is tried again after a pause, then with the new token.
		if err := r.tokens.reload(); err != nil {
			resp.Body.Close()
			return nil, fmt.Errorf("answer 403: %w", err)
		}
	}
	resp.Body = &limited{Reader: io.LimitReader(resp.Body, maxAnswer), Closer: resp.Body}
	return resp, nil
}

// limited is a body that ends early where it is too long; the JSON in it is
// then cut and refused.
type limited struct {
	io.Reader
	io.Closer
}
