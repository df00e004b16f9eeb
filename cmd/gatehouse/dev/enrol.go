package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

const (
	enrolTimeout  = 2 * time.Second
	enrolRetryMin = 100 * time.Millisecond
	enrolRetryMax = 2 * time.Second
	enrolVerify   = 5 * time.Second // between two looks whether we are still there
	reapAfter     = time.Minute     // Consul's least
)

// enrolment keeps one instance in a Consul-compatible registry.
type enrolment struct {
	base   string // empty: registers nowhere
	token  string
	body   []byte
	id     string
	ttl    time.Duration
	client http.Client
	quit   chan struct{}
	report func(error)
	told   string // the last report
}

func newEnrolment(c BackendConfig, addr netip.AddrPort) (*enrolment, error) {
	e := &enrolment{token: c.Token, id: c.Instance, ttl: c.TTL, quit: make(chan struct{}),
		report: c.Report, client: http.Client{Timeout: enrolTimeout, Transport: &http.Transport{DisableKeepAlives: true}}}
	if c.Registry == "" {
		return e, nil
	}
	u, err := url.Parse(c.Registry)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("registry: want http://host:port")
	}
	e.base = strings.TrimSuffix(u.String(), "/")
	ip := addr.Addr().Unmap()
	if c.Advertise != "" {
		if ip, err = netip.ParseAddr(c.Advertise); err != nil {
			return nil, fmt.Errorf("advertise: %w", err)
		}
	}
	if ip.IsUnspecified() {
		return nil, fmt.Errorf("it listens on all addresses (%s): advertise must say under which one it is reached", addr)
	}
	check := &checkDefinition{Status: passing, DeregisterCriticalServiceAfter: reapAfter.String()}
	if c.TTL > 0 {
		check.TTL = c.TTL.String()
	} else {
		every := c.CheckEvery
		if every == 0 {
			every = time.Second
		}
		check.HTTP = "http://" + netip.AddrPortFrom(ip, addr.Port()).String() + "/healthz"
		check.Interval, check.Timeout = every.String(), time.Second.String()
	}
	e.body, err = json.Marshal(map[string]any{
		"ID": c.Instance, "Name": c.Service, "Address": ip.String(), "Port": addr.Port(),
		"Tags": c.Tags, "Meta": c.Meta, "Check": check.request(),
	})
	return e, err
}

// request is the definition as a body of Consul's API, without empty fields.
func (d *checkDefinition) request() map[string]string {
	m := map[string]string{}
	for name, v := range map[string]string{"Status": d.Status, "TTL": d.TTL, "HTTP": d.HTTP, "Interval": d.Interval,
		"Timeout": d.Timeout, "DeregisterCriticalServiceAfter": d.DeregisterCriticalServiceAfter} {
		if v != "" {
			m[name] = v
		}
	}
	return m
}

// keep registers, and registers again whenever the registry does not know us,
// until ctx ends or stop is called.
func (e *enrolment) keep(ctx context.Context) {
	if e.base == "" {
		return
	}
	retry := enrolRetryMin
	enrolled := false
	for {
		pause := e.look()
		if !enrolled || !e.known(ctx) {
			err := e.call(ctx, "agent/service/register?replace-existing-checks=true", e.body)
			enrolled = err == nil
			if enrolled {
				retry = enrolRetryMin
			} else {
				pause, retry = retry, min(2*retry, enrolRetryMax)
			}
			e.tell(ctx, err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-e.quit:
		case <-timer.C:
			continue
		}
		timer.Stop()
		return
	}
}

// tell reports a failure to register that is not the last one again.
func (e *enrolment) tell(ctx context.Context, err error) {
	switch {
	case err == nil:
		e.told = ""
	case ctx.Err() == nil && e.report != nil && err.Error() != e.told:
		e.told = err.Error()
		e.report(fmt.Errorf("register %s: %w", e.id, err))
	}
}

// look is the time between two signs of life.
func (e *enrolment) look() time.Duration {
	if e.ttl > 0 {
		return e.ttl / 3
	}
	return enrolVerify
}

// known gives a sign of life, if that is ours to give, and tells whether the
// registry still has us.
func (e *enrolment) known(ctx context.Context) bool {
	if e.ttl > 0 {
		return e.call(ctx, "agent/check/pass/"+url.PathEscape("service:"+e.id), nil) == nil
	}
	resp, err := e.do(ctx, http.MethodGet, "agent/services", nil)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var all map[string]json.RawMessage
	if json.NewDecoder(io.LimitReader(resp.Body, 16<<20)).Decode(&all) != nil {
		return false
	}
	_, ok := all[e.id]
	return ok
}

// stop ends keep.
func (e *enrolment) stop() { close(e.quit) }

// leave deregisters; false: there was nobody to hear it.
func (e *enrolment) leave() bool {
	if e.base == "" {
		return false
	}
	return e.call(context.Background(), "agent/service/deregister/"+url.PathEscape(e.id), nil) == nil
}

func (e *enrolment) call(ctx context.Context, path string, body []byte) error {
	resp, err := e.do(ctx, http.MethodPut, path, body)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (e *enrolment) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, e.base+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if e.token != "" {
		req.Header.Set("X-Consul-Token", e.token)
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %s", path, resp.Status)
	}
	return resp, nil
}
