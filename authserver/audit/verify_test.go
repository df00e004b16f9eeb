package audit

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// chained returns n events after base, as a store keeps them.
func chained(base store.Link, n int) []store.AuditEvent {
	var list []store.AuditEvent
	for range n {
		base.Seq++
		e := store.AuditEvent{Seq: base.Seq, Time: time.UnixMicro(1e15 + base.Seq), Action: LoginFailed, Outcome: Failure, Actor: Unknown, IP: "192.0.2.1"}
		base.Hash = e.Chained(base.Hash)
		e.Hash = base.Hash
		list = append(list, e)
	}
	return list
}

func link(e store.AuditEvent) store.Link { return store.Link{Seq: e.Seq, Hash: e.Hash} }

func verify(base store.Link, events []store.AuditEvent, kept ...store.Link) error {
	v, err := NewVerifier(base, kept...)
	if err != nil {
		return err
	}
	for _, e := range events {
		if err := v.Next(e); err != nil {
			return err
		}
	}
	return v.End()
}

func TestVerifierFindsEveryChange(t *testing.T) {
	events := chained(store.Link{}, 9)
	f := func(name string, want error, change func(list []store.AuditEvent) []store.AuditEvent) {
		t.Helper()
		err := verify(store.Link{}, change(slices.Clone(events)), link(events[2]), link(events[8]))
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	f("as written", nil, func(l []store.AuditEvent) []store.AuditEvent { return l })
	f("a field changed", ErrBroken, func(l []store.AuditEvent) []store.AuditEvent { l[4].Actor = "user:x"; return l })
	f("a time changed", ErrBroken, func(l []store.AuditEvent) []store.AuditEvent { l[4].Time = l[4].Time.Add(time.Microsecond); return l })
	f("a byte moved between fields", ErrBroken, func(l []store.AuditEvent) []store.AuditEvent {
		l[4].Outcome, l[4].Actor = l[4].Outcome+"u", l[4].Actor[1:]
		return l
	})
	f("one removed", ErrBroken, func(l []store.AuditEvent) []store.AuditEvent { return slices.Delete(l, 4, 5) })
	f("two swapped", ErrBroken, func(l []store.AuditEvent) []store.AuditEvent { l[4], l[5] = l[5], l[4]; return l })
	f("the end removed", ErrBroken, func(l []store.AuditEvent) []store.AuditEvent { return l[:8] })
	f("the beginning removed", ErrBroken, func(l []store.AuditEvent) []store.AuditEvent { return l[1:] })
	f("all removed", ErrBroken, func(l []store.AuditEvent) []store.AuditEvent { return nil })
	f("rewritten with new hashes", ErrBroken, func(l []store.AuditEvent) []store.AuditEvent {
		for i := range l {
			previous := store.Digest{}
			if i > 0 {
				previous = l[i-1].Hash
			}
			l[i].IP = "203.0.113.9"
			l[i].Hash = l[i].Chained(previous)
		}
		return l
	})
}

func TestPrunedChainNeedsItsPruningEvent(t *testing.T) {
	events := chained(store.Link{}, 5)
	base := link(events[1])
	pruned := store.AuditEvent{Seq: 6, Time: time.UnixMicro(2e15), Action: Pruned, Reason: base.String()}
	pruned.Hash = pruned.Chained(events[4].Hash)
	rest := append(slices.Clone(events[2:]), pruned)
	if err := verify(base, rest, link(pruned), link(events[0])); err != nil {
		t.Errorf("pruned by the rules: %v", err)
	}
	if err := verify(base, events[2:]); !errors.Is(err, ErrBroken) {
		t.Errorf("events are gone without a word: %v", err)
	}
	if err := verify(base, rest, store.Link{Seq: base.Seq, Hash: store.Digest{1}}); !errors.Is(err, ErrBroken) {
		t.Errorf("another base than was kept: %v", err)
	}
}

func FuzzLinks(f *testing.F) {
	f.Add("12:" + "0000000000000000000000000000000000000000000000000000000000000000")
	f.Add("x:1")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := store.ParseLink(s)
		if err != nil {
			return
		}
		if again, err := store.ParseLink(l.String()); err != nil || again != l {
			t.Errorf("%q became %v, %v", s, again, err)
		}
	})
}
