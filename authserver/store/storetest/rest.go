package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

var rest = []promise{
	{"OnceIsOnceOverReplicas", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		var outcomes counted
		race(stores, 60, func(i int, s store.Store) {
			fresh, err := s.Once(ctx, fmt.Sprint("jti-", i%3), now.Add(time.Minute))
			outcomes.add(fmt.Sprintf("fresh=%v err=%v", fresh, err))
		})
		wantEqual(t, "outcomes", outcomes.n, map[string]int{"fresh=true err=<nil>": 3, "fresh=false err=<nil>": 57})
	}},
	{"AuditIsNumberedInCommitOrder", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		must(t, stores[0].AppendAudit(ctx, nil))
		e := store.AuditEvent{Time: now, Action: "login.failed", Outcome: "failure", Actor: "user:x", Client: "c", Subject: "s",
			Grant: "g", Session: "sid", IP: "192.0.2.1", Reason: "password"}
		batch := make([]store.AuditEvent, 120) // more than one statement's worth
		for i := range batch {
			batch[i] = e
		}
		race(stores, 6, func(_ int, s store.Store) {
			if err := s.AppendAudit(ctx, batch); err != nil {
				t.Error(err)
			}
		})
		var after int64
		for {
			events := got[[]store.AuditEvent](t)(stores[1].AuditSince(ctx, after, 500))
			if len(events) == 0 {
				break
			}
			for _, have := range events {
				want := e
				want.Seq = after + 1
				if have != want {
					t.Fatalf("have %+v\nwant %+v", have, want)
				}
				after = have.Seq
			}
		}
		wantEqual(t, "events", after, int64(6*len(batch)))
	}},
	{"SweepDeletesOnlyWhatNobodyNeeds", func(t *testing.T, stores []store.Store) {
		ctx, s := t.Context(), stores[0]
		// The code of a family stays as long as the family, for its replays.
		kept, spent, f := code(), code(), family()
		must(t, s.AddCode(ctx, kept))
		must(t, s.AddCode(ctx, spent))
		must(t, s.ConsumeCode(ctx, kept.Hash, now, &f))
		must(t, s.ConsumeCode(ctx, spent.Hash, now, nil))
		browser := session()
		must(t, s.AddSession(ctx, browser))
		must(t, s.RevokeGrant(ctx, "g", now, now.Add(time.Minute)))
		got[bool](t)(s.Once(ctx, "k", now.Add(time.Minute)))

		present := func() string {
			_, code1 := s.Code(ctx, kept.Hash)
			_, code2 := s.Code(ctx, spent.Hash)
			_, family := s.Family(ctx, f.Grant)
			entries, head, err := s.RevokedSince(ctx, 0, 10)
			must(t, err)
			wantEqual(t, "head", head, uint64(1))
			return fmt.Sprint("code of family ", code1 == nil, ", code ", code2 == nil, ", family ", family == nil, ", log ", len(entries))
		}
		must(t, s.Sweep(ctx, now.Add(time.Minute)))
		wantEqual(t, "soon", present(), "code of family true, code true, family true, log 1")
		wantEqual(t, "once, soon", got[bool](t)(s.Once(ctx, "k", now.Add(time.Minute))), false)
		must(t, s.Sweep(ctx, now.Add(3*time.Hour)))
		wantEqual(t, "hours later", present(), "code of family true, code false, family true, log 0")
		wantEqual(t, "once, later", got[bool](t)(s.Once(ctx, "k", now.Add(time.Minute))), true)
		must(t, s.Sweep(ctx, f.Expires.Add(time.Hour)))
		wantEqual(t, "an hour after the end", present(), "code of family true, code false, family true, log 0")
		must(t, s.Sweep(ctx, f.Expires.Add(2*time.Hour)))
		wantEqual(t, "at the end", present(), "code of family false, code false, family false, log 0")
		again := session()
		again.Cookie = browser.Cookie
		must(t, s.AddSession(ctx, again)) // the old session is gone
	}},
	{"PingAnswers", func(t *testing.T, stores []store.Store) {
		must(t, stores[0].Ping(t.Context()))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if stores[1].Ping(ctx) == nil {
			t.Error("a cancelled call succeeded")
		}
		must(t, stores[1].Ping(t.Context()))
	}},
}
