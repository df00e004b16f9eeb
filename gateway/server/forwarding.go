package server

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/gatehouse/gatehouse/gateway/wire"
	"github.com/gatehouse/gatehouse/plugins"
)

// forwarding applies the trust rules (EDGE: S41) and renders the lines that
// tell the upstream about the client.
//
// A peer outside trusted_proxies is the client: whatever it says about others
// is removed. From a trusted peer X-Forwarded-For is continued, the client is
// its right-most address that is not trusted, and its X-Forwarded-*, Forwarded,
// X-Real-IP, X-Request-Id and traceparent pass. Client-Cert never passes; where
// the listener's balancer may tell it, it is what the client showed there.
func (st *state) forwarding() {
	x := &st.x
	trusted := *st.server.trusted.Load()
	believed := len(trusted) > 0 && contains(trusted, x.Peer)
	var chain []byte
	var told clientCertField
	proto, tracing := false, false
	for i := range x.Fields {
		f := &x.Fields[i]
		switch f.ID {
		case wire.XForwardedFor:
			// Another spelling was not written by a proxy of ours: it passed
			// through it.
			credible := believed && !f.Drop && written(f)
			f.Drop = true
			if credible {
				if len(chain) > 0 {
					// Several fields are one list (RFC 9110, 5.3).
					chain = append(append(bytes.Clone(chain), ", "...), f.Value...)
				} else {
					chain = f.Value
				}
			}
		case wire.XForwarded:
			if !believed || !written(f) {
				f.Drop = true
			} else if wire.EqualFold(f.Name, "x-forwarded-proto") {
				proto = true
				x.TLS = x.TLS || wire.EqualFold(f.Value, "https")
			}
		case wire.Forwarded, wire.RealIP:
			f.Drop = f.Drop || !believed || !written(f)
		case wire.RequestID:
			f.Drop = true
			if believed && validID(f.Value) {
				x.RequestID = f.Value
			}
		case wire.Traceparent:
			f.Drop = f.Drop || !believed
			tracing = tracing || !f.Drop
		case wire.Tracestate:
			f.Drop = f.Drop || !believed
		case wire.ClientCert:
			told.note(f)
		}
	}
	if believed && st.certTold {
		x.ClientCert = told.cert()
	}
	if believed {
		x.ClientIP = rightmost(chain, trusted, x.Peer)
	}
	b := append(st.lines[:0], "X-Forwarded-For: "...)
	if len(chain) > 0 {
		b = append(append(b, chain...), ", "...)
	}
	if x.Peer.IsValid() {
		b = x.Peer.AppendTo(b)
	} else {
		b = append(b, "unknown"...)
	}
	if !proto {
		b = append(b, "\r\nX-Forwarded-Proto: http"...)
		if x.TLS {
			b = append(b, 's')
		}
	}
	if !believed {
		b = append(append(b, "\r\nX-Forwarded-Host: "...), x.Authority...)
	}
	b = append(append(b, "\r\nX-Request-Id: "...), x.RequestID...)
	if !believed {
		b = append(append(b, "\r\nX-Forwarded-Port: "...), port(x)...)
	}
	if !tracing {
		b = appendTraceparent(b, x)
	}
	b = append(b, '\r', '\n')
	st.lines, x.Forwarding = b, b
}

// written reports whether a field has its name as proxies write it. The gate
// knows other spellings too, because servers behind us may fold them.
func written(f *plugins.Field) bool { return bytes.IndexByte(f.Name, '.') < 0 }

// port is the one that the client asked for.
func port(x *plugins.Exchange) []byte {
	// The gate has seen that the authority is well formed; a colon within
	// brackets is of an address.
	if i := bytes.LastIndexByte(x.Authority, ':'); i > bytes.LastIndexByte(x.Authority, ']') && i+1 < len(x.Authority) {
		return x.Authority[i+1:]
	}
	if x.TLS {
		return portHTTPS
	}
	return portHTTP
}

var portHTTP, portHTTPS = []byte("80"), []byte("443")

// appendTraceparent starts a trace (W3C Trace Context) whose id is the
// request's, not sampled: whether to sample is for a tracer to decide.
func appendTraceparent(b []byte, x *plugins.Exchange) []byte {
	if len(x.RequestID) != 32 {
		return b
	}
	b = append(append(b, "\r\ntraceparent: 00-"...), x.RequestID...)
	b = append(b, '-')
	var span [8]byte
	for i, v := 0, rand.Uint64()|1; i < 8; i++ {
		span[i] = byte(v >> (8 * i))
	}
	b = hex.AppendEncode(b, span[:])
	return append(b, "-00"...)
}

func contains(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) })
}

// rightmost walks the list from its end to the first address that is not a
// trusted proxy. Text that is no address ends the walk: what stands left of it
// was not written by anybody trusted.
func rightmost(chain []byte, trusted []netip.Prefix, peer netip.Addr) netip.Addr {
	client := peer
	for len(chain) > 0 {
		i := bytes.LastIndexByte(chain, ',')
		a, ok := hop(string(bytes.TrimSpace(chain[i+1:])))
		if !ok {
			return client
		}
		client = a
		if !contains(trusted, client) || i < 0 {
			return client
		}
		chain = chain[:i]
	}
	return client
}

// hop reads an address; some proxies write it with the client's port, or in
// brackets.
func hop(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap(), true
	}
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a.Addr().Unmap(), true
	}
	if len(s) > 2 && s[0] == '[' && s[len(s)-1] == ']' {
		a, err := netip.ParseAddr(s[1 : len(s)-1])
		return a.Unmap(), err == nil
	}
	return netip.Addr{}, false
}

func validID(v []byte) bool {
	if len(v) == 0 || len(v) > 64 {
		return false
	}
	for _, c := range v {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return true
}
