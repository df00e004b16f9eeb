package auth

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
)

func TestCachedTokenExpiresWithLeeway(t *testing.T) {
	d := newDesk(t)
	token := d.key.token(t, claimsOf(ownIssuer, members{"exp": t0.Unix() + 5}), nil)
	f := func(after time.Duration, want string) {
		t.Helper()
		if _, err := verify(d.verify, token, t0.Add(after)); code(t, err) != want {
			t.Errorf("after %v: %v, want %q", after, err, want)
		}
	}
	f(0, "")
	f(34*time.Second, "")
	f(35*time.Second, plugins.TokenExpired)
	f(time.Hour, plugins.TokenExpired)
}

func TestVerificationBelievedForAMinute(t *testing.T) {
	d := newDesk(t)
	token := d.key.token(t, claimsOf(ownIssuer, nil), nil)
	f := func(after time.Duration, want bool) {
		t.Helper()
		if _, hit, err := d.verify.Verify(context.Background(), token, client, t0.Add(after)); hit != want || err != nil {
			t.Errorf("after %v: hit %v, %v", after, hit, err)
		}
	}
	f(0, false)
	f(59*time.Second, true)
	f(60*time.Second, false)
	f(61*time.Second, true)
}

func TestCacheComparesTheWholeToken(t *testing.T) {
	c := newCache(8)
	hash := c.hash([]byte("token"))
	c.add(&entry{hash: hash, raw: []byte("token"), expires: t0.Unix() + 60, verified: t0}, t0)
	if c.find([]byte("token"), hash) == nil {
		t.Error("not found")
	}
	if c.find([]byte("other"), hash) != nil {
		t.Error("another token of the same hash was found")
	}
}

func TestCacheStaysBoundedAndKeepsWhatIsUsed(t *testing.T) {
	c := newCache(64)
	make := func(i int) *entry {
		raw := []byte(fmt.Sprint("token", i))
		return &entry{hash: c.hash(raw), raw: raw, expires: t0.Unix() + 60, verified: t0}
	}
	hot := make(-1)
	c.add(hot, t0)
	for i := range 10_000 {
		c.add(make(i), t0)
		if c.find(hot.raw, hot.hash) != hot {
			t.Fatalf("the used entry was given up after %d others", i)
		}
	}
	n := 0
	for i := range c.sets {
		for w := range c.sets[i].slots {
			if c.sets[i].slots[w].Load() != nil {
				n++
			}
		}
	}
	if n != 64 {
		t.Errorf("%d entries, want 64", n)
	}
	// One token has one entry, however often it is added.
	again := make(-1)
	c.add(again, t0)
	if c.find(hot.raw, hot.hash) != again {
		t.Error("the newer entry of a token is not found")
	}
}

func TestParallelRequestsVerifyATokenOnce(t *testing.T) {
	d := newDesk(t)
	var wg sync.WaitGroup
	for i := range 50 {
		token := d.key.token(t, claimsOf(ownIssuer, members{"jti": fmt.Sprint(i)}), nil)
		for range 8 {
			wg.Go(func() {
				tok, err := verify(d.verify, token, t0)
				if err != nil || tok.Principal.TokenID != fmt.Sprint(i) {
					t.Errorf("token %d: %v", i, err)
				}
			})
		}
	}
	wg.Wait()
}

func TestWantedClaimsOfALaterConfigurationAreFound(t *testing.T) {
	d := newDesk(t)
	token := d.key.token(t, claimsOf(ownIssuer, members{"plan": "gold"}), nil)
	for _, want := range []string{"", "gold"} {
		tok, err := verify(d.verify, token, t0)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(tok.Principal.Claim("plan"), ","); got != want {
			t.Errorf("plan %q, want %q", got, want)
		}
		d.verify.WantClaims([]string{"plan"})
	}
}

func TestBadSignatureRememberedForSecondsOnly(t *testing.T) {
	good, other := newSigning(t, "k1", "ES256"), newSigning(t, "k1", "ES256")
	r := newRing(other)
	v := NewVerifier(VerifierConfig{Issuer: ownIssuer, Audience: ownAudience, Keys: r})
	token := good.token(t, claimsOf(ownIssuer, nil), nil)
	if _, err := verify(v, token, t0); code(t, err) != plugins.TokenInvalid {
		t.Fatal(err)
	}
	r.set(good)
	if _, err := verify(v, token, t0.Add(4*time.Second)); code(t, err) != plugins.TokenInvalid {
		t.Errorf("remembered: %v", err)
	}
	if _, err := verify(v, token, t0.Add(5*time.Second)); err != nil {
		t.Errorf("forgotten: %v", err)
	}
}

func TestFloodOfForgedTokensLimitedPerAddress(t *testing.T) {
	d := newDesk(t)
	mine := newSigning(t, "k1", "ES256")
	forged := func(i int) []byte {
		return mine.token(t, claimsOf(ownIssuer, members{"jti": fmt.Sprint("f", i)}), nil)
	}
	known := d.key.token(t, claimsOf(ownIssuer, nil), nil)
	if _, err := verify(d.verify, known, t0); err != nil {
		t.Fatal(err)
	}
	for i := range floodBurst {
		if _, err := verify(d.verify, forged(i), t0); code(t, err) != plugins.TokenInvalid {
			t.Fatalf("forged token %d: %v", i, err)
		}
	}
	_, err := verify(d.verify, forged(1000), t0)
	if code(t, err) != plugins.RateLimited || err.(*plugins.Error).Status != 429 || err.(*plugins.Error).Header[0] != [2]string{"Retry-After", "1"} {
		t.Errorf("flood: %v", err)
	}
	// Known tokens of the address are served; so is every other address.
	if _, err := verify(d.verify, known, t0); err != nil {
		t.Errorf("known token: %v", err)
	}
	fresh := d.key.token(t, claimsOf(ownIssuer, members{"jti": "fresh"}), nil)
	if _, _, err := d.verify.Verify(context.Background(), fresh, netip.MustParseAddr("192.0.2.99"), t0); err != nil {
		t.Errorf("other address: %v", err)
	}
	// The bucket fills again.
	if _, err := verify(d.verify, forged(1001), t0.Add(floodEvery)); code(t, err) != plugins.TokenInvalid {
		t.Errorf("later: %v", err)
	}
}

func TestFloodTableIsBoundedAndCountsNetworks(t *testing.T) {
	var f flood
	addr := netip.MustParseAddr
	for range floodBurst {
		f.fail(addr("2001:db8::1"), t0)
	}
	if f.wait(addr("2001:db8::2"), t0) == 0 {
		t.Error("a neighbour in the same /64 is counted apart")
	}
	if f.wait(addr("2001:db8:0:1::1"), t0) != 0 || f.wait(addr("::ffff:192.0.2.1"), t0) != 0 {
		t.Error("another network is limited")
	}
	for range floodBurst {
		f.fail(addr("192.0.2.1"), t0)
	}
	if f.wait(addr("::ffff:192.0.2.1"), t0) == 0 {
		t.Error("a mapped address is counted apart")
	}
	for range 10 * floodBurst {
		f.fail(addr("192.0.2.1"), t0)
	}
	if d := f.wait(addr("192.0.2.1"), t0); d > 10*time.Second {
		t.Errorf("an address is shut out for %v", d)
	}
	if f.wait(netip.Addr{}, t0) != 0 {
		t.Error("no address is limited")
	}
	a := netip.MustParseAddr("10.0.0.0")
	for range 100_000 {
		f.fail(a, t0)
		a = a.Next()
	}
}
