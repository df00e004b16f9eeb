package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// BackendConfig describes one instance of a demo service.
type BackendConfig struct {
	// Service is its name in the registry; required.
	Service string
	// Instance is its id; default Service-PORT.
	Instance string
	// Listen is where it serves; default 127.0.0.1:0, any free port.
	Listen string
	// Advertise is the IP address under which others reach it; default the
	// one it listens on, which must then be a single one.
	Advertise string
	// Registry is http://host:port of Consul or of a Registry; empty: the
	// backend registers nowhere.
	Registry string
	// Token is an ACL token for the registry.
	Token string
	Tags  []string
	Meta  map[string]string
	// TTL makes the backend report its health itself, thrice in that time. 0:
	// the registry asks /healthz every CheckEvery, default a second.
	TTL        time.Duration
	CheckEvery time.Duration
	// Drain is how long it serves on after it has deregistered; default 1.5 s,
	// more than the gateway takes to notice.
	Drain time.Duration
	// Log gets a line of JSON for each request as it arrives, before anything
	// is answered; nil: none. Lines of several backends on one Log do not mix
	// if its Write is atomic.
	Log io.Writer
	// Ready, when not nil, is called once with the address that it serves on.
	Ready func(netip.AddrPort)
	// Crash, when closed, ends the backend at once with all its connections,
	// and it stays registered: what a killed process leaves behind.
	Crash <-chan struct{}
	// Handler answers instead of the echo.
	Handler http.Handler
	// Report, when not nil, is told why the backend is not registered, once
	// for each reason in a row. It must not block.
	Report func(error)
}

var errCrashed = errors.New("demo backend: crashed as it was told to")

const (
	defaultDrain = 1500 * time.Millisecond
	shutdownTime = 5 * time.Second
)

// RunBackend serves until ctx ends, registered all the while: it waits for a
// registry that is not there yet and comes back to one that forgot it. Then it
// deregisters, serves on for Drain, lets running requests finish and returns
// ctx.Err(). Errors of the configuration and of listening are returned at once.
func RunBackend(ctx context.Context, c BackendConfig) error {
	if c.Service == "" {
		return errors.New("demo backend: no service name")
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	if c.Drain == 0 {
		c.Drain = defaultDrain
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("demo backend %s: %w", c.Service, err)
	}
	defer l.Close()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	if c.Instance == "" {
		c.Instance = c.Service + "-" + strconv.Itoa(int(addr.Port()))
	}
	enrolment, err := newEnrolment(c, addr)
	if err != nil {
		return fmt.Errorf("demo backend %s: %w", c.Service, err)
	}
	if c.Handler == nil {
		c.Handler = newEcho(c, time.Now)
	}
	server := &http.Server{Handler: c.Handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	if c.Ready != nil {
		c.Ready(addr)
	}

	enrolled := make(chan struct{})
	go func() { defer close(enrolled); enrolment.keep(ctx) }()
	select {
	case <-c.Crash:
		enrolment.stop()
		server.Close()
		<-enrolled
		<-served
		return errCrashed
	case <-ctx.Done():
	case err = <-served: // the listener failed: leave the registry at once
		err = fmt.Errorf("demo backend %s: %w", c.Service, err)
	}
	enrolment.stop()
	<-enrolled
	if err != nil {
		enrolment.leave()
		return err
	}
	if enrolment.leave() {
		time.Sleep(c.Drain)
	}
	end, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	if err := server.Shutdown(end); err != nil {
		server.Close()
	}
	<-served
	return ctx.Err()
}
