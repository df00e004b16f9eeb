package server

import (
	"net/netip"
	"strings"
	"testing"
)

// FuzzRightmost: the client is the peer, or an address that stands in the list
// with nothing but trusted proxies behind it.
func FuzzRightmost(f *testing.F) {
	for _, seed := range []string{"", "1.2.3.4", "1.2.3.4, 10.0.0.1", "unknown", "1.2.3.4,,10.0.0.1", "[::1]:80", "::ffff:10.0.0.1, 10.0.0.2", " , "} {
		f.Add(seed)
	}
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	peer := netip.MustParseAddr("10.9.9.9")
	f.Fuzz(func(t *testing.T, list string) {
		got := rightmost([]byte(list), trusted, peer)
		if got == peer {
			return
		}
		entries := strings.Split(list, ",")
		for i := len(entries) - 1; i >= 0; i-- {
			a, ok := asWritten(strings.TrimSpace(entries[i]))
			if !ok {
				t.Fatalf("%q: %v stands left of what is no address", list, got)
			}
			if a = a.Unmap(); a == got {
				return
			}
			if !contains(trusted, a) {
				t.Fatalf("%q: %v stands left of %v, which nobody trusts", list, got, a)
			}
		}
		t.Fatalf("%q: %v does not stand in it", list, got)
	})
}

// asWritten reads an address as proxies write it: bare, with a port, or an IPv6
// one in brackets.
func asWritten(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a, true
	}
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a.Addr(), true
	}
	inner, open := strings.CutPrefix(s, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	a, err := netip.ParseAddr(inner)
	return a, err == nil && open && closed
}
