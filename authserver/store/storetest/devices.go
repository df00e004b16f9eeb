package storetest

import (
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// device returns a request that waits for its answer at now.
func device() store.Device {
	return store.Device{
		Hash: digest(name("device")), UserHash: digest(name("user")), ClientID: name("client-"), Scopes: []string{"openid"},
		Resources: []string{"https://api.example"}, Expires: now.Add(10 * time.Minute), Interval: 5 * time.Second,
	}
}

// allowed is the answer yes to d.
func allowed(d store.Device) store.Device {
	d.Decided, d.Subject, d.Session, d.Grant = now, name("usr_"), name("sid-"), name("grant-")
	d.ACR, d.AuthTime = "pwd", now.Add(-time.Minute)
	return d
}

var devices = []promise{
	{"DeviceIsAnsweredOnce", func(t *testing.T, stores []store.Store) {
		ctx, d := t.Context(), device()
		must(t, stores[0].AddDevice(ctx, d))
		again := device()
		again.UserHash = d.UserHash
		wantError(t, "the same user code", stores[1].AddDevice(ctx, again), store.ErrExists)
		wantEqual(t, "waiting", got[store.Device](t)(stores[1].DeviceByUserCode(ctx, d.UserHash, now)), d)
		_, err := stores[1].DeviceByUserCode(ctx, d.UserHash, d.Expires)
		wantError(t, "after its end", err, store.ErrNotFound)
		var outcomes counted
		race(stores, 50, func(i int, s store.Store) {
			answer := allowed(d)
			answer.Denied = i%2 == 0
			outcomes.addError(s.DecideDevice(ctx, answer))
		})
		wantEqual(t, "answers", outcomes.n, map[string]int{"ok": 1, store.ErrNotFound.Error(): 49})
		_, err = stores[1].DeviceByUserCode(ctx, d.UserHash, now)
		wantError(t, "answered", err, store.ErrNotFound)
		wantError(t, "unknown", stores[0].DecideDevice(ctx, allowed(device())), store.ErrNotFound)
	}},
	{"DeviceCodeIsConsumedOnce", func(t *testing.T, stores []store.Store) {
		ctx, d := t.Context(), device()
		must(t, stores[0].AddDevice(ctx, d))
		wantError(t, "unanswered", stores[0].ConsumeDevice(ctx, d.Hash, now, nil), store.ErrNotFound)
		yes := allowed(d)
		must(t, stores[1].DecideDevice(ctx, yes))
		wantError(t, "expired", stores[0].ConsumeDevice(ctx, d.Hash, d.Expires, nil), store.ErrExpired)
		var outcomes counted
		race(stores, 50, func(_ int, s store.Store) {
			f := family()
			f.Grant = yes.Grant
			outcomes.addError(s.ConsumeDevice(ctx, d.Hash, now, &f))
		})
		wantEqual(t, "outcomes", outcomes.n, map[string]int{"ok": 1, store.ErrUsed.Error(): 49})
		got[store.Family](t)(stores[1].Family(ctx, yes.Grant))
		denied := device()
		must(t, stores[0].AddDevice(ctx, denied))
		must(t, stores[0].DecideDevice(ctx, store.Device{UserHash: denied.UserHash, Decided: now, Denied: true}))
		wantError(t, "denied", stores[1].ConsumeDevice(ctx, denied.Hash, now, nil), store.ErrNotFound)
		wantError(t, "unknown", stores[1].ConsumeDevice(ctx, digest("other"), now, nil), store.ErrNotFound)
	}},
	{"PollsAreCountedOverReplicas", func(t *testing.T, stores []store.Store) {
		ctx, d := t.Context(), device()
		must(t, stores[0].AddDevice(ctx, d))
		poll := func(s store.Store, at time.Duration, soon bool, interval time.Duration) {
			t.Helper()
			have, was, err := s.PollDevice(ctx, d.Hash, d.ClientID, now.Add(at))
			must(t, err)
			if was != soon || have.Interval != interval || !have.Polled.Equal(now.Add(at)) {
				t.Errorf("poll at %v: soon %v, interval %v", at, was, have.Interval)
			}
		}
		poll(stores[0], 0, false, 5*time.Second)
		poll(stores[1], 4600*time.Millisecond, false, 5*time.Second)
		poll(stores[0], 5*time.Second, true, 10*time.Second)
		poll(stores[1], 14*time.Second, true, 15*time.Second)
		poll(stores[1], 29*time.Second, false, 15*time.Second)
		_, _, err := stores[0].PollDevice(ctx, d.Hash, "another", now)
		wantError(t, "another client's", err, store.ErrNotFound)
		var first counted
		d = device()
		must(t, stores[0].AddDevice(ctx, d))
		race(stores, 20, func(_ int, s store.Store) {
			_, soon, err := s.PollDevice(ctx, d.Hash, d.ClientID, now)
			if err != nil || soon {
				first.add("soon")
				return
			}
			first.add("in time")
		})
		wantEqual(t, "polls at once", first.n, map[string]int{"in time": 1, "soon": 19})
	}},
	{"RevocationSpendsAllowedDevices", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		for _, level := range []oauth.Level{oauth.LevelSession, oauth.LevelSubject, oauth.LevelClient, oauth.LevelIssuer} {
			d := device()
			must(t, stores[0].AddDevice(ctx, d))
			d = allowed(d)
			must(t, stores[0].DecideDevice(ctx, d))
			id := map[oauth.Level]string{oauth.LevelSession: d.Session, oauth.LevelSubject: d.Subject,
				oauth.LevelClient: d.ClientID, oauth.LevelIssuer: "https://issuer.example"}[level]
			got[oauth.Revocation](t)(stores[1].Revoke(ctx, revocation(level, id), now))
			wantError(t, string(level), stores[0].ConsumeDevice(ctx, d.Hash, now, nil), store.ErrUsed)
		}
		s, d := session(), device()
		must(t, stores[0].AddSession(ctx, s))
		must(t, stores[0].AddDevice(ctx, d))
		got[oauth.Revocation](t)(stores[1].Revoke(ctx, revocation(oauth.LevelSession, s.ID), now))
		d = allowed(d)
		d.Session = s.ID
		wantError(t, "of an ended session", stores[0].DecideDevice(ctx, d), store.ErrExpired)
	}},
}
