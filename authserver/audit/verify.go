package audit

import (
	"errors"
	"fmt"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// ErrBroken says that the log is not what was written: an event was changed,
// removed, added or moved.
var ErrBroken = errors.New("the audit log was tampered with")

// Verifier proves that the events it is given, in order, are an unbroken part
// of one chain. It holds no events, so a log of any length can pass.
type Verifier struct {
	base, last store.Link
	want       map[int64]store.Digest // links that must be passed
	passed     map[int64]bool
	pruned     map[store.Link]bool // links that events of pruning name
	events     int64
}

// NewVerifier begins at the link that the first chained event follows. kept
// are links that an operator or the store says were heads: the log must hold
// them, or a pruning event that covers them.
func NewVerifier(base store.Link, kept ...store.Link) (*Verifier, error) {
	v := &Verifier{base: base, last: base, want: map[int64]store.Digest{}, passed: map[int64]bool{}, pruned: map[store.Link]bool{}}
	for _, k := range kept {
		if have, twice := v.want[k.Seq]; twice && have != k.Hash {
			return nil, fmt.Errorf("%w: two heads with the number %d have different hashes", ErrBroken, k.Seq)
		}
		v.want[k.Seq] = k.Hash
	}
	if have, kept := v.want[base.Seq]; kept && have != base.Hash {
		return nil, fmt.Errorf("%w: event %d was another one when its hash was kept", ErrBroken, base.Seq)
	}
	return v, nil
}

// Next takes the next event. Events up to the base are from before the chain
// and are passed over.
func (v *Verifier) Next(e store.AuditEvent) error {
	switch {
	case e.Seq <= v.base.Seq:
		return nil
	case e.Seq != v.last.Seq+1:
		return fmt.Errorf("%w: event %d follows event %d", ErrBroken, e.Seq, v.last.Seq)
	}
	hash := e.Chained(v.last.Hash)
	if hash != e.Hash {
		return fmt.Errorf("%w: event %d does not have the hash that it and the event before it give", ErrBroken, e.Seq)
	}
	if want, kept := v.want[e.Seq]; kept {
		if want != hash {
			return fmt.Errorf("%w: event %d is another one than when its hash was kept", ErrBroken, e.Seq)
		}
		v.passed[e.Seq] = true
	}
	if e.Action == Pruned {
		if link, err := store.ParseLink(e.Reason); err == nil {
			v.pruned[link] = true
		}
	}
	v.last = store.Link{Seq: e.Seq, Hash: hash}
	v.events++
	return nil
}

// End says what is missing when the log is over.
func (v *Verifier) End() error {
	if v.base.Hash != (store.Digest{}) && !v.pruned[v.base] {
		return fmt.Errorf("%w: events up to %d are gone, and no event says that they were pruned", ErrBroken, v.base.Seq)
	}
	for seq := range v.want {
		if !v.passed[seq] && seq > v.base.Seq {
			return fmt.Errorf("%w: it ends with event %d, but event %d was there", ErrBroken, v.last.Seq, seq)
		}
	}
	return nil
}

// Head is the last link that was proven, and Events how many events were.
func (v *Verifier) Head() store.Link { return v.last }

// Events is how many chained events were proven.
func (v *Verifier) Events() int64 { return v.events }
