package dev

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxDelay  = 10 * time.Minute
	maxBroken = 10 * time.Minute
	maxBytes  = 1 << 30
)

// echo is the handler of a demo backend: it tells the caller what arrived.
// The query steers it: status=503 answers with that status, delay=200ms waits
// before the answer, bytes=1000 answers with so many bytes instead of JSON,
// and broken=5s has this instance answer 503 to everything for that time while
// it stays registered and healthy, as a broken service does.
type echo struct {
	service, instance string
	now               func() time.Time

	mu     sync.Mutex
	log    io.Writer // nil: none
	broken time.Time // until when
}

func newEcho(c BackendConfig, now func() time.Time) *echo {
	return &echo{service: c.Service, instance: c.Instance, log: c.Log, now: now}
}

// Arrival is one line of a backend's log.
type Arrival struct {
	Time      time.Time `json:"time"`
	Service   string    `json:"service"`
	Instance  string    `json:"instance"`
	Method    string    `json:"method"`
	Path      string    `json:"path"` // with the query
	RequestID string    `json:"request_id,omitempty"`
}

// Seen is what a backend answers: what it saw of the request. Of headers that
// are no identity it repeats the names only, for a value may be a secret.
type Seen struct {
	Service   string            `json:"service"`
	Instance  string            `json:"instance"`
	Method    string            `json:"method"`
	Path      string            `json:"path"`
	Query     string            `json:"query,omitempty"`
	Host      string            `json:"host"`
	Identity  map[string]string `json:"identity"` // X-Auth-*, several values joined with a comma
	RequestID string            `json:"request_id,omitempty"`
	Forwarded map[string]string `json:"forwarded,omitempty"` // Forwarded, X-Forwarded-*, traceparent
	Headers   []string          `json:"headers"`
	BodyBytes int64             `json:"body_bytes"`
}

// control is what the query asks for.
type control struct {
	status int
	delay  time.Duration
	bytes  int64 // -1: answer with JSON
	broken time.Duration
}

// ServeHTTP implements http.Handler.
func (e *echo) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/healthz" {
		io.WriteString(w, "ok\n")
		return
	}
	broken := e.arrived(req)
	ctl, err := controlOf(req.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch {
	case ctl.broken > 0:
		e.mu.Lock()
		e.broken = e.now().Add(ctl.broken)
		e.mu.Unlock()
	case broken:
		ctl.status = http.StatusServiceUnavailable
	}
	n, err := io.Copy(io.Discard, req.Body)
	if err != nil {
		return // the caller has gone; nobody reads an answer
	}
	if ctl.delay > 0 {
		timer := time.NewTimer(ctl.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-req.Context().Done():
			return
		}
	}
	w.Header().Set("X-Instance", e.instance)
	if ctl.bytes >= 0 {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.FormatInt(ctl.bytes, 10))
		w.WriteHeader(ctl.status)
		if req.Method != http.MethodHead {
			io.CopyN(w, pattern{}, ctl.bytes) // fails only when the caller has gone
		}
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(ctl.status)
	if req.Method != http.MethodHead {
		out := json.NewEncoder(w)
		out.SetIndent("", "  ")
		out.Encode(e.seen(req, n))
	}
}

// arrived writes the log line and tells whether the instance is broken.
func (e *echo) arrived(req *http.Request) (broken bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	if e.log != nil {
		line, err := json.Marshal(Arrival{Time: now.UTC(), Service: e.service, Instance: e.instance, Method: req.Method,
			Path: req.URL.RequestURI(), RequestID: req.Header.Get("X-Request-Id")})
		if err == nil {
			e.log.Write(append(line, '\n')) // a demo does not stop for its log
		}
	}
	return now.Before(e.broken)
}

func (e *echo) seen(req *http.Request, body int64) Seen {
	s := Seen{Service: e.service, Instance: e.instance, Method: req.Method, Path: req.URL.Path, Query: req.URL.RawQuery,
		Host: req.Host, Identity: map[string]string{}, RequestID: req.Header.Get("X-Request-Id"),
		Forwarded: map[string]string{}, Headers: slices.Sorted(maps.Keys(req.Header)), BodyBytes: body}
	for name, values := range req.Header {
		joined := strings.Join(values, ", ")
		switch {
		case strings.HasPrefix(name, "X-Auth-"):
			s.Identity[name] = joined
		case name == "Forwarded", name == "Traceparent", strings.HasPrefix(name, "X-Forwarded-"):
			s.Forwarded[name] = joined
		}
	}
	return s
}

func controlOf(q url.Values) (control, error) {
	c := control{status: http.StatusOK, bytes: -1}
	var err error
	if s := q.Get("status"); s != "" {
		if c.status, err = strconv.Atoi(s); err != nil || c.status < 200 || c.status > 599 {
			return c, fmt.Errorf("status=%q: want 200 to 599", s)
		}
	}
	if s := q.Get("bytes"); s != "" {
		if c.bytes, err = strconv.ParseInt(s, 10, 64); err != nil || c.bytes < 0 || c.bytes > maxBytes {
			return c, fmt.Errorf("bytes=%q: want 0 to %d", s, maxBytes)
		}
	}
	if c.delay, err = timeOf(q, "delay", maxDelay); err != nil {
		return c, err
	}
	c.broken, err = timeOf(q, "broken", maxBroken)
	return c, err
}

func timeOf(q url.Values, name string, top time.Duration) (time.Duration, error) {
	s := q.Get(name)
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > top {
		return 0, fmt.Errorf("%s=%q: want a time such as 200ms, at most %v", name, s, top)
	}
	return d, nil
}

// pattern is an endless body.
type pattern struct{}

func (pattern) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
