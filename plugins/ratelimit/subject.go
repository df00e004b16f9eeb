package ratelimit

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/maphash"
	"net/netip"
	"strings"

	"github.com/gatehouse/gatehouse/plugins"
)

// subjectKind is what a limit counts by.
type subjectKind uint8

const (
	byClient subjectKind = iota + 1
	bySubject
	byAddress
	byClaim
	byRoute
)

// subject is who is counted. Subjects are compared as a whole, so nobody can
// choose values that share another's bucket in this process; in the store 64
// bits of SHA-256 stand for them.
type subject struct {
	kind   subjectKind
	issuer string
	value  string
	addr   [16]byte
}

// subjectOf tells whom pol counts for this request. It allocates nothing and
// lends the principal's strings.
func subjectOf(pol *policy, x *plugins.Exchange) subject {
	switch pol.by {
	case byRoute:
		return subject{kind: byRoute}
	case byAddress:
		return addressSubject(x.ClientIP)
	}
	pr := x.Principal
	if pr == nil {
		// A route in shadow mode lets requests without a token pass.
		return addressSubject(x.ClientIP)
	}
	switch pol.by {
	case bySubject:
		return subject{kind: bySubject, issuer: pr.Issuer, value: pr.Subject}
	case byClaim:
		if values := pr.Claim(pol.claim); len(values) > 0 {
			return subject{kind: byClaim, issuer: pr.Issuer, value: values[0]}
		}
	}
	return subject{kind: byClient, issuer: pr.Issuer, value: pr.ClientID}
}

// addressSubject counts an IPv6 client by its /64: it owns all of it.
func addressSubject(a netip.Addr) subject {
	s := subject{kind: byAddress}
	if !a.IsValid() {
		return s
	}
	s.addr = a.As16()
	if a.Is6() && !a.Is4In6() {
		clear(s.addr[8:])
	}
	return s
}

// hash is keyed per process, so that clients cannot aim at one shard.
func (s *subject) hash(seed maphash.Seed) uint64 {
	switch s.kind {
	case byRoute:
		return uint64(byRoute)
	case byAddress:
		return maphash.Bytes(seed, s.addr[:])
	}
	// The issuer is compared, not hashed: few issuers share a value.
	return maphash.String(seed, s.value) + uint64(s.kind)
}

// own returns s with strings of its own.
func (s subject) own() subject {
	s.issuer, s.value = strings.Clone(s.issuer), strings.Clone(s.value)
	return s
}

// bucketName is the store's name of the subject's bucket. The braces keep all
// limits of one subject in one slot of a cluster.
func bucketName(limit string, s *subject) string {
	b := make([]byte, 0, 128)
	b = append(b, byte(s.kind))
	b = binary.AppendUvarint(b, uint64(len(s.issuer)))
	b = append(b, s.issuer...)
	b = append(b, s.value...)
	if s.kind == byAddress {
		b = append(b, s.addr[:]...)
	}
	sum := sha256.Sum256(b)
	return "rl:{" + hex.EncodeToString(sum[:8]) + "}:" + limit
}
