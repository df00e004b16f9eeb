// Package static is the discovery source of fixed targets: addresses, and host
// names that are looked up again and again.
//
// It owns the form of a target and the look-ups; it does not own health, and a
// name that cannot be looked up keeps the addresses that it had.
//
//	t, err := static.Parse([]string{"http://10.0.0.7:8080", "http://legacy.internal"})
//	release := cache.Acquire(t.Query, pool.Update) // over a Cache of static.New(static.Config{})
package static

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse/gatehouse/discovery"
)

// Targets are the checked targets of one service.
type Targets struct {
	// Query is what a Source of this package watches. It is the same for the
	// same set of targets, whatever their order, so an unchanged service
	// keeps its watch over a reload.
	Query discovery.Query
	// TLS tells that all targets are https.
	TLS bool
	// Host is the host name that all targets share, for SNI and certificates;
	// empty when they have several or are addresses.
	Host string
}

// Parse checks targets of the form http://host[:port] or https://host[:port];
// all of one service have the same scheme. All mistakes are reported, joined.
func Parse(targets []string) (Targets, error) {
	var t Targets
	var errs []error
	var all []target
	if len(targets) == 0 {
		return t, errors.New("no target")
	}
	schemes, hosts := map[string]bool{}, map[string]bool{}
	for _, s := range targets {
		one, scheme, err := parseTarget(s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		schemes[scheme], hosts[one.host] = true, true
		all = append(all, one)
	}
	if len(schemes) > 1 {
		errs = append(errs, errors.New("targets mix http and https"))
	}
	if len(errs) > 0 {
		return t, errors.Join(errs...)
	}
	t.TLS = schemes["https"]
	if len(hosts) == 1 && !all[0].isIP() {
		t.Host = all[0].host
	}
	t.Query = queryOf(all)
	return t, nil
}

// target is one host and port. Its text form is the id of a fixed address.
type target struct {
	host string // an address or a lower-case name
	port uint16
}

func (t target) String() string { return net.JoinHostPort(t.host, strconv.Itoa(int(t.port))) }

func (t target) isIP() bool { _, err := netip.ParseAddr(t.host); return err == nil }

func parseTarget(s string) (t target, scheme string, err error) {
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return t, "", fmt.Errorf("target %q: want http://host:port or https://host:port", s)
	}
	switch {
	case u.User != nil:
		return t, "", fmt.Errorf("target %q: user and password are not taken here", u.Redacted())
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return t, "", fmt.Errorf("target %q: want host and port only; a path is set with rewrite", s)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return t, "", fmt.Errorf("target %q: port %s is not 1 to 65535", s, port)
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.IsUnspecified() || ip.IsMulticast() || ip.Zone() != "" {
			return t, "", fmt.Errorf("target %q: not the address of an instance", s)
		}
		host = ip.Unmap().String()
	} else if !isName(host) {
		return t, "", fmt.Errorf("target %q: %q is neither an address nor a host name", s, host)
	}
	return target{host, uint16(n)}, u.Scheme, nil
}

// isName accepts host names as they are in use, the underscore included. A
// name that looks like an address is none: resolvers disagree about 127.1.
func isName(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if len(l) == 0 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for _, c := range []byte(l) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	last := labels[len(labels)-1]
	return strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}

// queryOf writes the targets into the query itself: a Source then needs no
// state that a reload would have to change.
func queryOf(all []target) discovery.Query {
	var parts []string
	for _, t := range all {
		parts = append(parts, t.String())
	}
	slices.Sort(parts)
	return discovery.Query{Service: strings.Join(slices.Compact(parts), " ")}
}

func targetsOf(q discovery.Query) ([]target, error) {
	var all []target
	for s := range strings.FieldsSeq(q.Service) {
		t, _, err := parseTarget("http://" + s)
		if err != nil {
			return nil, fmt.Errorf("query %s is not of package static: %w", q, err)
		}
		all = append(all, t)
	}
	if len(all) == 0 || q.Tag != "" {
		return nil, fmt.Errorf("query %s is not of package static", q)
	}
	return all, nil
}

// Resolver looks up host names; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}
