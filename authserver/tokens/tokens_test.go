package tokens

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

// derived is a key ring that can only derive.
type derived struct{}

func (derived) Sign(_, typ string, claims any) (string, error) {
	return typ + "." + string(claims.([]byte)), nil
}
func (derived) PublicKey(string) (crypto.PublicKey, string, string, bool) { return nil, "", "", false }
func (derived) Derive(label string, n int) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", label, n))
	return sum[:]
}

func TestRefreshTokenSaysItsGrantAndGeneration(t *testing.T) {
	i := New(Config{Keys: derived{}, Issuer: "https://a", TTL: time.Minute, Now: time.Now})
	grant := NewGrant()
	for _, generation := range []int{1, 2, 255, 256, 1 << 20} {
		token, hash := i.Refresh(grant, generation)
		again, _ := i.Refresh(grant, generation)
		r, ok := ParseRefresh(token)
		if !ok || r.Grant != grant || r.Generation != generation || r.Hash() != hash || !i.Genuine(r) || again != token {
			t.Errorf("generation %d: %v %v", generation, r.Generation, ok)
		}
		if !strings.HasPrefix(token, "ghr_") || len(token) != 74 {
			t.Errorf("token of %d characters", len(token))
		}
	}
	one, _ := i.Refresh(grant, 1)
	two, _ := i.Refresh(grant, 2)
	mixed := two[:34] + one[34:]
	if r, ok := ParseRefresh(mixed); ok && i.Genuine(r) {
		t.Error("the secret of one generation fits another")
	}
}

func FuzzParseRefresh(f *testing.F) {
	i := New(Config{Keys: derived{}, Issuer: "https://a", TTL: time.Minute, Now: time.Now})
	token, _ := i.Refresh(NewGrant(), 1)
	f.Add(token)
	f.Add("ghr_")
	f.Add("ghr_" + strings.Repeat("A", 70))
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := ParseRefresh(s)
		if !ok {
			return
		}
		if r.Generation < 1 || len(r.Grant) != 22 {
			t.Fatalf("%q: %+v", s, r)
		}
		if i.Genuine(r) { // then there is no other spelling of it
			if made, _ := i.Refresh(r.Grant, r.Generation); made != s {
				t.Fatalf("%q is genuine but not what is made", s)
			}
		}
	})
}

func TestCodesAreRandomAndRecognised(t *testing.T) {
	a, hash := NewCode()
	b, _ := NewCode()
	if a == b || !strings.HasPrefix(a, "ghc_") {
		t.Error("codes are not random")
	}
	if got, ok := CodeHash(a); !ok || got != hash {
		t.Error("a code is not recognised")
	}
	for _, bad := range []string{"", "ghc_", a + "x", "ghr_" + a[4:]} {
		if _, ok := CodeHash(bad); ok {
			t.Errorf("%q is taken for a code", bad)
		}
	}
}

func TestMintWritesValidJSONWhateverTheNames(t *testing.T) {
	i := New(Config{Keys: derived{}, Issuer: `https://a/"\` + "\u2028é", TTL: time.Minute, Now: time.Now})
	a := Access{Subject: `s"\`, ClientID: "c\x01", Scope: "a b", Audience: []string{"x", `y"`}, Issued: time.Unix(100, 5e8), AuthTime: time.Unix(90, 0)}
	token, err := i.Mint(&a)
	if err != nil {
		t.Fatal(err)
	}
	payload, _ := strings.CutPrefix(token, "at+jwt.")
	var c map[string]any
	d := json.NewDecoder(bytes.NewReader([]byte(payload)))
	if err := d.Decode(&c); err != nil {
		t.Fatalf("%v: %s", err, payload)
	}
	if c["iss"] != i.issuer || c["sub"] != a.Subject || c["client_id"] != a.ClientID || c["exp"] != float64(160) || c["iat"] != float64(100) || c["sid"] != nil {
		t.Errorf("claims %v", c)
	}
	if !a.Expires.Equal(time.Unix(160, 0)) {
		t.Errorf("expires %v", a.Expires)
	}
}

func TestGateWaitsForTheNextSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		time.Sleep(300 * time.Millisecond)
		g := NewGate(time.Now)
		wait := func(client, subject string) time.Duration {
			t.Helper()
			begin := time.Now()
			at, err := g.Wait(ctx, "iss", client, subject)
			if err != nil || !at.Equal(time.Now()) {
				t.Fatal(at, err)
			}
			return time.Since(begin)
		}
		if wait("c", "s") != 0 {
			t.Error("waited for nothing")
		}
		second := time.Now().Truncate(time.Second)
		g.Note([]oauth.Revocation{
			{Level: oauth.LevelSubject, ID: "s", NotBefore: second},
			{Level: oauth.LevelClient, ID: "later", NotBefore: second.Add(2 * time.Second)},
			{Level: oauth.LevelGrant, ID: "g"},
			{Level: oauth.LevelSubject, ID: "far", NotBefore: second.Add(time.Hour)},
			{Level: oauth.LevelSubject, ID: "old", NotBefore: second.Add(-time.Second)},
		})
		if wait("c", "other") != 0 || wait("c", "far") != 0 || wait("c", "old") != 0 {
			t.Error("waited for another subject, or for a clock far ahead")
		}
		if d := wait("c", "s"); d != 700*time.Millisecond {
			t.Errorf("waited %v", d)
		}
		if d := wait("later", "x"); d != 2*time.Second {
			t.Errorf("waited %v", d)
		}
		g.Note(nil)
		if len(g.entries) != 0 || g.count.Load() != 0 {
			t.Error("old entries are kept")
		}
		g.Note([]oauth.Revocation{{Level: oauth.LevelIssuer, ID: "iss", NotBefore: time.Now()}})
		limited, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		if _, err := g.Wait(limited, "iss", "c", "s"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the context is not heeded: %v", err)
		}
	})
}
