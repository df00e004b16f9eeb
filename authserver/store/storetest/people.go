package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

var people = []promise{
	{"ClientsAreKept", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		c := store.Client{ID: "b", Name: "Müller & Co", SecretHashes: []store.Digest{digest(1), digest(2)}, Grants: []string{"client_credentials"},
			Scopes: []string{"read"}, RedirectURIs: []string{`https://x.example/"cb"`}, PostLogoutRedirectURIs: []string{"https://x.example/"},
			SkipConsent: true, Disabled: true, Created: now,
			ClientSettings: store.ClientSettings{BackchannelLogoutURI: "https://x.example/out", BackchannelLogoutSession: true,
				AuthMethod: "private_key_jwt", JWKS: []byte(`{"keys":[]}`), RequirePAR: true, Resources: []string{"https://x.example"}}}
		must(t, stores[0].AddClient(ctx, c))
		must(t, stores[0].AddClient(ctx, store.Client{ID: "a"}))
		wantError(t, "again", stores[1].AddClient(ctx, c), store.ErrExists)
		wantEqual(t, "client", got[store.Client](t)(stores[1].Client(ctx, "b")), c)
		wantEqual(t, "clients", got[[]store.Client](t)(stores[1].Clients(ctx)), []store.Client{{ID: "a"}, c})
		c.SecretHashes, c.Disabled = nil, false
		must(t, stores[1].UpdateClient(ctx, c))
		wantEqual(t, "updated", got[store.Client](t)(stores[0].Client(ctx, "b")), c)
		must(t, stores[0].PutConsent(ctx, store.Consent{Subject: "s", ClientID: "b", Scopes: []string{"read"}}))
		must(t, stores[0].RemoveClient(ctx, "b"))
		_, err := stores[1].Client(ctx, "b")
		wantError(t, "removed", err, store.ErrNotFound)
		_, err = stores[1].Consent(ctx, "s", "b")
		wantError(t, "its consents", err, store.ErrNotFound)
		wantError(t, "update", stores[1].UpdateClient(ctx, c), store.ErrNotFound)
		wantError(t, "remove", stores[1].RemoveClient(ctx, "b"), store.ErrNotFound)
	}},
	{"UsersAreKept", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		u := store.User{Subject: "usr_1", Name: "alice", PasswordHash: "$argon2id$…", Email: "a@example.com", EmailVerified: true, DisplayName: "Alice",
			Declared: true, Disabled: true, Created: now, Roles: []string{"admin", "ö"}}
		must(t, stores[0].AddUser(ctx, u))
		wantError(t, "name taken", stores[1].AddUser(ctx, store.User{Subject: "usr_2", Name: "alice"}), store.ErrExists)
		must(t, stores[1].AddUser(ctx, store.User{Subject: "usr_2", Name: "aaron"})) // the refused one left nothing
		wantEqual(t, "by name", got[store.User](t)(stores[1].UserByName(ctx, "alice")), u)
		wantEqual(t, "by subject", got[store.User](t)(stores[1].UserBySubject(ctx, "usr_1")), u)
		wantEqual(t, "users", got[[]store.User](t)(stores[1].Users(ctx)), []store.User{{Subject: "usr_2", Name: "aaron"}, u})
		u.Name, u.Disabled = "alicia", false
		must(t, stores[1].UpdateUser(ctx, u))
		wantEqual(t, "updated", got[store.User](t)(stores[0].UserBySubject(ctx, "usr_1")), u)
		wantError(t, "rename to a taken name", stores[0].UpdateUser(ctx, store.User{Subject: "usr_1", Name: "aaron"}), store.ErrExists)
		must(t, stores[0].RemoveUser(ctx, "usr_1"))
		_, err := stores[1].UserByName(ctx, "alicia")
		wantError(t, "removed", err, store.ErrNotFound)
		wantError(t, "update", stores[1].UpdateUser(ctx, u), store.ErrNotFound)
		wantError(t, "remove", stores[1].RemoveUser(ctx, "usr_1"), store.ErrNotFound)
		wantError(t, "a subject is never reused", stores[1].AddUser(ctx, store.User{Subject: "usr_1", Name: "new"}), store.ErrExists)
	}},
	{"SubjectOfANameIsGivenOutOnce", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		subjects := make([]string, 30)
		race(stores, len(subjects), func(i int, s store.Store) {
			var err error
			if subjects[i], err = s.SubjectFor(ctx, "bob", name("usr_")); err != nil {
				t.Error(err)
			}
		})
		if len(slices.Compact(subjects)) != 1 || subjects[0] == "" {
			t.Errorf("one name, subjects %q", subjects)
		}
		u := got[store.User](t)(stores[0].UserByName(ctx, "bob"))
		wantEqual(t, "row", u, store.User{Subject: subjects[0], Name: "bob", Declared: true})
		_, err := stores[0].SubjectFor(ctx, "eve", subjects[0])
		wantError(t, "another name, the same subject", err, store.ErrExists)
		must(t, stores[0].AddUser(ctx, store.User{Subject: "usr_stored", Name: "carol"}))
		wantEqual(t, "a stored user", got[string](t)(stores[1].SubjectFor(ctx, "carol", "usr_x")), "usr_stored")
	}},
	{"IdentityIsOneUserOverReplicas", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		id := store.Identity{Provider: "ldap", ID: "uuid-1", Roles: []string{"admin"}, Groups: []string{"cn=a"}, Seen: now}
		event := store.AuditEvent{Time: now, Action: "user.added"}
		subjects := make([]string, 20)
		var outcomes counted
		race(stores, len(subjects), func(i int, s store.Store) {
			for range 2 { // who lost the race for the name finds the identity
				u, added, err := s.SignInIdentity(ctx, id, store.User{Subject: name("usr_"), Name: "alice", Email: "a@example.com"}, event)
				if err == nil {
					subjects[i] = u.Subject
					outcomes.add(fmt.Sprint("added ", added))
					return
				}
				wantError(t, "sign-in", err, store.ErrExists)
			}
		})
		wantEqual(t, "outcomes", outcomes.n, map[string]int{"added true": 1, "added false": len(subjects) - 1})
		if len(slices.Compact(subjects)) != 1 {
			t.Errorf("one identity, subjects %q", subjects)
		}
		wantEqual(t, "events", len(got[[]store.AuditEvent](t)(stores[0].AuditSince(ctx, 0, 10))), 1)
		id.Roles, id.Seen = []string{"user"}, now.Add(time.Hour)
		u, _, err := stores[1].SignInIdentity(ctx, id, store.User{Email: "new@example.com", DisplayName: "A"})
		must(t, err)
		wantEqual(t, "what the provider says now", u, store.User{Subject: subjects[0], Name: "alice", Email: "new@example.com", DisplayName: "A"})
		id.Subject, id.Created = subjects[0], now
		wantEqual(t, "identities", got[[]store.Identity](t)(stores[0].Identities(ctx, subjects[0])), []store.Identity{id})

		// A user of our own keeps its profile when an identity is linked.
		must(t, stores[0].AddUser(ctx, store.User{Subject: "usr_own", Name: "bob", Email: "Bob@Example.com"}))
		wantEqual(t, "by e-mail", got[[]store.User](t)(stores[1].UsersByEmail(ctx, "bob@example.COM")), []store.User{{Subject: "usr_own", Name: "bob", Email: "Bob@Example.com"}})
		other := store.Identity{Provider: "idp", ID: "7", Linked: true, Seen: now}
		for range 2 {
			u, _, err = stores[0].SignInIdentity(ctx, other, store.User{Subject: "usr_own", Email: "x@example.com"})
			must(t, err)
			wantEqual(t, "linked", u, store.User{Subject: "usr_own", Name: "bob", Email: "Bob@Example.com"})
		}
		_, _, err = stores[0].SignInIdentity(ctx, store.Identity{Provider: "idp", ID: "8"}, store.User{Subject: "usr_x", Name: "bob"})
		wantError(t, "a taken name", err, store.ErrExists)
		must(t, stores[1].RemoveUser(ctx, "usr_own"))
		wantEqual(t, "identities of nobody", len(got[[]store.Identity](t)(stores[0].Identities(ctx, "usr_own"))), 0)
	}},
	{"SessionsAreKept", func(t *testing.T, stores []store.Store) {
		ctx, s := t.Context(), session()
		must(t, stores[0].AddSession(ctx, s))
		wantEqual(t, "by cookie", got[store.Session](t)(stores[1].SessionByCookie(ctx, s.Cookie, now)), s)
		wantEqual(t, "of the subject", got[[]store.Session](t)(stores[1].Sessions(ctx, s.Subject, now)), []store.Session{s})
		wantEqual(t, "of everybody", got[[]store.Session](t)(stores[1].LiveSessions(ctx, "", 10, now)), []store.Session{s})
		wantEqual(t, "after it", len(got[[]store.Session](t)(stores[1].LiveSessions(ctx, s.ID, 10, now))), 0)
		_, err := stores[1].SessionByCookie(ctx, s.Cookie, s.Expires)
		wantError(t, "expired", err, store.ErrNotFound)
		_, err = stores[1].SessionByCookie(ctx, digest("other"), now)
		wantError(t, "unknown", err, store.ErrNotFound)
		wantEqual(t, "expired, of the subject", len(got[[]store.Session](t)(stores[1].Sessions(ctx, s.Subject, s.Expires))), 0)
		same := session()
		same.Cookie = s.Cookie
		wantError(t, "cookie taken", stores[1].AddSession(ctx, same), store.ErrExists)
	}},
	{"RenewedSessionHasAnotherCookie", func(t *testing.T, stores []store.Store) {
		ctx, s := t.Context(), session()
		must(t, stores[0].AddSession(ctx, s))
		renewed := s
		renewed.Cookie, renewed.AuthTime, renewed.ACR = digest(name("cookie")), now, "otp"
		renewed.Expires, renewed.Agent = now.Add(2*time.Hour), "Other"
		must(t, stores[1].RenewSession(ctx, renewed, now))
		wantEqual(t, "renewed", got[store.Session](t)(stores[0].SessionByCookie(ctx, renewed.Cookie, now)), renewed)
		_, err := stores[0].SessionByCookie(ctx, s.Cookie, now)
		wantError(t, "old cookie", err, store.ErrNotFound)
		thief := renewed
		thief.Subject = "another"
		wantError(t, "another's session", stores[0].RenewSession(ctx, thief, now), store.ErrNotFound)
		wantError(t, "expired session", stores[0].RenewSession(ctx, renewed, renewed.Expires), store.ErrNotFound)
		_, err = stores[0].Revoke(ctx, revocation("session", s.ID), now)
		must(t, err)
		wantError(t, "ended session", stores[0].RenewSession(ctx, renewed, now), store.ErrNotFound)
	}},
	{"ConsentsGrow", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		scopes := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
		race(stores, len(scopes), func(i int, s store.Store) {
			if err := s.PutConsent(ctx, store.Consent{Subject: "s", ClientID: "c", Scopes: scopes[i : i+1], Granted: now}); err != nil {
				t.Error(err)
			}
		})
		must(t, stores[0].PutConsent(ctx, store.Consent{Subject: "s", ClientID: "c", Scopes: []string{"b"}, Granted: now}))
		wantEqual(t, "consent", got[store.Consent](t)(stores[1].Consent(ctx, "s", "c")), store.Consent{Subject: "s", ClientID: "c", Scopes: scopes, Granted: now})
		must(t, stores[0].PutConsent(ctx, store.Consent{Subject: "s", ClientID: "b", Scopes: scopes[:1], Granted: now}))
		given := got[[]store.Consent](t)(stores[1].ConsentsOf(ctx, "s"))
		wantEqual(t, "of the subject", given, []store.Consent{{Subject: "s", ClientID: "b", Scopes: scopes[:1], Granted: now},
			{Subject: "s", ClientID: "c", Scopes: scopes, Granted: now}})
		must(t, stores[1].RemoveConsent(ctx, "s", "c"))
		_, err := stores[0].Consent(ctx, "s", "c")
		wantError(t, "removed", err, store.ErrNotFound)
		wantError(t, "again", stores[1].RemoveConsent(ctx, "s", "c"), store.ErrNotFound)
	}},
}
