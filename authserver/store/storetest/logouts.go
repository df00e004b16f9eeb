package storetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// visited is a session in which each of the clients got a code.
func visited(t *testing.T, s store.Store, clients ...string) store.Session {
	t.Helper()
	n := session()
	must(t, s.AddSession(t.Context(), n))
	for _, id := range clients {
		c := code()
		c.Session, c.Subject, c.ClientID = n.ID, n.Subject, id
		must(t, s.AddCode(t.Context(), c))
	}
	return n
}

var logouts = []promise{
	{"EndedSessionsAreToldToTheirClients", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		claim := func(s store.Store, at time.Time) (told []string) {
			t.Helper()
			for _, n := range got[[]store.LogoutNotice](t)(s.ClaimLogouts(ctx, at, time.Minute, 100)) {
				if !n.Created.Equal(now) || n.Subject == "" {
					t.Errorf("notice %+v", n)
				}
				told = append(told, fmt.Sprint(n.Session, " ", n.ClientID, " ", n.Attempts))
				must(t, s.DeferLogout(ctx, n, at.Add(time.Hour)))
			}
			slices.Sort(told)
			return told
		}
		for _, level := range []oauth.Level{oauth.LevelSession, oauth.LevelSubject, oauth.LevelIssuer} {
			s, other := visited(t, stores[0], "a", "b", "a"), visited(t, stores[0], "c")
			d := device()
			must(t, stores[0].AddDevice(ctx, d))
			d = allowed(d)
			d.Session = s.ID
			must(t, stores[0].DecideDevice(ctx, d))
			id := map[oauth.Level]string{oauth.LevelSession: s.ID, oauth.LevelSubject: s.Subject, oauth.LevelIssuer: "https://issuer.example"}[level]
			for range 2 { // the second time there is nothing left to end
				got[oauth.Revocation](t)(stores[1].Revoke(ctx, revocation(level, id), now))
			}
			want := []string{s.ID + " a 1", s.ID + " b 1", s.ID + " " + d.ClientID + " 1"}
			if level == oauth.LevelIssuer {
				want = append(want, other.ID+" c 1")
			} else {
				// It ends later, and of itself: a sweep tells nobody.
				must(t, stores[0].Sweep(ctx, other.Expires.Add(2*time.Hour)))
			}
			slices.Sort(want)
			wantEqual(t, string(level), claim(stores[0], now), want)
			wantEqual(t, "claimed", len(claim(stores[1], now)), 0)
			for _, n := range got[[]store.LogoutNotice](t)(stores[1].ClaimLogouts(ctx, now.Add(time.Hour), time.Minute, 100)) {
				wantEqual(t, "attempts", n.Attempts, 2)
				must(t, stores[0].FinishLogout(ctx, n))
				must(t, stores[0].FinishLogout(ctx, n))
			}
			wantEqual(t, "finished", len(claim(stores[1], now.Add(100*time.Hour))), 0)
		}
	}},
	{"NoticeIsClaimedByOneReplicaUntilItsLeaseIsOver", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		var clients []string
		for i := range 40 {
			clients = append(clients, fmt.Sprint("client-", i))
		}
		s := visited(t, stores[0], clients...)
		got[oauth.Revocation](t)(stores[0].Revoke(ctx, revocation(oauth.LevelSession, s.ID), now))
		var mu sync.Mutex
		claimed := map[string]int{}
		take := func(at time.Time) {
			race(stores, 20, func(_ int, s store.Store) {
				for range 10 {
					list, err := s.ClaimLogouts(ctx, at, time.Minute, 3)
					if err != nil {
						t.Error(err)
						return
					}
					if len(list) > 3 {
						t.Errorf("%d notices, want at most 3", len(list))
					}
					mu.Lock()
					for _, n := range list {
						claimed[n.ClientID]++
					}
					mu.Unlock()
				}
			})
		}
		take(now)
		take(now.Add(59 * time.Second))
		for _, id := range clients {
			if claimed[id] != 1 {
				t.Errorf("%s was handed out %d times", id, claimed[id])
			}
		}
		take(now.Add(time.Minute))
		for _, id := range clients {
			if claimed[id] != 2 {
				t.Errorf("%s was handed out %d times after the lease", id, claimed[id])
			}
		}
	}},
	{"LogoutRacesWithTakingPart", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		for range 30 {
			s := session()
			must(t, stores[0].AddSession(ctx, s))
			c := code()
			c.Session, c.Subject = s.ID, s.Subject
			added := false
			race(stores, 2, func(i int, db store.Store) {
				if i == 0 {
					added = db.AddCode(ctx, c) == nil
				} else if _, err := db.Revoke(ctx, revocation(oauth.LevelSession, s.ID), now); err != nil {
					t.Error(err)
				}
			})
			list := got[[]store.LogoutNotice](t)(stores[0].ClaimLogouts(ctx, now, time.Minute, 10))
			if told := len(list) == 1 && list[0].ClientID == c.ClientID; told != added {
				t.Fatalf("the code was added: %v, the client is told: %v", added, told)
			}
			for _, n := range list {
				must(t, stores[0].FinishLogout(ctx, n))
			}
		}
	}},
}
