package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// protoHTTP2 is the name of HTTP/2 in ALPN.
const protoHTTP2 = "h2"

// What an instance may have buffered here for each stream, and how a silent
// connection with requests is found to be dead.
const (
	streamWindow        = 256 << 10
	pingAfter, pingWait = 30 * time.Second, 15 * time.Second
)

var errProtocol = errors.New("instance did not choose HTTP/2")

// streams are an instance's HTTP/2 connections, on which requests are
// multiplexed. net/http makes a further one when the others carry as many as
// the instance allows, and repeats requests that the instance certainly did
// not process.
type streams struct {
	inst      *Instance
	transport *http.Transport
	open      atomic.Int64
	retired   atomic.Bool
}

func newStreams(inst *Instance) *streams {
	s := &streams{inst: inst}
	cfg := &inst.svc.cfg
	s.transport = &http.Transport{
		DialContext:            s.dial,
		DialTLSContext:         s.dialTLS,
		DisableCompression:     true,
		IdleConnTimeout:        cfg.Idle,
		MaxResponseHeaderBytes: int64(cfg.MaxHead),
		Protocols:              new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream: streamWindow, SendPingTimeout: pingAfter, PingTimeout: pingWait,
		},
	}
	if cfg.TLS != nil {
		s.transport.Protocols.SetHTTP2(true)
	} else {
		s.transport.Protocols.SetUnencryptedHTTP2(true)
	}
	return s
}

// RoundTrip sends a request over HTTP/2 and returns the head of the answer, as
// http.RoundTripper does; Config.HTTP2 must be set. URL.Scheme and URL.Host are
// filled in, Host stays. It ends with the request's context, whose cause it
// then returns; other errors are of this package.
func (i *Instance) RoundTrip(r *http.Request) (*http.Response, error) {
	r.URL.Scheme, r.URL.Host = "http", i.addr.String()
	if i.svc.cfg.TLS != nil {
		r.URL.Scheme = "https"
	}
	resp, err := i.streams.transport.RoundTrip(r)
	if err == nil {
		return resp, nil
	}
	var own *Error
	switch {
	case r.Context().Err() != nil:
		return nil, context.Cause(r.Context())
	case errors.As(err, &own):
		return nil, own
	case isTimeout(err):
		return nil, &Error{Kind: ErrTimeout, Phase: PhaseHead, Err: err}
	}
	return nil, &Error{Kind: ErrReset, Phase: PhaseHead, Err: err}
}

func (s *streams) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	svc := s.inst.svc
	if s.open.Add(1) > int64(svc.cfg.MaxConnsPerInstance) {
		s.open.Add(-1)
		return nil, &Error{Kind: ErrBusy, Phase: PhaseQueue}
	}
	d := net.Dialer{Timeout: svc.cfg.Connect}
	nc, err := d.DialContext(ctx, network, s.inst.addr.String())
	if err != nil {
		s.open.Add(-1)
		return nil, &Error{Kind: ErrConnect, Phase: PhaseConnect, Err: err}
	}
	return &counted{Conn: nc, open: &s.open}, nil
}

func (s *streams) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	cfg := s.inst.svc.cfg.TLS
	ctx, cancel := context.WithTimeout(ctx, s.inst.svc.cfg.Connect)
	defer cancel()
	nc, err := s.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName = s.inst.addr.Addr().String()
	}
	t := tls.Client(nc, cfg)
	err = t.HandshakeContext(ctx)
	if err == nil && t.ConnectionState().NegotiatedProtocol != protoHTTP2 {
		err = errProtocol
	}
	if err != nil {
		_ = nc.Close()
		return nil, &Error{Kind: ErrConnect, Phase: PhaseConnect, Err: fmt.Errorf("TLS handshake: %w", err)}
	}
	return t, nil
}

// retire closes the idle connections; ended closes the others.
func (s *streams) retire() {
	s.retired.Store(true)
	s.transport.CloseIdleConnections()
}

// ended is called after each request.
func (s *streams) ended() {
	if s.retired.Load() && s.inst.inFlight() == 0 {
		s.transport.CloseIdleConnections()
	}
}

// count tells the open connections, and how many of them carry no request as
// far as that is known here: all, or none.
func (s *streams) count() (open, idle int) {
	open = int(s.open.Load())
	if s.inst.inFlight() == 0 {
		idle = open
	}
	return open, idle
}

// counted is a connection that is counted until it is closed.
type counted struct {
	net.Conn
	once sync.Once
	open *atomic.Int64
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}
