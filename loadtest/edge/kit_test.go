package edge

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

func TestMain(m *testing.M) { rig.Main(m, nothingStrayed) }

// slots is how many tests can use the shared gateway at a time: each has an
// origin and a host of its own.
const slots = 12

// shared is the gateway that most tests share, with the limits that it has by
// default and generous times.
var shared struct {
	once  sync.Once
	err   error
	gw    *rig.Gateway
	free  chan *slot
	fate  *rig.Origin // answers whoever asks whether a connection still works
	stray *rig.Origin // gets what is meant for no host of ours
}

// slot is a host of the shared gateway and the origin behind it.
type slot struct {
	*rig.Origin
	gw   *rig.Gateway
	host string
}

const sharedConfig = `
server: {header_timeout: 20s, idle_timeout: 60s, drain_delay: 1ms, drain_timeout: 2s}
issuers:
  - {issuer: "https://idp.test", jwks_uri: "http://127.0.0.1:9/jwks", audiences: ["https://api.test"]}
defaults:
  services: {breaker: off, retries: {attempts: 1}, timeouts: {request: 20s, idle: 20s}}
`

// open starts the shared gateway.
func open() error {
	shared.free = make(chan *slot, slots)
	var services, list strings.Builder
	add := func(name string) (*rig.Origin, error) {
		o, err := rig.NewOrigin()
		if err == nil {
			fmt.Fprintf(&services, "  %s: {targets: [\"http://%s\"]}\n", name, o.Addr)
		}
		return o, err
	}
	route := func(name, host, path, service, more string) {
		if host != "" {
			host = fmt.Sprintf("hosts: [%s], ", host)
		}
		fmt.Fprintf(&list, "  - {name: %s, %spath: %s, service: %s, %s}\n", name, host, path, service, more)
	}
	var all []*slot
	for i := range slots {
		name := fmt.Sprintf("slot%d", i)
		o, err := add(name)
		if err != nil {
			return err
		}
		host := name + ".test"
		// The same instance with retries, with little patience and with one
		// connection only.
		fmt.Fprintf(&services, "  %s-retry: {targets: [\"http://%s\"], retries: {attempts: 2}}\n", name, o.Addr)
		fmt.Fprintf(&services, "  %s-brisk: {targets: [\"http://%s\"], timeouts: {request: 400ms, idle: 400ms}}\n", name, o.Addr)
		fmt.Fprintf(&services, "  %s-single: {targets: [\"http://%s\"], max_connections: 1, timeouts: {request: 20s, idle: 20s, pending: 500ms}}\n", name, o.Addr)
		route(name, host, "/**", name, "public: true")
		route(name+"-admin", host, "/admin/**", name, "auth: {scopes: [admin]}")
		route(name+"-strip", host, "/strip/**", name, "public: true, rewrite: {strip_prefix: /strip}")
		route(name+"-slash", host, "/slash/**", name, "public: true, allow_encoded_slash: true")
		route(name+"-live", host, "/live", name, "public: true, streams: {websocket: true}")
		route(name+"-get", host, "/get", name, "public: true, methods: [GET]")
		route(name+"-retry", host, "/retry", name+"-retry", "public: true")
		route(name+"-brisk", host, "/brisk", name+"-brisk", "public: true")
		route(name+"-single", host, "/single", name+"-single", "public: true")
		all = append(all, &slot{Origin: o, host: host})
	}
	var err error
	if shared.fate, err = add("fate"); err != nil {
		return err
	}
	if shared.stray, err = add("stray"); err != nil {
		return err
	}
	fmt.Fprintln(&services, "  nobody: {targets: [\"http://127.0.0.1:9\"]}")
	route("fate", "fate.test", "/**", "fate", "public: true")
	route("nobody", "nobody.test", "/**", "nobody", "public: true")
	route("any", "", "/any", "fate", "public: true")
	route("stray", "", "/**", "stray", "public: true")
	shared.gw, err = rig.Start(rig.Options{
		Config:    sharedConfig + "services:\n" + services.String() + "routes:\n" + list.String(),
		Listeners: []string{"{address: 127.0.0.1:@PORT1@, protocol: h2c}"},
	})
	for _, s := range all {
		s.gw = shared.gw
		shared.free <- s
	}
	return err
}

// nothingStrayed is the last test of all: no request got to the route for hosts
// that nobody meant.
func nothingStrayed() error {
	if shared.stray == nil {
		return nil
	}
	if got := shared.stray.Received(); len(got) > 0 {
		return fmt.Errorf("requests strayed: %q", got)
	}
	return nil
}

// take lends a slot of the shared gateway to a test, with an origin that runs
// script (nil: answers 200).
func take(t *testing.T, script func(*rig.Conn)) *slot {
	t.Helper()
	shared.once.Do(func() { shared.err = open() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	if script == nil {
		script = rig.Always(rig.OK)
	}
	s := <-shared.free
	s.Reset(script)
	t.Cleanup(func() {
		s.Reset(rig.Always(rig.OK))
		shared.free <- s
	})
	return s
}

// in puts the slot's host in the place of {host}.
func (s *slot) in(text string) string { return strings.ReplaceAll(text, "{host}", s.host) }

// dial connects to the shared gateway.
func (s *slot) dial(t *testing.T) *rig.Client {
	t.Helper()
	return rig.Dial(t, s.gw.Addr)
}

// get asks for a path of the slot on a connection of its own.
func (s *slot) get(t *testing.T, path string) rig.Answer {
	t.Helper()
	c := s.dial(t)
	defer c.Close()
	return c.Ask("GET", s.in("GET "+path+" HTTP/1.1\r\nHost: {host}\r\n\r\n"))
}

// alive tells whether the connection carries another request.
func alive(c *rig.Client) error {
	a := c.Ask("GET", "GET /alive HTTP/1.1\r\nHost: fate.test\r\n\r\n")
	if a.Status != 200 || a.Body != "ok" {
		return fmt.Errorf("another request was answered with %d %q (%v)", a.Status, a.Body, a.Err)
	}
	return nil
}

// ended tells whether the connection ends without another word.
func ended(c *rig.Client) error {
	if ended, rest := c.Ended(); rest != "" {
		return fmt.Errorf("more came: %q", rest)
	} else if !ended {
		return errors.New("the connection stays open")
	}
	return nil
}

func method(raw string) string {
	m, _, _ := strings.Cut(strings.TrimLeft(raw, "\r\n"), " ")
	return m
}

// smuggled is what an attacker hopes to have taken for a request.
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n"

// refused promises: raw is answered with one of the statuses, nothing of it or
// of what follows on the connection reaches an origin, and the connection ends.
func refused(t *testing.T, name, raw string, statuses ...int) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.dial(t)
		a := c.Ask(method(raw), s.in(raw+smuggled))
		ok := false
		for _, status := range statuses {
			ok = ok || a.Status == status
		}
		if !ok || a.Err != nil {
			t.Errorf("%q: got %q (%v), want %v", s.in(raw), a.Head, a.Err, statuses)
		}
		if err := ended(c); err != nil {
			t.Errorf("%q: %v", s.in(raw), err)
		}
		if got := s.Received(); len(got) > 0 {
			t.Errorf("%q: the origin received %q", s.in(raw), got)
		}
		noEcho(t, s, a)
	})
}

// noEcho promises that an answer of the gateway's own says nothing about the
// request's content, or about the inside (EDGE: S46).
func noEcho(t *testing.T, s *slot, a rig.Answer) {
	t.Helper()
	for _, secret := range []string{"127.0.0.1", s.Addr, "smuggled", "secret", ".go:", "goroutine"} {
		if strings.Contains(a.Head+a.Body, secret) {
			t.Errorf("the refusal holds %q: %s%s", secret, a.Head, a.Body)
		}
	}
	if v, _ := a.Field("Content-Type"); a.Status >= 400 && v != "application/problem+json" {
		t.Errorf("the refusal is %q", v)
	}
}

// passed promises: raw is answered with 200, the origin received exactly what
// is wanted besides the lines that the gateway adds, and the connection stays.
func passed(t *testing.T, name, raw, want string) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.dial(t)
		a := c.Ask(method(raw), s.in(raw))
		if a.Status != 200 || a.Err != nil {
			t.Errorf("%q: got %q%q (%v)", s.in(raw), a.Head, a.Body, a.Err)
		}
		if err := alive(c); err != nil {
			t.Errorf("%q: %v", s.in(raw), err)
		}
		if got := rig.Strip(strings.Join(s.Received(), "<new connection>")); got != s.in(want) {
			t.Errorf("%q: the origin received\n%q, want\n%q", s.in(raw), got, s.in(want))
		}
	})
}
