package authserver_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// verified proves the whole audit log of a store and returns its events.
func verified(t *testing.T, s store.Store) []store.AuditEvent {
	t.Helper()
	ctx := context.Background()
	base, head, err := s.AuditChain(ctx)
	if err != nil {
		t.Fatal(err)
	}
	v, err := audit.NewVerifier(base, head)
	if err != nil {
		t.Fatal(err)
	}
	var all []store.AuditEvent
	for after := int64(0); ; {
		events, err := s.AuditSince(ctx, after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(events) == 0 {
			break
		}
		for _, e := range events {
			if err := v.Next(e); err != nil {
				t.Fatal(err)
			}
			after = e.Seq
		}
		all = append(all, events...)
	}
	if err := v.End(); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestOAuth59_… drives what the server does and looks at what each kind of
// event says: a letter for each of actor, client, subject, grant, session, ip.
func TestOAuth59_EveryKindOfEventSaysWhoAndWhat(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		e := startOn(t, openStores(t, dsn, 1)[0], nil)
		everything(t, e)
		wants := map[string]string{
			"token.issued": "acsgSi", "token.refreshed": "acsgSi", "token.refused": "aci", "token.revoked": "acsgSi",
			"code.issued": "acsgSi", "code.replayed": "acsgSi", "refresh.reuse": "acsgSi",
			"login.succeeded": "asSi", "login.failed": "asi", "login.throttled": "ai",
			"consent.granted": "acsSi", "consent.denied": "acsSi", "consent.removed": "acsi", "logout": "asSi",
			"client.added": "aci", "client.updated": "aci", "client.removed": "aci", "client.secret_rotated": "aci",
			"user.added": "asi", "user.updated": "asi", "user.removed": "asi",
			"keys.rotated": "a", "key.retired": "ai", "revocation.added": "ai",
		}
		for action := range wants {
			e.events(action, 1) // waits for the queued ones
		}
		best := map[string]store.AuditEvent{}
		for _, ev := range verified(t, e.store) {
			if said(ev) >= said(best[ev.Action]) {
				best[ev.Action] = ev
			}
		}
		for action, want := range wants {
			ev := best[action]
			for letter, field := range map[rune]string{'a': ev.Actor, 'c': ev.Client, 's': ev.Subject, 'g': ev.Grant, 'S': ev.Session, 'i': ev.IP} {
				if strings.ContainsRune(want, letter) && field == "" {
					t.Errorf("%s lacks %c: %+v", action, letter, ev)
				}
			}
			if ev.Outcome != audit.Success && ev.Outcome != audit.Failure || ev.Time.IsZero() {
				t.Errorf("%s: %+v", action, ev)
			}
		}
	})
}

// said counts the fields of an event that are there.
func said(e store.AuditEvent) (n int) {
	for _, s := range []string{e.Actor, e.Client, e.Subject, e.Grant, e.Session, e.IP} {
		if s != "" {
			n++
		}
	}
	return n
}

// everything does each thing that is audited.
func everything(t *testing.T, e *env) {
	t.Helper()
	b := e.browser()
	e.secret("a wrong password")
	known := e.browser() // a declared user has a subject from the first sign-in on
	known.post("/oauth/login", with(fields(known.loginPage().body), "username", "alice", "password", password))
	for range 7 { // more than may fail at once
		b.post("/oauth/login", with(fields(b.loginPage().body), "username", "alice", "password", "a wrong password"))
	}
	e.clock.advance(time.Minute)
	code := b.mustCode(request())
	r := e.redeem(code).want(t, 200, "")
	e.post("/oauth/revoke", "web", webSecret, form("token", r.str("access_token")))
	e.redeem(code).want(t, 400, "invalid_grant")
	first := e.redeem(b.mustCode(request())).want(t, 200, "")
	e.refresh(first.str("refresh_token")).want(t, 200, "")
	e.clock.advance(time.Minute)
	e.refresh(first.str("refresh_token")).want(t, 400, "invalid_grant")
	e.token("batch:1", "wrong-secret-wrong-secret", clientCredentials)
	e.secret("wrong-secret-wrong-secret")
	b.run(request("prompt", "consent"), "", "deny")
	subject := claims(t, first.str("access_token"), 1)["sub"].(string)
	e.admin("DELETE", "/api/v1/users/"+subject+"/consents/web", "").want(t, 204, "")
	b.post("/oauth/logout", fields(b.get("/oauth/login").body))

	e.admin("POST", "/api/v1/clients", `{"id":"reports","grants":["client_credentials"],"scopes":["read:orders"]}`).want(t, 201, "")
	e.admin("POST", "/api/v1/clients/reports/secret", "").want(t, 200, "")
	e.admin("PUT", "/api/v1/clients/reports", `{"grants":["client_credentials"],"scopes":["read:orders"],"disabled":true}`).want(t, 200, "")
	e.admin("DELETE", "/api/v1/clients/reports", "").want(t, 204, "")
	made := e.admin("POST", "/api/v1/users", `{"name":"carol","password":"`+password+`"}`).want(t, 201, "").str("subject")
	e.admin("PATCH", "/api/v1/users/"+made, `{"disabled":true}`).want(t, 200, "")
	e.admin("DELETE", "/api/v1/users/"+made, "").want(t, 204, "")
	e.admin("POST", "/api/v1/keys/rotate", "").want(t, 204, "")
	e.admin("POST", "/api/v1/keys/rotate", "").problem(t, 409, "under way")
	kid := e.admin("GET", "/api/v1/keys", "").json["keys"].([]any)[0].(map[string]any)["kid"].(string)
	e.admin("POST", "/api/v1/keys/"+kid+"/retire", "").want(t, 204, "")
	e.admin("POST", "/api/v1/keys/"+kid+"/retire", "").problem(t, 404, "no such key")
}

func TestWhatSomebodySendsCannotSpoilTheAuditLog(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		e := startOn(t, openStores(t, dsn, 1)[0], nil)
		e.post("/oauth/token", "", "", form("grant_type", "client_credentials", "client_id", "a\x00b\xff\n"+strings.Repeat("x", 3000), "client_secret", "s"))
		e.token("batch:1", bSecret, clientCredentials).want(t, 200, "")
		if ev := e.events("token.issued", 1); ev[0].Client != "batch:1" {
			t.Errorf("%+v", ev)
		}
		verified(t, e.store)
	})
}

func TestOldEventsGoAndTheRestIsStillProven(t *testing.T) {
	st := openStores(t, tables.SQLite(t), 1)[0]
	long := time.Now().Add(-100 * 24 * time.Hour)
	old := make([]store.AuditEvent, 2500)
	for i := range old {
		old[i] = store.AuditEvent{Time: long.Add(time.Duration(i) * time.Second), Action: audit.LoginFailed}
	}
	for some := range slices.Chunk(old, 100) {
		if err := st.AppendAudit(context.Background(), some); err != nil {
			t.Fatal(err)
		}
	}
	e := startOn(t, st, nil, func(c *authserver.Config) { c.AuditRetention = 90 * 24 * time.Hour })
	e.events(audit.Pruned, 3)
	all := verified(t, st)
	if all[0].Action == audit.LoginFailed || len(all) > 10 {
		t.Errorf("%d events are left, the first is %+v", len(all), all[0])
	}
}

func TestAdminShowsTheAuditLogBySelection(t *testing.T) {
	e := start(t)
	e.token("batch:1", bSecret, clientCredentials).want(t, 200, "")
	e.token("other", webSecret, clientCredentials).want(t, 200, "")
	e.events("token.issued", 2)
	f := func(query string, want ...string) {
		t.Helper()
		r := e.admin("GET", "/api/v1/audit?"+query, "").want(t, 200, "")
		var have []string
		for _, ev := range r.json["events"].([]any) {
			have = append(have, ev.(map[string]any)["client"].(string))
		}
		if strings.Join(have, " ") != strings.Join(want, " ") {
			t.Errorf("%s: %v, want %v", query, have, want)
		}
	}
	f("action=token.issued", "batch:1", "other")
	f("action=token.issued&order=newest&limit=1", "other")
	f("client=batch:1&from=2020-01-01T00:00:00Z", "batch:1")
	f("client=batch:1&until=2020-01-01T00:00:00Z")
	e.admin("GET", "/api/v1/audit?order=random", "").problem(t, 400, "order")
	e.admin("GET", "/api/v1/audit?from=yesterday", "").problem(t, 400, "from")
}
