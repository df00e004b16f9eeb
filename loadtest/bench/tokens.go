package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"time"
)

const (
	apiHost  = "api.bench.test"
	audience = "https://" + apiHost
	scope    = "read:bench"
	keyID    = "bench-1"
)

// issuer signs the clients' access tokens, ES256 in the form of RFC 9068.
type issuer struct {
	url    string
	key    *ecdsa.PrivateKey
	header string // encoded
	serial int
}

func newIssuer() (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the issuer's key: %w", err)
	}
	header, err := json.Marshal(map[string]string{"typ": "at+jwt", "alg": "ES256", "kid": keyID})
	if err != nil {
		return nil, err
	}
	return &issuer{key: key, header: base64.RawURLEncoding.EncodeToString(header)}, nil
}

// claims of an access token, in the order in which they are written.
type claims struct {
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	ClientID string `json:"client_id"`
	Audience string `json:"aud"`
	Scope    string `json:"scope"`
	Issued   int64  `json:"iat"`
	Expiry   int64  `json:"exp"`
	ID       string `json:"jti"`
}

// claims returns those of a good token for a client that no token had before.
func (i *issuer) claims(client int, now time.Time) claims {
	i.serial++
	return claims{
		Issuer:   i.url,
		Subject:  fmt.Sprintf("subject-%04d", client),
		ClientID: fmt.Sprintf("client-%04d", client),
		Audience: audience,
		Scope:    scope + " read:other",
		Issued:   now.Unix(),
		Expiry:   now.Add(6 * time.Hour).Unix(),
		ID:       fmt.Sprintf("token-%08d", i.serial),
	}
}

func (i *issuer) sign(c claims) (string, error) {
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	text := i.header + "." + base64.RawURLEncoding.EncodeToString(payload)
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, digest[:])
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// ServeHTTP answers with the JWK set.
func (i *issuer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	keys, err := i.jwks()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	// A client that left before the answer is not the issuer's concern.
	_ = json.NewEncoder(w).Encode(keys)
}

func (i *issuer) jwks() (map[string]any, error) {
	point, err := i.key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return nil, fmt.Errorf("encoding the issuer's key: %w", err)
	}
	return map[string]any{"keys": []map[string]string{{
		"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": keyID,
		"x": base64.RawURLEncoding.EncodeToString(point[1:33]),
		"y": base64.RawURLEncoding.EncodeToString(point[33:]),
	}}}, nil
}

// publicPEM is the form in which haproxy wants the key.
func (i *issuer) publicPEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(&i.key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("encoding the issuer's key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// request renders the bytes that a client sends; every proxy gets the same but
// for the path's first segment, which has the same length everywhere.
func request(path, token string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: " + apiHost + "\r\n" +
		"User-Agent: gatehouse-bench/1\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n" +
		"Authorization: Bearer " + token + "\r\n\r\n")
}

// supply hands out the requests of one run: the standing ones in turn, and at
// every freshEvery-th place one whose token was never seen before.
type supply struct {
	standing, fresh [][]byte
	freshEvery      int
	turn            int
}

// next returns nil when the fresh ones are used up.
func (s *supply) next() []byte {
	s.turn++
	if s.freshEvery > 0 && s.turn%s.freshEvery == 0 {
		if len(s.fresh) == 0 {
			return nil
		}
		r := s.fresh[0]
		s.fresh = s.fresh[1:]
		return r
	}
	return s.standing[s.turn%len(s.standing)]
}

// requests signs a token for each of n requests, for the clients in turn.
func (i *issuer) requests(path string, n, clients int, now time.Time) ([][]byte, error) {
	all := make([][]byte, n)
	for k := range all {
		token, err := i.sign(i.claims(k%clients, now))
		if err != nil {
			return nil, err
		}
		all[k] = request(path, token)
	}
	return all, nil
}
