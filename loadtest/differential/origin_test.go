package differential

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/rig"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// witness tells what stands last in the chain and what it saw since it was
// asked last.
type witness interface {
	address() string
	seen(t *testing.T) []request
}

// origin is a scripted server with the contract of servers.Node.
type origin struct {
	*rig.Origin

	mu    sync.Mutex
	count int
	list  []request
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	inner, err := rig.NewOrigin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(inner.Close)
	o := &origin{Origin: inner}
	o.Forget()
	o.Reset(o.script)
	return o
}

func (o *origin) address() string { return o.Addr }

func (o *origin) seen(*testing.T) []request {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := o.list
	o.list = nil
	return list
}

func (o *origin) script(c *rig.Conn) {
	for {
		m, err := c.ReadRequest()
		if err != nil {
			return // half a request is none
		}
		method, rest, _ := strings.Cut(m.Line, " ")
		target, _, _ := strings.Cut(rest, " ")
		o.mu.Lock()
		o.count++
		id := o.count
		o.list = append(o.list, request{id, method, target})
		o.mu.Unlock()
		if text, ok := m.Field("X-Answer"); ok {
			raw, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				return
			}
			c.Say(string(raw))
			if then, _ := m.Field("X-Then"); then != "close" {
				// Long enough for what follows on this connection, so short
				// that who waits for its end does not wait for long.
				_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
				continue
			}
			return
		}
		content := target
		if method == "HEAD" {
			content = ""
		}
		c.Say(fmt.Sprintf("HTTP/1.1 200 OK\r\nOrigin-Id: %d\r\nContent-Length: %d\r\n\r\n%s", id, len(target), content))
	}
}

// node is a servers.Node.
type node struct{ *servers.Server }

func (n node) address() string { return n.Addr }

func (n node) seen(t *testing.T) (list []request) {
	t.Helper()
	resp, err := http.Get("http://" + n.Addr + "/seen")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	return list
}
