package keys

import (
	"slices"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// What a key signs. A key of one use is refused for the other.
const (
	UseToken    = "token"
	UseIdentity = "identity"
)

var uses = []string{UseToken, UseIdentity}

// States of a key, in order. A next key is published and signs nothing before
// it activates; a retired one verifies until it is gone.
const (
	stateNext    = "next"
	stateActive  = "active"
	stateRetired = "retired"
)

// policy is when keys change their state.
type policy struct {
	algorithm string
	rotation  time.Duration // life of an active key
	publish   time.Duration // from next to active
	overlap   time.Duration // from retired to gone
}

// plan returns what the keys should be at now, and whether this differs from
// have. At any time each use has one active key; force asks for a successor
// although the active key is young. newKey makes a key without a state; plan
// calls it only for keys that are part of the answer.
func plan(have []store.Key, now time.Time, p policy, force bool, newKey func(use string) (store.Key, error)) (want []store.Key, changed bool, err error) {
	for _, use := range uses {
		var next, active, retired []store.Key
		for _, k := range have {
			switch {
			case k.Use != use:
			case k.State == stateNext:
				next = append(next, k)
			case k.State == stateActive:
				active = append(active, k)
			case k.State == stateRetired && k.Gone.After(now):
				retired = append(retired, k)
			default:
				changed = true // gone
			}
		}
		slices.SortStableFunc(next, func(a, b store.Key) int { return a.Activates.Compare(b.Activates) })

		if len(next) > 0 && (len(active) == 0 || !next[0].Activates.After(now)) {
			k := next[0]
			k.State, k.Activates = stateActive, now
			next, active = next[1:], append(active, k)
			changed = true
		}
		if len(active) == 0 {
			k, err := newKey(use)
			if err != nil {
				return nil, false, err
			}
			k.State, k.Created, k.Activates = stateActive, now, now
			active = append(active, k)
			changed = true
		}
		current := active[len(active)-1]
		for _, k := range active[:len(active)-1] {
			k.State, k.Retired, k.Gone = stateRetired, now, now.Add(p.overlap)
			retired = append(retired, k)
			changed = true
		}
		due := force || current.Algorithm != p.algorithm || !now.Before(current.Activates.Add(p.rotation-p.publish))
		if due && len(next) == 0 {
			k, err := newKey(use)
			if err != nil {
				return nil, false, err
			}
			k.State, k.Created, k.Activates = stateNext, now, now.Add(p.publish)
			next = append(next, k)
			changed = true
		}
		want = append(want, retired...)
		want = append(want, current)
		want = append(want, next...)
	}
	return want, changed, nil
}
