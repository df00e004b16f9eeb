package forward

import (
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// standing is what the client's side watches over during an attempt. A client
// that leaves always ends it; a stream (a tunnel or an event stream) also ends
// with what allowed it, or when its time is up.
type standing struct {
	conn aborter
	// What follows is set for streams, before they are watched as such.
	stream    bool
	tunnel    bool
	limits    routes.Streams
	principal *plugins.Principal
	who       plugins.Standing
	end       time.Time
	patience  time.Time    // until then a server that stops waits for it
	last      atomic.Int64 // of the last piece of a tunnel, ns since 1970

	reason atomic.Pointer[string] // of Due
}

// aborter is the way to the instance: a connection, or a call over HTTP/2.
type aborter interface {
	Abort()
	AbortRead()
}

// begin makes s watch over an attempt on c.
func (s *standing) begin(c aborter) {
	s.conn, s.stream, s.tunnel, s.patience = c, false, false, time.Time{}
	s.reason.Store(nil)
}

// enter makes it a stream. The caller watches with s only afterwards.
func (s *standing) enter(x *plugins.Exchange, limits routes.Streams, tunnel bool, now time.Time) {
	s.stream, s.tunnel, s.limits = true, tunnel, limits
	s.principal, s.who = x.Principal, x.Standing
	s.end = now.Add(limits.MaxLifetime)
	s.touch(now)
	if x.Settler != nil {
		x.Settler.Settle() // the service has answered, however long it goes on
	}
}

func (s *standing) touch(now time.Time) { s.last.Store(now.UnixNano()) }

// Due implements plugins.Watched.
func (s *standing) Due(now time.Time, stopping bool) bool {
	if !s.stream {
		return false
	}
	reason := s.judge(now, stopping)
	if reason != "" {
		s.reason.Store(&reason)
	}
	return reason != ""
}

func (s *standing) judge(now time.Time, stopping bool) string {
	p := s.principal
	switch {
	case stopping && now.After(s.patience):
		return plugins.Draining
	case now.After(s.end), s.tunnel && now.UnixNano()-s.last.Load() > int64(s.limits.IdleTimeout):
		return plugins.StreamExpired
	case p == nil:
		return ""
	case !p.Expiry.IsZero() && now.After(p.Expiry.Add(s.limits.TokenGrace)):
		return plugins.TokenExpired
	case s.who != nil:
		return s.who.Stands(p, now)
	}
	return ""
}

// Abort implements plugins.Watched. A tunnel is only woken: it has something to
// say to both sides.
func (s *standing) Abort() {
	if s.tunnel && s.reason.Load() != nil {
		s.conn.AbortRead()
		return
	}
	s.conn.Abort()
}

// ended is the failure of an attempt that Due ended, nil for any other.
func (s *standing) ended() *plugins.Error {
	if r := s.reason.Load(); r != nil {
		return &plugins.Error{Status: statusClientGone, Code: *r}
	}
	return nil
}
