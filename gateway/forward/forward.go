// Package forward is the last handler of every chain: it sends the request to
// an instance of the route's service and the answer to the client.
//
// It owns the final gate, the head that the upstream receives, the rules for
// what of the answer travels on, and the streaming of content both ways. It
// does not own the choice of an instance and its connections
// (gateway/upstream), repetition (plugins/retry) or the client's connection
// (gateway/server).
//
//	handler := plugins.Chain(forward.New(route, service, time.Now), steps...)
package forward

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/gatehouse/gatehouse/gateway/pace"
	"github.com/gatehouse/gatehouse/gateway/upstream"
	"github.com/gatehouse/gatehouse/gateway/wire"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// forwarder serves one route.
type forwarder struct {
	route   *routes.Route
	service *upstream.Service
	now     func() time.Time
	// request bounds the time to the answer's head, all attempts together;
	// idle the time between two pieces of content.
	request, idle time.Duration
	// pace is how slow an instance may send an answer whose length it announced.
	pace       pace.Rule
	hash       bool
	clientCert bool // the service learns the client's certificate
	streams    routes.Streams
	scratch    sync.Pool // of *scratch
}

// scratch holds what an attempt needs.
type scratch struct {
	standing
	lines  []byte
	fields []plugins.Field
	answer wire.Response
}

// New returns the Handler that forwards r to service.
func New(r *routes.Route, service *upstream.Service, now func() time.Time) plugins.Handler {
	f := &forwarder{
		route: r, service: service, now: now,
		request: r.Upstream.Timeouts.Request, idle: r.Upstream.Timeouts.Idle,
		pace: pace.Rule{Rate: int64(r.Upstream.MinResponseRate), Grace: r.Upstream.RateGrace, Idle: r.Upstream.Timeouts.Idle},
		hash: r.Upstream.Balance == "hash", clientCert: r.Upstream.Identity.ClientCert,
		streams: r.Streams,
	}
	f.scratch.New = func() any {
		return &scratch{lines: make([]byte, 0, 2048), fields: make([]plugins.Field, 0, 32)}
	}
	return f.serve
}

// serve makes one attempt.
func (f *forwarder) serve(x *plugins.Exchange) error {
	x.Replay = plugins.ReplayNever
	if err := f.gate(x); err != nil {
		return err
	}
	if err := f.takeContent(x); err != nil {
		return err
	}
	inst := f.service.Pick(f.key(x), x.Avoid)
	if inst == nil {
		return &plugins.Error{Status: http.StatusServiceUnavailable, Code: plugins.NoHealthyInstance, Header: retrySoon}
	}
	x.Record.Attempts++
	x.Record.Instance = inst.Addr()
	sc := f.scratch.Get().(*scratch)
	var status int
	var failure *plugins.Error
	if inst.HTTP2() {
		status, failure = f.attemptHTTP2(x, inst, sc)
	} else {
		status, failure = f.attempt(x, inst, sc)
	}
	f.scratch.Put(sc)
	if failure == nil {
		inst.Done(upstream.Judge(status, nil))
		return nil
	}
	x.Avoid = inst.Number()
	if failure.Code == plugins.ClientGone || failure.Status < http.StatusInternalServerError {
		inst.Done(upstream.Neutral)
	} else {
		inst.Done(upstream.Judge(0, failure.Err))
	}
	return failure
}

var retrySoon = [][2]string{{"Retry-After", "1"}}

// gate is the last line of defence: whatever the chain did, a protected route
// is not forwarded without a principal that holds the route's scopes, nor
// without the client certificate that the route wants.
func (f *forwarder) gate(x *plugins.Exchange) error {
	r := f.route
	if r.Public || r.Mode == "shadow" {
		return nil
	}
	p := x.Principal
	granted := p != nil && (r.Auth != nil || r.APIKey != nil)
	var all, any []string
	switch {
	case r.Auth != nil:
		all, any = r.Auth.Scopes, r.Auth.AnyScopes
		granted = granted && (r.Auth.MTLS == "" || x.ClientCert != nil)
	case r.APIKey != nil:
		all = r.APIKey.Scopes
	}
	for i := 0; granted && i < len(all); i++ {
		granted = p.HasScope(all[i])
	}
	if granted && len(any) > 0 {
		granted = false
		for _, s := range any {
			granted = granted || p.HasScope(s)
		}
	}
	if !granted {
		return &plugins.Error{Status: http.StatusForbidden, Code: plugins.PrincipalMissing,
			Err: errors.New("a protected route was reached without an authorised principal")}
	}
	return nil
}

// key is what the balance "hash" sticks to: the caller, the same on every
// replica (FNV-1a).
func (f *forwarder) key(x *plugins.Exchange) uint64 {
	if !f.hash {
		return 0
	}
	h := uint64(14695981039346656037)
	if x.Principal != nil {
		for i := range len(x.Principal.Subject) {
			h = (h ^ uint64(x.Principal.Subject[i])) * 1099511628211
		}
		return h
	}
	a := x.ClientIP.As16()
	for _, b := range a {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h
}

// attempt carries the exchange to one instance and back. status is what the
// client got, 0 if nothing.
func (f *forwarder) attempt(x *plugins.Exchange, inst *upstream.Instance, sc *scratch) (status int, failure *plugins.Error) {
	deadline, began := x.Time.Add(f.request), f.now()
	c, err := inst.Conn(deadline)
	if err != nil {
		return 0, f.failed(x, nil, err)
	}
	sc.begin(c)
	x.Client.Watch(&sc.standing)
	c.Out = f.appendHead(c.Out, x)
	var up *upload
	if x.Body != nil && len(x.Content) == 0 {
		up, err = startUpload(x, c, deadline, f.idle, f.now)
	} else {
		c.Out = append(c.Out, x.Content...)
	}
	if err == nil {
		err = f.answer(x, c, sc, deadline, began)
	}
	if err != nil {
		failure = up.failure()
		if e := f.failed(x, c, err); failure == nil {
			failure = e
		}
		c.Abort()
		up.stop(x, c)
		x.Client.Watch(nil)
		c.Release(false)
		return 0, failure
	}
	if sc.answer.Status == http.StatusSwitchingProtocols {
		failure = f.tunnel(x, c, sc)
	} else {
		failure = f.respond(x, c, sc)
	}
	if ended := sc.ended(); ended != nil && failure != nil {
		failure = ended
	}
	reusable := failure == nil && !sc.answer.Close
	if failure != nil {
		c.Abort()
	} else {
		up.settle()
	}
	reusable = up.stop(x, c) && reusable
	x.Client.Watch(nil)
	c.Release(reusable)
	return sc.answer.Status, failure
}
