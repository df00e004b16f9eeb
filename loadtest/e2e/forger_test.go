package e2e

import (
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store/sqlstore"
)

// forger makes tokens of an issuer with the issuer's own private key, so that
// what is wrong with them is only what a test makes wrong.
type forger struct {
	issuer, kid string
	key         *ecdsa.PrivateKey
	// client is whom the tokens are for, as the issuer writes it.
	client   map[string]any
	audience string
}

var b64 = base64.RawURLEncoding

// header and claims of a token that is as it should be.
func (f *forger) header() map[string]any {
	return map[string]any{"alg": "ES256", "typ": "at+jwt", "kid": f.kid}
}

func (f *forger) claims() map[string]any {
	now := time.Now().Unix()
	c := map[string]any{"iss": f.issuer, "aud": f.audience, "iat": now, "exp": now + 600, "jti": rand.Text(), "scope": "read:orders"}
	for name, value := range f.client {
		c[name] = value
	}
	return c
}

// changed is m with other members; nil takes one away.
func changed(m map[string]any, pairs ...any) map[string]any {
	c := map[string]any{}
	for name, value := range m {
		c[name] = value
	}
	for i := 0; i < len(pairs); i += 2 {
		if c[pairs[i].(string)] = pairs[i+1]; pairs[i+1] == nil {
			delete(c, pairs[i].(string))
		}
	}
	return c
}

func encode(t testing.TB, v any) string {
	t.Helper()
	raw, ready := v.([]byte)
	if !ready {
		var err error
		if raw, err = json.Marshal(v); err != nil {
			t.Fatal(err)
		}
	}
	return b64.EncodeToString(raw)
}

// sign makes a token with ES256; header and claims are encoded as JSON, or
// taken as they stand where they are bytes.
func sign(t testing.TB, key *ecdsa.PrivateKey, header, claims any) string {
	t.Helper()
	text := encode(t, header) + "." + encode(t, claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + b64.EncodeToString(signature)
}

// hs256 makes a token whose MAC has secret as its key.
func hs256(t testing.TB, secret []byte, header, claims any) string {
	t.Helper()
	text := encode(t, header) + "." + encode(t, claims)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(text))
	return text + "." + b64.EncodeToString(mac.Sum(nil))
}

// ownForger holds the active key of the cluster's authorization server, as one
// could who has the database and the key encryption key.
func (c *cluster) ownForger(t *testing.T) *forger {
	t.Helper()
	ctx := context.Background()
	st, err := sqlstore.Open(ctx, c.store, sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	rows, err := st.Keys(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if row.Use != "token" || row.State != "active" {
			continue
		}
		der := openEnvelope(t, c.kek, "signing key "+row.ID+" for "+row.Use+" by "+row.Algorithm, row.Sealed)
		private, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			t.Fatal(err)
		}
		return &forger{issuer: c.issuer, kid: row.ID, key: private.(*ecdsa.PrivateKey), audience: c.issuer,
			client: map[string]any{"sub": "client:reader", "client_id": "reader"}}
	}
	t.Fatal("no active key")
	return nil
}

// openEnvelope opens what authserver/keys seals: a version, the id of the key
// encryption key, a nonce and AES-256-GCM's ciphertext.
func openEnvelope(t *testing.T, kek []byte, label string, envelope []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(kek)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	const head = 1 + 8
	nonce, sealed := envelope[head:head+12], envelope[head+12:]
	plain, err := aead.Open(nil, nonce, sealed, append(append([]byte{}, envelope[:head]...), label...))
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func (c *cluster) externalForger() *forger {
	e := c.external
	return &forger{issuer: e.url, kid: e.kid, key: e.key, audience: c.issuer, client: map[string]any{"sub": "partner-7"}}
}

func (f *forger) public() crypto.PublicKey { return f.key.Public() }
