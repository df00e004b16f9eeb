package auth

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash/maphash"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
	"github.com/gatehouse/gatehouse/routes"
)

// warm makes n tokens of about 700 bytes that are in the cache, and a step.
func warm(t testing.TB, n int) (*desk, plugins.Handler, []*plugins.Exchange) {
	t.Helper()
	d := newDesk(t)
	step, err := d.plugin.Build(&routes.Route{Name: "r", Auth: &routes.Auth{Scopes: []string{"read:orders", "openid"}}})
	if err != nil {
		t.Fatal(err)
	}
	next := step(func(*plugins.Exchange) error { return nil })
	list := make([]*plugins.Exchange, n)
	for i := range list {
		header := d.bearer(members{
			"jti": fmt.Sprint("01HZX5N3W9Q7B2K4M6P8R0T1", i), "sub": fmt.Sprint("usr_01HZX5N3W9Q7B2", i),
			"pad": "0123456789012345678901234567890123456789012345678901234567890123456789",
		})
		list[i] = plugintest.New("GET", "api.example.com", "/orders/1",
			"Host: api.example.com", "User-Agent: bench", "Accept: */*", header)
		if err := next(list[i]); err != nil {
			t.Fatal(err)
		}
	}
	return d, next, list
}

func TestEnforcedRequestAllocatesNothing(t *testing.T) {
	d, next, list := warm(t, 4)
	d.denied = filled(100)
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		x := list[i&3]
		i++
		x.Principal = nil
		if next(x) != nil || x.Principal == nil {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
	s := &signer{t: t, key: newSigning(t, "i1", "ES256")}
	step, err := NewIdentity(s, ownIssuer).Build(identified("orders"))
	if err != nil {
		t.Fatal(err)
	}
	identify := step(func(*plugins.Exchange) error { return nil })
	if n := testing.AllocsPerRun(1000, func() {
		if identify(list[0]) != nil {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("identity: %v allocations, want none", n)
	}
}

// BenchmarkStep is the enforced request: field, hash, look-up, deny set, scopes.
func BenchmarkStep(b *testing.B) {
	for _, n := range []int{1, 1000} {
		for _, entries := range []int{0, 300_000} {
			b.Run(fmt.Sprintf("tokens=%d/denied=%d", n, entries), func(b *testing.B) {
				d, _, list := warm(b, n)
				d.plugin.config.Denied = filled(entries)
				next := d.step(&routes.Route{Name: "r", Auth: &routes.Auth{Scopes: []string{"read:orders"}}})
				for _, x := range list {
					x.Client = nothing{}
				}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if err := next(list[i%n]); err != nil {
						b.Fatal(err)
					}
					i++
				}
			})
		}
	}
}

// nothing is a client that takes everything.
type nothing struct{ plugins.Stream }

func (nothing) WriteHead(plugins.ResponseHead) error { return nil }
func (nothing) Finish() error                        { return nil }

// BenchmarkParts measures what BenchmarkStep is made of, and SHA-256 beside
// the hash and comparison that were chosen.
func BenchmarkParts(b *testing.B) {
	d, _, list := warm(b, 1000)
	var raw [][]byte
	var found []*entry
	var sink uint64
	for _, x := range list {
		c, _ := credentials(x)
		token := c.token
		raw = append(raw, token)
		found = append(found, d.verify.cache.find(token, d.verify.cache.hash(token)))
	}
	c, u := d.verify.cache, &rule{all: []string{"read:orders", "openid"}}
	d.denied = filled(300_000)
	f := func(name string, part func(i int)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				part(i % len(raw))
				i++
			}
		})
	}
	b.Logf("token of %d bytes", len(raw[0]))
	f("field", func(i int) { c, _ := credentials(list[i]); sink += uint64(len(c.token)) })
	f("hash", func(i int) { sink += c.hash(raw[i]) })
	f("lookup", func(i int) { sink += c.find(raw[i], found[i].hash).hash })
	f("usable", func(i int) {
		if !found[i].usable(t0, found[i].epoch) {
			b.Fatal()
		}
	})
	f("deny", func(i int) {
		if d.denied.Denies(found[i].Principal) {
			b.Fatal()
		}
	})
	f("scopes", func(i int) {
		if u.permits(found[i].Principal) != nil {
			b.Fatal()
		}
	})
	f("alternative/sha256", func(i int) { s := sha256.Sum256(raw[i]); sink += uint64(s[0]) })
	f("alternative/maphash", func(i int) { sink += maphash.Bytes(c.seed, raw[i]) })
	f("alternative/compare", func(i int) {
		if !bytes.Equal(raw[i], found[i].raw) {
			b.Fatal()
		}
	})
	_ = sink
}

// BenchmarkVerify is a token that is not known: parsing and signature.
func BenchmarkVerify(b *testing.B) {
	for _, alg := range []string{"ES256", "RS256", "EdDSA"} {
		k := newSigning(b, "k1", alg)
		v := NewVerifier(VerifierConfig{Issuer: ownIssuer, Audience: ownAudience, Keys: newRing(k)})
		token := k.token(b, claimsOf(ownIssuer, nil), nil)
		p, err := parse(token)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(alg, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				t, err := v.terms(p, t0)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := v.prove(b.Context(), token, 1, p, t, t0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("parse", func(b *testing.B) {
		token := newSigning(b, "k1", "ES256").token(b, claimsOf(ownIssuer, nil), nil)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parse(token); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("forged and remembered", func(b *testing.B) {
		k, mine := newSigning(b, "k1", "ES256"), newSigning(b, "k1", "ES256")
		v := NewVerifier(VerifierConfig{Issuer: ownIssuer, Audience: ownAudience, Keys: newRing(k)})
		token := mine.token(b, claimsOf(ownIssuer, nil), nil)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := verify(v, token, t0); err == nil {
				b.Fatal("accepted")
			}
		}
	})
}
