package server

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
)

// tunnel is a connection that left HTTP. It has no deadlines: who watches over
// the exchange knows when it is idle, and closes it.
type tunnel struct {
	c      *conn
	closed atomic.Bool
}

// tunnel starts one, as long as there are not too many.
func (c *conn) tunnel() (*tunnel, error) {
	s := c.server
	if s.tunnels.Add(1) > int64(s.limits.MaxTunnels) {
		s.tunnels.Add(-1)
		s.tunnelsRefused.Add(1)
		return nil, &plugins.Error{Status: http.StatusServiceUnavailable, Code: plugins.TunnelLimit,
			Header: [][2]string{{"Retry-After", "5"}}}
	}
	if err := c.Conn.SetReadDeadline(time.Time{}); err != nil {
		s.tunnels.Add(-1)
		return nil, err
	}
	c.watch.loosen()
	return &tunnel{c: c}, nil
}

// Read implements plugins.Tunnel: first what came with the head.
func (t *tunnel) Read(p []byte) (int, error) {
	c := t.c
	if c.r < c.w {
		n := copy(p, (*c.buf)[c.r:c.w])
		c.r += n
		return n, nil
	}
	return c.plain.Read(p)
}

// Write implements plugins.Tunnel. A client that does not read is cut off as
// with any other answer.
func (t *tunnel) Write(p []byte) (int, error) {
	if err := t.c.send(p, t.c.server.now()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// CloseWrite implements plugins.Tunnel.
func (t *tunnel) CloseWrite() error { return t.c.closeWrite() }

// Close implements plugins.Tunnel; a Read or Write under way fails.
func (t *tunnel) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	t.c.server.tunnels.Add(-1)
	return t.c.Conn.SetDeadline(past)
}
