package sourcetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Registry is a server that speaks Consul's HTTP API, and holds nothing that
// the suite would mind.
type Registry struct {
	Address string // host:port
}

// Instance is what a test registers. Its fields are Consul's.
type Instance struct {
	ID      string            `json:",omitempty"`
	Name    string            `json:",omitempty"`
	Address string            `json:",omitempty"`
	Port    int               `json:",omitempty"`
	Tags    []string          `json:",omitempty"`
	Meta    map[string]string `json:",omitempty"`
	Weights *Weights          `json:",omitempty"`
	Check   *Check            `json:",omitempty"`
	Checks  []*Check          `json:",omitempty"`
}

// Weights are Consul's.
type Weights struct{ Passing, Warning int }

// Check is a health check as Consul takes it. No Status: critical at first.
type Check struct {
	CheckID  string `json:",omitempty"`
	TTL      string `json:",omitempty"`
	HTTP     string `json:",omitempty"`
	Interval string `json:",omitempty"`
	Timeout  string `json:",omitempty"`
	Status   string `json:",omitempty"`
}

// client keeps no connections, so that tests for leaks find none.
var client = http.Client{Timeout: 2 * patience, Transport: &http.Transport{DisableKeepAlives: true}}

// Do sends one request below /v1/ and returns status, header and body.
func (r Registry) Do(t testing.TB, method, path string, body any) (status int, header http.Header, answer string) {
	t.Helper()
	var content []byte
	switch b := body.(type) {
	case nil:
	case string:
		content = []byte(b)
	default:
		var err error
		if content, err = json.Marshal(b); err != nil {
			t.Fatal(err)
		}
	}
	req, err := http.NewRequest(method, "http://"+r.Address+"/v1/"+path, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(data)
}

// Register registers an instance that passes as long as no check says other.
func (r Registry) Register(t testing.TB, i Instance) {
	t.Helper()
	r.put(t, "agent/service/register", i)
}

// Deregister removes the instance with an id.
func (r Registry) Deregister(t testing.TB, id string) {
	t.Helper()
	r.put(t, "agent/service/deregister/"+url.PathEscape(id), nil)
}

// Set sets a TTL check to pass, warn or fail.
func (r Registry) Set(t testing.TB, state, checkID string) {
	t.Helper()
	r.put(t, "agent/check/"+state+"/"+url.PathEscape(checkID), nil)
}

func (r Registry) put(t testing.TB, path string, body any) {
	t.Helper()
	if status, _, answer := r.Do(t, http.MethodPut, path, body); status != http.StatusOK {
		t.Fatalf("PUT %s: %d %s", path, status, answer)
	}
}

// name gives each test services of its own; a Registry is not wiped between.
func name(t *testing.T) string {
	return strings.NewReplacer("/", "-", "_", "-", "#", "-").Replace(strings.ToLower(t.Name()))
}

// inst is the n-th instance of the test's service.
func inst(t *testing.T, n int) Instance {
	return Instance{ID: fmt.Sprintf("%s-%d", name(t), n), Name: name(t), Address: fmt.Sprintf("10.1.2.%d", n), Port: 8000 + n}
}

func (i Instance) addr() string { return fmt.Sprintf("%s:%d", i.Address, i.Port) }

func ttl(d time.Duration, status string) *Check { return &Check{TTL: d.String(), Status: status} }
