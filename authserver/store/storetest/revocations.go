package storetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
)

var revocations = []promise{
	{"LogIsGaplessAndNeverShowsALaterEntryFirst", func(t *testing.T, stores []store.Store) {
		const writers, each = 20, 15
		ctx := t.Context()
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { followLog(t, stores[1], done, writers*each) })
		race(stores, writers, func(w int, s store.Store) {
			for i := range each {
				r := revocation(oauth.LevelToken, fmt.Sprintf("jti-%d-%d", w, i))
				if _, err := s.Revoke(ctx, r, now); err != nil {
					t.Error(err)
				}
			}
		})
		close(done)
		wg.Wait()
	}},
	{"RevocationReachesFamiliesAndSessions", func(t *testing.T, stores []store.Store) {
		for _, level := range []oauth.Level{oauth.LevelIssuer, oauth.LevelClient, oauth.LevelSubject, oauth.LevelSession, oauth.LevelGrant, oauth.LevelToken} {
			t.Run(string(level), func(t *testing.T) { revokeLevel(t, stores, level) })
		}
	}},
	{"RevokedComparesNotBefore", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		second := now.Truncate(time.Second)
		subject := revocation(oauth.LevelSubject, name("usr_"))
		subject.NotBefore = now
		entry := got[oauth.Revocation](t)(stores[0].Revoke(ctx, subject, now))
		wantEqual(t, "whole second", entry.NotBefore, second)
		token := revocation(oauth.LevelToken, name("jti-"))
		got[oauth.Revocation](t)(stores[0].Revoke(ctx, token, now))

		other := revocation(oauth.LevelClient, subject.ID) // the same id on another level
		for _, c := range []struct {
			name   string
			pairs  []oauth.Revocation
			issued time.Time
			want   bool
		}{
			{"none", nil, now, false},
			{"issued in the second", []oauth.Revocation{subject}, second.Add(999 * time.Millisecond), true},
			{"issued in the next second", []oauth.Revocation{subject}, second.Add(time.Second), false},
			{"another level", []oauth.Revocation{other}, second, false},
			{"a token at any time", []oauth.Revocation{other, token}, now.Add(time.Minute), true},
			{"any of several", []oauth.Revocation{other, subject, other}, second, true},
		} {
			wantEqual(t, c.name, got[bool](t)(stores[1].Revoked(ctx, c.pairs, c.issued)), c.want)
		}
	}},
	{"LogIsReadInPages", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		entries, head, err := stores[0].RevokedSince(ctx, 0, 10)
		must(t, err)
		if len(entries) != 0 || head != 0 {
			t.Errorf("empty log: %v, head %d", entries, head)
		}
		var want []oauth.Revocation
		for range 5 {
			r := revocation(oauth.LevelToken, name("jti-"))
			want = append(want, got[oauth.Revocation](t)(stores[0].Revoke(ctx, r, now)))
		}
		for _, c := range []struct{ after, limit, from, to int }{{0, 10, 0, 5}, {0, 2, 0, 2}, {2, 2, 2, 4}, {4, 10, 4, 5}, {5, 10, 5, 5}, {9, 10, 5, 5}} {
			entries, head, err := stores[1].RevokedSince(ctx, uint64(c.after), c.limit)
			must(t, err)
			wantEqual(t, "head", head, uint64(5))
			wantEqual(t, fmt.Sprintf("after %d, limit %d", c.after, c.limit), append([]oauth.Revocation{}, entries...), append([]oauth.Revocation{}, want[c.from:c.to]...))
		}
	}},
	{"NonsenseIsRefused", func(t *testing.T, stores []store.Store) {
		for _, r := range []oauth.Revocation{{}, revocation("planet", "x"), revocation(oauth.LevelToken, ""), {Level: oauth.LevelToken, ID: "x"}} {
			if _, err := stores[0].Revoke(t.Context(), r, now); err == nil {
				t.Errorf("%+v was logged", r)
			}
		}
	}},
}

// followLog reads the log as an edge does until it holds n entries; each must
// be the successor of the one before.
func followLog(t *testing.T, s store.Store, done <-chan struct{}, n int) {
	var applied uint64
	for last := false; ; {
		select {
		case <-done:
			last = true // read once more: everything is committed now
		default:
		}
		entries, head, err := s.RevokedSince(t.Context(), applied, 7)
		if err != nil {
			t.Error(err)
			return
		}
		for _, e := range entries {
			if e.Seq != applied+1 || e.Seq > head {
				t.Errorf("entry %d after %d, head %d", e.Seq, applied, head)
				return
			}
			applied = e.Seq
		}
		if last && len(entries) == 0 {
			if applied != uint64(n) || head != uint64(n) {
				t.Errorf("%d entries, head %d, want %d", applied, head, n)
			}
			return
		}
	}
}

// revokeLevel revokes on one level and compares which of some families and
// sessions die with what the level says.
func revokeLevel(t *testing.T, stores []store.Store, level oauth.Level) {
	ctx := t.Context()
	s := session()
	f := family()
	f.Session, f.Subject = s.ID, s.Subject
	later := family() // begins after the entry's second
	later.ClientID, later.Subject, later.Created = f.ClientID, f.Subject, now.Add(time.Second)
	stranger := family()
	must(t, stores[0].AddSession(ctx, s))
	for _, f := range []store.Family{f, later, stranger} {
		must(t, stores[0].AddFamily(ctx, f))
	}
	r := revocation(level, map[oauth.Level]string{oauth.LevelIssuer: "https://issuer.example", oauth.LevelClient: f.ClientID,
		oauth.LevelSubject: f.Subject, oauth.LevelSession: s.ID, oauth.LevelGrant: f.Grant, oauth.LevelToken: "jti"}[level])
	if level == oauth.LevelIssuer || level == oauth.LevelClient || level == oauth.LevelSubject {
		r.NotBefore = now
	}
	entry := got[oauth.Revocation](t)(stores[0].Revoke(ctx, r, now))
	if entry.Seq == 0 {
		t.Error("no number")
	}
	dead := func(f store.Family) bool {
		return !got[store.Family](t)(stores[1].Family(ctx, f.Grant)).Revoked.IsZero()
	}
	_, err := stores[1].SessionByCookie(ctx, s.Cookie, now)
	wantEqual(t, "session dead", err != nil, level == oauth.LevelIssuer || level == oauth.LevelSubject || level == oauth.LevelSession)
	wantEqual(t, "family dead", dead(f), level != oauth.LevelToken)
	wantEqual(t, "later family dead", dead(later), false)
	wantEqual(t, "stranger's family dead", dead(stranger), level == oauth.LevelIssuer)
}
