package keys

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// view is what a ring knows at one time. It is immutable.
type view struct {
	signers    map[string]pair // by use
	verifiers  map[string]verifier
	jwks       []byte
	etag       string
	generation uint64
}

// pair is the keys of one use that sign: next from its time on, active before.
type pair struct {
	active, next *signer
}

type verifier struct {
	public         crypto.PublicKey
	algorithm, use string
}

// newView shows rows; what the last view has of them is not opened again.
func (r *Ring) newView(rows []store.Key, now time.Time) (*view, error) {
	last := r.view.Load()
	v := &view{signers: map[string]pair{}, verifiers: map[string]verifier{}}
	var set struct {
		Keys []jwk `json:"keys"`
	}
	for _, row := range rows {
		if row.State == stateRetired && !row.Gone.After(now) {
			continue
		}
		if _, twice := v.verifiers[row.ID]; twice {
			return nil, fmt.Errorf("two keys %q", row.ID)
		}
		public, err := parseJWK(row.Public, row.Algorithm)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", row.ID, err)
		}
		document, err := newJWK(public, row.Algorithm)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", row.ID, err)
		}
		if document.ID != row.ID {
			return nil, fmt.Errorf("key %q: its id is not its thumbprint", row.ID)
		}
		set.Keys = append(set.Keys, document)
		v.verifiers[row.ID] = verifier{public, row.Algorithm, row.Use}
		if err := v.addSigner(r.keks, last, row); err != nil {
			return nil, fmt.Errorf("key %q: %w", row.ID, err)
		}
	}
	for _, use := range uses {
		if v.signers[use].active == nil {
			return nil, fmt.Errorf("no active key for use %q", use)
		}
	}
	var err error
	if v.jwks, err = json.Marshal(set); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(v.jwks)
	v.etag = `"` + b64.EncodeToString(sum[:16]) + `"`
	switch {
	case last == nil:
		v.generation = 1
	case maps.EqualFunc(last.verifiers, v.verifiers, func(a, b verifier) bool { return a.use == b.use }):
		v.generation = last.generation // a kid is the thumbprint of its key
	default:
		v.generation = last.generation + 1
	}
	return v, nil
}

func (v *view) addSigner(keks keyring, last *view, row store.Key) error {
	if row.State == stateRetired {
		return nil
	}
	p := v.signers[row.Use]
	s := last.signer(row.ID)
	if s == nil || !s.activates.Equal(row.Activates) {
		var err error
		if s, err = openSigner(keks, row); err != nil {
			return err
		}
	}
	switch {
	case row.State == stateActive && p.active == nil:
		p.active = s
	case row.State == stateNext && p.next == nil:
		p.next = s
	default:
		return fmt.Errorf("a second key in state %.20q, or a state unknown here", row.State)
	}
	v.signers[row.Use] = p
	return nil
}

func (v *view) signer(kid string) *signer {
	if v == nil {
		return nil
	}
	for _, p := range v.signers {
		for _, s := range []*signer{p.active, p.next} {
			if s != nil && s.kid == kid {
				return s
			}
		}
	}
	return nil
}

// label is what a private key's envelope is bound to.
func label(row store.Key) string {
	return "signing key " + row.ID + " for " + row.Use + " by " + row.Algorithm
}

// newKey makes a key without a state.
func (r *Ring) newKey(use string) (store.Key, error) {
	private, err := generate(r.policy.algorithm)
	if err != nil {
		return store.Key{}, err
	}
	document, err := newJWK(private.Public(), r.policy.algorithm)
	if err != nil {
		return store.Key{}, err
	}
	k := store.Key{ID: document.ID, Use: use, Algorithm: r.policy.algorithm}
	if k.Public, err = json.Marshal(document); err != nil {
		return store.Key{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return store.Key{}, errors.New("the private key cannot be encoded")
	}
	k.Sealed = r.keks.seal(label(k), der)
	return k, nil
}

func openSigner(keks keyring, row store.Key) (*signer, error) {
	der, _, err := keks.open(label(row), row.Sealed)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	private, ok := parsed.(crypto.Signer)
	if err != nil || !ok {
		return nil, errors.New("the envelope holds no private key") // the parser's error might quote it
	}
	document, err := newJWK(private.Public(), row.Algorithm)
	if err != nil || document.ID != row.ID {
		return nil, errors.New("the envelope holds another private key")
	}
	return newSigner(row, private)
}

// reseal returns the rows with private keys sealed under the newest key
// encryption key, and whether any was not.
func (r *Ring) reseal(rows []store.Key) (resealed []store.Key, changed bool, err error) {
	resealed = make([]store.Key, len(rows))
	copy(resealed, rows)
	newest := r.keks[0].k.id
	for i, k := range rows {
		if len(k.Sealed) > len(newest) && bytes.Equal(k.Sealed[1:1+len(newest)], newest[:]) {
			continue
		}
		der, again, err := r.keks.open(label(k), k.Sealed)
		if err != nil {
			return nil, false, err
		}
		if again {
			resealed[i].Sealed = r.keks.seal(label(k), der)
			changed = true
		}
		clear(der)
	}
	return resealed, changed, nil
}
