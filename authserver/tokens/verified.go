package tokens

import (
	"sync"
	"time"
)

// verified remembers access tokens whose signature was checked, because that
// costs more than everything else an introspection does. What it holds are the
// token's own facts: whether it was revoked is asked each time, and the key
// that signed it must still be known.
type verified struct {
	mu         sync.RWMutex
	young, old map[string]verifiedToken // by the whole token
}

type verifiedToken struct {
	access Access
	kid    string
}

// maxVerified bounds each of the two generations. A token moves to the young
// one when it is asked for again.
const maxVerified = 4096

func (v *verified) find(token string) (verifiedToken, bool) {
	v.mu.RLock()
	t, ok := v.young[token]
	aging := false
	if !ok {
		t, ok = v.old[token]
		aging = ok
	}
	v.mu.RUnlock()
	if aging {
		v.keep(token, t)
	}
	return t, ok
}

func (v *verified) keep(token string, t verifiedToken) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.young == nil || len(v.young) >= maxVerified {
		v.old, v.young = v.young, make(map[string]verifiedToken)
	}
	v.young[token] = t
}

// known returns a token that was verified before and that now is within the
// life of.
func (i *Issuer) known(token string, now time.Time) (Access, bool) {
	t, ok := i.verified.find(token)
	if !ok || !now.Before(t.access.Expires.Add(leeway)) || now.Before(t.access.Issued.Add(-leeway)) {
		return Access{}, false
	}
	if _, _, keyUse, ok := i.keys.PublicKey(t.kid); !ok || keyUse != use {
		return Access{}, false
	}
	return t.access, true
}
