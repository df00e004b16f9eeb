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
		var previous store.Digest
		for {
			events := got[[]store.AuditEvent](t)(stores[1].AuditSince(ctx, after, 500))
			if len(events) == 0 {
				break
			}
			for _, have := range events {
				want := e
				want.Seq = after + 1
				previous = want.Chained(previous)
				want.Hash = previous
				if have != want {
					t.Fatalf("have %+v\nwant %+v", have, want)
				}
				after = have.Seq
			}
		}
		wantEqual(t, "events", after, int64(6*len(batch)))
		base, head, err := stores[0].AuditChain(ctx)
		must(t, err)
		wantEqual(t, "base", base, store.Link{})
		wantEqual(t, "head", head, store.Link{Seq: after, Hash: previous})
	}},
	{"AuditIsSelected", func(t *testing.T, stores []store.Store) {
		ctx, s := t.Context(), stores[0]
		for i := range 6 {
			must(t, s.AppendAudit(ctx, []store.AuditEvent{{Time: now.Add(time.Duration(i) * time.Minute), Action: fmt.Sprint("a", i%2),
				Client: fmt.Sprint("c", i%3), Subject: "s", Grant: fmt.Sprint("g", i)}}))
		}
		f := func(q store.AuditQuery, want ...int64) {
			t.Helper()
			if q.Limit == 0 {
				q.Limit = 10
			}
			var have []int64
			for _, e := range got[[]store.AuditEvent](t)(stores[1].Audit(ctx, q)) {
				have = append(have, e.Seq)
			}
			wantEqual(t, fmt.Sprintf("%+v", q), have, want)
		}
		f(store.AuditQuery{After: 4}, 5, 6)
		f(store.AuditQuery{Newest: true, Limit: 2}, 6, 5)
		f(store.AuditQuery{Action: "a1", Subject: "s"}, 2, 4, 6)
		f(store.AuditQuery{Client: "c0"}, 1, 4)
		f(store.AuditQuery{Grant: "g2"}, 3)
		f(store.AuditQuery{From: now.Add(time.Minute), Until: now.Add(3 * time.Minute)}, 2, 3)
		f(store.AuditQuery{Subject: "nobody"})
	}},
	{"AuditIsPrunedFromItsBeginningOnly", func(t *testing.T, stores []store.Store) {
		ctx, s := t.Context(), stores[0]
		for i := range 5 {
			must(t, s.AppendAudit(ctx, []store.AuditEvent{{Time: now.Add(time.Duration(i%4) * time.Minute), Action: "a"}}))
		}
		second := got[[]store.AuditEvent](t)(s.AuditSince(ctx, 1, 1))[0]
		event := store.AuditEvent{Time: now, Action: "audit.pruned"}
		wantEqual(t, "pruned", got[int](t)(stores[1].PruneAudit(ctx, now.Add(90*time.Second), 100, event)), 2) // the fifth is old too, but not before the third
		wantEqual(t, "again", got[int](t)(s.PruneAudit(ctx, now.Add(90*time.Second), 100, event)), 0)
		rest := got[[]store.AuditEvent](t)(s.AuditSince(ctx, 0, 100))
		wantEqual(t, "left", len(rest), 4)
		base, head, err := s.AuditChain(ctx)
		must(t, err)
		wantEqual(t, "base", base, store.Link{Seq: 2, Hash: second.Hash})
		wantEqual(t, "its event", rest[3].Reason, base.String())
		wantEqual(t, "head", head, store.Link{Seq: 6, Hash: rest[3].Hash})
		wantEqual(t, "the chain goes on", rest[0].Hash, rest[0].Chained(base.Hash))
		wantEqual(t, "limited", got[int](t)(s.PruneAudit(ctx, now.Add(time.Hour), 1, event)), 1)
	}},
	{"ChangeAndItsEventAreOne", func(t *testing.T, stores []store.Store) {
		ctx, s := t.Context(), stores[0]
		event := func(action string) store.AuditEvent {
			return store.AuditEvent{Time: now, Action: action, Outcome: "success", Actor: "static-token"}
		}
		n := 0
		wrote := func(action string, err error) {
			t.Helper()
			must(t, err)
			n++
			all := got[[]store.AuditEvent](t)(s.AuditSince(ctx, 0, 100))
			if len(all) != n || all[n-1].Action != action {
				t.Fatalf("after %s the log is %+v", action, all)
			}
		}
		c, u, f, b := store.Client{ID: "c"}, store.User{Subject: "usr_1", Name: "n"}, family(), session()
		wrote("client.added", s.AddClient(ctx, c, event("client.added")))
		wrote("client.updated", s.UpdateClient(ctx, c, event("client.updated")))
		wrote("user.added", s.AddUser(ctx, u, event("user.added")))
		wrote("user.updated", s.UpdateUser(ctx, u, event("user.updated")))
		wrote("login", s.AddSession(ctx, b, event("login")))
		wrote("login again", s.RenewSession(ctx, b, now, event("login again")))
		d := device()
		must(t, s.AddDevice(ctx, d))
		wrote("device", s.DecideDevice(ctx, allowed(d), event("device")))
		wrote("consent", s.PutConsent(ctx, store.Consent{Subject: "usr_1", ClientID: "c"}, event("consent")))
		wrote("no consent", s.RemoveConsent(ctx, "usr_1", "c", event("no consent")))
		wrote("grant", s.RevokeGrant(ctx, "g", now, now.Add(time.Hour), event("grant")))
		_, err := s.Revoke(ctx, revocation("session", b.ID), now, event("session"))
		wrote("session", err)
		_, err = s.RotateKeys(ctx, succeed, event("keys"))
		wrote("keys", err)
		wrote("client.removed", s.RemoveClient(ctx, "c", event("client.removed")))
		wrote("user.removed", s.RemoveUser(ctx, "usr_1", event("user.removed")))
		must(t, s.AddFamily(ctx, f))
		r := rotation(f, 1)
		r.OnReuse = []store.AuditEvent{event("reuse")}
		_, _, err = s.RotateRefresh(ctx, r)
		must(t, err)
		r.Now = now.Add(time.Hour)
		_, _, err = s.RotateRefresh(ctx, r)
		wantError(t, "reuse", err, store.ErrReuse)
		wrote("reuse", nil)
		// What did not happen is not in the log.
		wantError(t, "update", s.UpdateClient(ctx, c, event("x")), store.ErrNotFound)
		wantError(t, "remove", s.RemoveUser(ctx, "usr_1", event("x")), store.ErrNotFound)
		wantError(t, "answer again", s.DecideDevice(ctx, allowed(d), event("x")), store.ErrNotFound)
		_, err = s.RotateKeys(ctx, func([]store.Key) ([]store.Key, error) { return nil, nil }, event("x"))
		must(t, err)
		wantEqual(t, "events", len(got[[]store.AuditEvent](t)(s.AuditSince(ctx, 0, 100))), n)
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
