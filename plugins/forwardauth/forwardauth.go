// Package forwardauth asks an HTTP service whether a request may pass.
//
// It owns the question (a GET with the request's method, URI and chosen fields,
// never its content), what of the answer reaches the service behind the route
// or the client, and that no answer means no. It does not own what is decided.
//
//	routes:
//	  - path: /wiki/**
//	    public: true
//	    forward_auth: {url: "http://127.0.0.1:9091/check", response_headers: [Remote-User]}
package forwardauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Name is the key of the setting on a route.
const Name = "forward_auth"

// Settings are what stands under the key.
type Settings struct {
	Pos routes.Pos
	URL URL `yaml:"url"`
	// Timeout is for the whole question; default 1s.
	Timeout time.Duration `yaml:"timeout"`
	// RequestHeaders are the fields of the request that the service sees;
	// default Authorization and Cookie.
	RequestHeaders []FieldName `yaml:"request_headers"`
	// ResponseHeaders are the fields of a consenting answer that go on with
	// the request, in the place of the client's.
	ResponseHeaders []FieldName `yaml:"response_headers"`
}

const (
	defaultTimeout = time.Second
	longestTimeout = time.Minute
	// maxContent bounds what of a refusal is relayed.
	maxContent = 64 << 10
	// maxConnections bounds the connections to one host; further questions
	// wait, within their timeout.
	maxConnections = 256
)

// Plugin makes the steps and keeps the connections.
type Plugin struct{ transport *http.Transport }

// New returns a Plugin. Close it when no request is under way any more.
func New() *Plugin {
	dialer := &net.Dialer{Timeout: longestTimeout, KeepAlive: 30 * time.Second}
	return &Plugin{&http.Transport{
		DialContext: dialer.DialContext, MaxConnsPerHost: maxConnections, MaxIdleConnsPerHost: maxConnections,
		IdleConnTimeout: 90 * time.Second, MaxResponseHeaderBytes: maxContent, DisableCompression: true,
		TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: false,
	}}
}

// Name implements plugins.Plugin.
func (p *Plugin) Name() string { return Name }

// Close closes the connections that are not in use.
func (p *Plugin) Close() { p.transport.CloseIdleConnections() }

// Build implements plugins.Plugin: nil for a route without forward_auth.
func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
	node := r.Plugin(Name)
	if node.IsZero() {
		return nil, nil
	}
	s := Settings{Timeout: defaultTimeout}
	if err := node.Decode(&s); err != nil {
		return nil, err
	}
	problem := func(text string) (plugins.Step, error) {
		return nil, routes.Problem{Pos: s.Pos, Message: fmt.Sprintf("route %q: %s: %s", r.Name, Name, text)}
	}
	switch {
	case s.URL.Host == "":
		return problem("url is missing")
	case s.Timeout < time.Millisecond || s.Timeout > longestTimeout:
		return problem("timeout: wants 1ms to 1m")
	}
	if s.RequestHeaders == nil {
		s.RequestHeaders = []FieldName{"authorization", "cookie"}
	}
	u := &rule{transport: p.transport, url: url.URL(s.URL), timeout: s.Timeout, shown: s.RequestHeaders, taken: s.ResponseHeaders}
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			passes, err := u.ask(x)
			if err != nil || !passes {
				return err
			}
			return next(x)
		}
	}, nil
}

// rule is the question of a route.
type rule struct {
	transport http.RoundTripper
	url       url.URL
	timeout   time.Duration
	shown     []FieldName
	taken     []FieldName
}

// ask reports whether the request may pass. Where it may not, the answer was
// relayed to the client, or err says why nobody could tell.
func (u *rule) ask(x *plugins.Exchange) (passes bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), u.timeout)
	defer cancel()
	// Redirects are for the client to follow: one round trip, not a client.
	answer, err := u.transport.RoundTrip(u.question(ctx, x))
	if err != nil {
		return false, unavailable(err)
	}
	defer answer.Body.Close()
	switch {
	case answer.StatusCode >= http.StatusInternalServerError || answer.StatusCode < http.StatusOK:
		return false, unavailable(fmt.Errorf("the service answered %d", answer.StatusCode))
	case answer.StatusCode < http.StatusMultipleChoices:
		err := u.take(x, answer.Header)
		// Read to the end, so that the connection can be used again.
		_, _ = io.CopyN(io.Discard, answer.Body, maxContent)
		return err == nil, err
	}
	return false, relay(x, answer)
}

func unavailable(err error) *plugins.Error {
	return &plugins.Error{
		Status: http.StatusServiceUnavailable, Code: plugins.ForwardAuthSilent,
		Header: [][2]string{{"Retry-After", "1"}}, Err: fmt.Errorf("asking whether the request may pass: %w", err),
	}
}

// question is a GET whatever the request is, and it has no content.
func (u *rule) question(ctx context.Context, x *plugins.Exchange) *http.Request {
	target := u.url
	q := &http.Request{
		Method: http.MethodGet, URL: &target, Host: target.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, 8+len(u.shown)),
	}
	uri := string(x.Path)
	if x.HasQuery {
		uri += "?" + string(x.Query)
	}
	scheme := "http"
	if x.TLS {
		scheme = "https"
	}
	for _, f := range [][2]string{
		{"X-Forwarded-Method", string(x.Method)}, {"X-Forwarded-Uri", uri}, {"X-Forwarded-Host", string(x.Authority)},
		{"X-Forwarded-Proto", scheme}, {"X-Forwarded-For", x.ClientIP.String()}, {"X-Request-Id", string(x.RequestID)},
	} {
		q.Header[f[0]] = []string{f[1]}
	}
	// No agent that the client did not name, and none of the library.
	q.Header["User-Agent"] = nil
	for i := range x.Fields {
		f := &x.Fields[i]
		if slices.ContainsFunc(u.shown, func(n FieldName) bool { return n.is(f.Name) }) {
			name := http.CanonicalHeaderKey(string(f.Name))
			q.Header[name] = append(q.Header[name], string(f.Value))
		}
	}
	if x.Principal != nil {
		for line := range strings.SplitSeq(strings.TrimSuffix(string(x.Principal.Identity), "\r\n"), "\r\n") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				q.Header[name] = []string{value}
			}
		}
	}
	return q.WithContext(ctx)
}

// take puts the chosen fields of a consenting answer in the place of the
// client's.
func (u *rule) take(x *plugins.Exchange, header http.Header) error {
	received := len(x.Fields)
	for _, name := range u.taken {
		for i := range x.Fields[:received] {
			if f := &x.Fields[i]; name.folds(f.Name) {
				f.Drop = true
			}
		}
		for _, value := range header.Values(string(name)) {
			for _, c := range []byte(value) {
				if c < ' ' || c > '~' {
					return unavailable(errors.New("a field of the answer is not visible ASCII: " + string(name)))
				}
			}
			x.AddRequestField(http.CanonicalHeaderKey(string(name)), []byte(value))
		}
	}
	return nil
}

// relay sends a refusal of the service to the client.
func relay(x *plugins.Exchange, answer *http.Response) error {
	if x.GRPC { // whose clients want a status of gRPC, and read no content
		return &plugins.Error{Status: answer.StatusCode, Code: plugins.ForwardAuthDenied}
	}
	content, err := io.ReadAll(io.LimitReader(answer.Body, maxContent+1))
	if err != nil {
		return unavailable(err)
	}
	if len(content) > maxContent {
		return unavailable(fmt.Errorf("the service answered %d with more than %d bytes", answer.StatusCode, maxContent))
	}
	x.Record.Reason = plugins.ForwardAuthDenied
	fields := make([]byte, 0, 512)
	for name, values := range answer.Header {
		if private(strings.ToLower(name)) {
			continue
		}
		for _, v := range values {
			fields = fmt.Appendf(fields, "%s: %s\r\n", name, v)
		}
	}
	fields = fmt.Appendf(fields, "Content-Length: %d\r\n", len(content))
	head := plugins.ResponseHead{
		Status: answer.StatusCode, Fields: fields, Length: int64(len(content)), Date: true,
		// Content that nobody read would be taken for the next request.
		Close: x.Body != nil,
	}
	if err := x.Client.WriteHead(head); err != nil {
		return err
	}
	if _, err := x.Client.Write(content); err != nil {
		return err
	}
	return x.Client.Finish()
}
