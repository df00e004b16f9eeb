package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

// probe proves, before anything is measured, that a proxy does what its row
// claims: a good request passes and is forwarded as it should be, and on a
// protected route what must not pass is refused. It returns how many header
// fields the origin saw.
func (r *rig) probe(ctx context.Context, o options, s subject) (fields int, err error) {
	if s.version > 0 {
		return r.probeTLS(ctx, o, s)
	}
	good, err := r.issuer.requests(s.path, 1, 1, time.Now())
	if err != nil {
		return 0, err
	}
	t, err := r.wire.drive(ctx, load{
		port: s.port(r.place), connections: 1, total: 3,
		requests: &supply{standing: good}, mark: func() error { return nil },
	})
	if err == nil && t.errors > 0 {
		err = t.sample
	}
	if err != nil {
		return 0, fmt.Errorf("probing %s: %w", s.title, err)
	}
	names := fieldNames(r.wire.head)
	if !slices.Contains(names, "x-forwarded-for") {
		return 0, fmt.Errorf("probing %s: the origin is not told X-Forwarded-For", s.title)
	}
	if !s.protected {
		return len(names), nil
	}
	if !slices.Contains(names, "x-auth-client") || slices.Contains(names, "authorization") {
		return 0, fmt.Errorf("probing %s: the origin is not told X-Auth-Client, or gets the token", s.title)
	}
	return len(names), r.probeRefusals(ctx, s)
}

// probeTLS proves that an encrypted row speaks its version of HTTP. That what
// must not pass is refused was proven on the same route without TLS.
func (r *rig) probeTLS(ctx context.Context, o options, s subject) (fields int, err error) {
	o.connections = 1
	c, err := r.callers(o, s)
	if err != nil {
		return 0, err
	}
	defer c.close()
	t, err := r.driveTLS(ctx, c, s, load{connections: 1, warm: 50 * time.Millisecond, measure: 50 * time.Millisecond, mark: func() error { return nil }})
	if err == nil && t.answered == 0 {
		err = t.sample
	}
	if err != nil {
		return 0, fmt.Errorf("probing %s: %w", s.title, err)
	}
	return len(fieldNames(r.wire.head)), nil
}

func (r *rig) probeRefusals(ctx context.Context, s subject) error {
	now := time.Now()
	bad := []struct {
		name   string
		change func(*claims)
		tamper bool
	}{
		{name: "another scope", change: func(c *claims) { c.Scope = "read:other" }},
		{name: "another audience", change: func(c *claims) { c.Audience = "https://other.test" }},
		{name: "another issuer", change: func(c *claims) { c.Issuer = "http://127.0.0.1:1" }},
		{name: "an expired token", change: func(c *claims) { c.Expiry = now.Add(-time.Hour).Unix() }},
		{name: "a forged token", change: func(*claims) {}, tamper: true},
	}
	if err := r.refuses(ctx, s, "no token", ""); err != nil {
		return err
	}
	for _, b := range bad {
		c := r.issuer.claims(0, now)
		b.change(&c)
		token, err := r.issuer.sign(c)
		if err != nil {
			return err
		}
		if b.tamper {
			// The payload's last letters change, so that the signature is of another text.
			dot := bytes.LastIndexByte([]byte(token), '.')
			token = token[:dot-8] + flip(token[dot-8:dot]) + token[dot:]
		}
		if err := r.refuses(ctx, s, b.name, token); err != nil {
			return err
		}
	}
	return nil
}

// flip changes each letter of base64 text to another one of base64.
func flip(s string) string {
	b := []byte(s)
	for i, c := range b {
		b[i] = 'A'
		if c == 'A' {
			b[i] = 'B'
		}
	}
	return string(b)
}

// refuses sends a request that must not reach the origin, which does not even
// answer now.
func (r *rig) refuses(ctx context.Context, s subject, what, token string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+local(s.port(r.place))+s.path, nil)
	if err != nil {
		return err
	}
	req.Host = apiHost
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("probing %s: %s is not refused: %w", s.title, what, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden {
		return fmt.Errorf("probing %s: %s is answered with status %d", s.title, what, resp.StatusCode)
	}
	return nil
}

// fetch reads a small page of an admin listener.
func fetch(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetching %s: status %d", url, resp.StatusCode)
	}
	return io.ReadAll(io.LimitReader(resp.Body, 8<<20))
}
