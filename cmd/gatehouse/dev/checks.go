package dev

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Run makes the checks until ctx ends, and returns ctx.Err() once all have
// ended. Queries that wait then return. It is called once.
func (r *Registry) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.mu.Lock()
	r.running = ctx
	for _, c := range r.checks {
		r.startLocked(c)
	}
	r.mu.Unlock()

	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-r.wake:
			timer.Reset(r.expire())
		case <-timer.C:
			timer.Reset(r.expire())
		}
	}

	r.mu.Lock()
	r.running = nil
	r.mu.Unlock()
	r.probes.Wait()
	close(r.closed)
	return ctx.Err()
}

// expire applies the deadlines that have passed and returns the time to the
// next one.
func (r *Registry) expire() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	next := time.Hour
	var dead []*service
	for _, c := range r.checks {
		if c.ttl > 0 && c.status != critical {
			if left := c.expires.Sub(now); left > 0 {
				next = min(next, left)
			} else {
				r.setLocked(c, critical, "TTL expired")
			}
		}
		if c.reapAfter > 0 && c.status == critical {
			if left := c.critical.Add(c.reapAfter).Sub(now); left > 0 {
				next = min(next, left)
			} else {
				dead = append(dead, c.service)
			}
		}
	}
	for _, s := range dead {
		if r.services[s.ID] == s { // two of its checks may have died
			r.removeLocked(s)
		}
	}
	return next
}

// startLocked starts the probe of an HTTP or TCP check.
func (r *Registry) startLocked(c *check) {
	if r.running == nil || c.ttl > 0 || r.running.Err() != nil {
		return
	}
	ctx, stop := context.WithCancel(r.running)
	c.stop = stop
	r.probes.Add(1)
	go r.probe(ctx, c)
}

// probe makes one check at once and then at its interval.
func (r *Registry) probe(ctx context.Context, c *check) {
	defer r.probes.Done()
	client := http.Client{
		Timeout:   c.timeout,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: c.timeout}).DialContext},
	}
	tick := time.NewTicker(c.interval)
	defer tick.Stop()
	for {
		status, output := c.try(ctx, &client)
		r.mu.Lock()
		if ctx.Err() == nil { // the check may have been replaced meanwhile
			r.setLocked(c, status, output)
		}
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// try asks the instance once.
func (c *check) try(ctx context.Context, client *http.Client) (status, output string) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if c.TCP != "" {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.TCP)
		if err != nil {
			return critical, err.Error()
		}
		conn.Close()
		return passing, "TCP connect " + c.TCP + ": Success"
	}
	method := c.Method
	if method == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, c.HTTP, strings.NewReader(c.Body))
	if err != nil {
		return critical, err.Error()
	}
	for k, v := range c.Header {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	resp, err := client.Do(req)
	if err != nil {
		return critical, err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // a cut answer still has its status
	output = fmt.Sprintf("HTTP %s %s: %s Output: %s", method, c.HTTP, resp.Status, body)
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		return passing, output
	case resp.StatusCode == http.StatusTooManyRequests:
		return warning, output
	}
	return critical, output
}
