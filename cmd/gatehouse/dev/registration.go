package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Consul's bounds on meta.
const (
	maxMeta      = 64
	maxMetaKey   = 128
	maxMetaValue = 512
)

// registration is the body of /v1/agent/service/register. A field of Consul's
// that is not here is refused.
type registration struct {
	ID      string
	Name    string
	Address string
	Port    int
	Tags    []string
	Meta    map[string]string
	Weights *weights
	Check   *checkDefinition
	Checks  []*checkDefinition

	EnableTagOverride bool
}

type weights struct{ Passing, Warning int }

// checkDefinition is a check in a registration: TTL, HTTP or TCP.
type checkDefinition struct {
	CheckID string
	Name    string
	Notes   string
	Status  string

	TTL      string
	HTTP     string
	Method   string
	Header   map[string][]string
	Body     string
	TCP      string
	Interval string
	Timeout  string

	DeregisterCriticalServiceAfter string

	ttl, interval, timeout, reapAfter time.Duration
}

// decodeRegistration reads and checks a registration and fills in its defaults.
func decodeRegistration(body io.Reader) (registration, error) {
	var reg registration
	if err := decodeStrict(body, &reg); err != nil {
		return reg, err
	}
	if reg.Name == "" {
		return reg, errors.New("missing service name")
	}
	if reg.ID == "" {
		reg.ID = reg.Name
	}
	if reg.Name == "consul" || reg.ID == "consul" {
		return reg, errors.New("service consul is the registry itself")
	}
	if ip, err := netip.ParseAddr(reg.Address); err == nil && ip.IsUnspecified() {
		return reg, errors.New("invalid service address")
	}
	if reg.Port < 0 || reg.Port > 65535 { // which Consul takes, and nobody can call
		return reg, errors.New("invalid service port")
	}
	if reg.Weights == nil {
		reg.Weights = &weights{Passing: 1, Warning: 1}
	}
	switch w := reg.Weights; {
	case w.Passing < 1 || w.Passing > 65535:
		return reg, errors.New("invalid weights: passing must be 1 to 65535")
	case w.Warning < 0 || w.Warning > 65535:
		return reg, errors.New("invalid weights: warning must be 0 to 65535")
	}
	if err := checkMeta(reg.Meta); err != nil {
		return reg, err
	}
	if reg.Tags == nil {
		reg.Tags = []string{}
	}
	return reg, reg.checkChecks()
}

// decodeStrict accepts exactly one JSON value without unknown fields.
func decodeStrict(body io.Reader, into any) error {
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("request decode failed: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("request decode failed: more after the JSON value")
	}
	return nil
}

func checkMeta(meta map[string]string) error {
	if len(meta) > maxMeta {
		return fmt.Errorf("invalid service meta: %d pairs, at most %d", len(meta), maxMeta)
	}
	for k, v := range meta {
		switch {
		case k == "":
			return errors.New("invalid service meta: empty key")
		case len(k) > maxMetaKey:
			return fmt.Errorf("invalid service meta: key of %d bytes, at most %d", len(k), maxMetaKey)
		case len(v) > maxMetaValue:
			return fmt.Errorf("invalid service meta: value of %s has %d bytes, at most %d", k, len(v), maxMetaValue)
		case strings.Trim(k, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "":
			return fmt.Errorf("invalid service meta: key %q: only letters, digits, _ and -", k)
		}
	}
	return nil
}

// definitions are the checks that the registration really has: Consul takes an
// empty object for none.
func (reg *registration) definitions() []checkDefinition {
	var all []checkDefinition
	for _, d := range append([]*checkDefinition{reg.Check}, reg.Checks...) {
		if d != nil && (d.TTL != "" || d.HTTP != "" || d.TCP != "") {
			all = append(all, *d)
		}
	}
	return all
}

// checkChecks checks the definitions and gives them ids and names.
func (reg *registration) checkChecks() error {
	total, n := len(reg.definitions()), 0
	ids := map[string]bool{}
	for _, d := range append([]*checkDefinition{reg.Check}, reg.Checks...) {
		if d == nil {
			continue
		}
		if err := d.check(); err != nil {
			return fmt.Errorf("invalid check: %w", err)
		}
		if d.TTL == "" && d.HTTP == "" && d.TCP == "" {
			continue
		}
		n++
		if d.CheckID == "" {
			d.CheckID = "service:" + reg.ID
			if total > 1 {
				d.CheckID = fmt.Sprintf("service:%s:%d", reg.ID, n)
			}
		}
		if ids[d.CheckID] {
			return fmt.Errorf("invalid check: two have the id %q", d.CheckID)
		}
		ids[d.CheckID] = true
		if d.Name == "" {
			d.Name = fmt.Sprintf("Service '%s' check", reg.Name)
		}
	}
	return nil
}

// check checks one definition and parses its times.
func (d *checkDefinition) check() error {
	for _, f := range []struct {
		name, text string
		into       *time.Duration
	}{
		{"TTL", d.TTL, &d.ttl}, {"Interval", d.Interval, &d.interval}, {"Timeout", d.Timeout, &d.timeout},
		{"DeregisterCriticalServiceAfter", d.DeregisterCriticalServiceAfter, &d.reapAfter},
	} {
		if f.text == "" {
			continue
		}
		v, err := time.ParseDuration(f.text)
		if err != nil || v <= 0 {
			return fmt.Errorf("%s: want a time such as 10s, not %q", f.name, f.text)
		}
		*f.into = v
	}
	if d.timeout == 0 {
		d.timeout = 10 * time.Second
	}
	if d.Status != "" && d.Status != passing && d.Status != warning && d.Status != critical {
		return fmt.Errorf("status must be %s, %s or %s", passing, warning, critical)
	}
	kinds := 0
	for _, s := range []string{d.TTL, d.HTTP, d.TCP} {
		if s != "" {
			kinds++
		}
	}
	switch {
	case kinds > 1:
		return errors.New("only one of TTL, HTTP and TCP")
	case d.TTL != "" && d.Interval != "":
		return errors.New("interval and TTL cannot both be specified")
	case (d.HTTP != "" || d.TCP != "") && d.interval == 0:
		return errors.New("interval must be > 0 for HTTP or TCP checks")
	}
	if d.HTTP != "" {
		u, err := url.Parse(d.HTTP)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return errors.New("HTTP: want a URL with http or https")
		}
	}
	return nil
}

// kind is Consul's word for how the check works.
func (d *checkDefinition) kind() string {
	switch {
	case d.TTL != "":
		return "ttl"
	case d.HTTP != "":
		return "http"
	}
	return "tcp"
}

// same tells whether reg would change nothing but checks.
func (s *service) same(reg registration) bool {
	return s.Name == reg.Name && s.Address == reg.Address && s.Port == reg.Port && *s.Weights == *reg.Weights &&
		s.EnableTagOverride == reg.EnableTagOverride && slices.Equal(s.Tags, reg.Tags) && maps.Equal(s.Meta, reg.Meta)
}
