package authserver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/store/sqlstore"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// flaky is a store that can be taken away, or made to hang.
type flaky struct {
	store.Store
	away, hangs atomic.Bool
}

var errAway = errors.New("connection refused by db.internal:5432")

func (f *flaky) err() error {
	if f.away.Load() {
		return errAway
	}
	return nil
}

func (f *flaky) Ping(ctx context.Context) error {
	return errors.Join(f.err(), f.Store.Ping(ctx))
}

func (f *flaky) Client(ctx context.Context, id string) (store.Client, error) {
	c, err := f.Store.Client(ctx, id)
	return c, firstOf(f.err(), err)
}

func (f *flaky) Code(ctx context.Context, h store.Digest) (store.Code, error) {
	c, err := f.Store.Code(ctx, h)
	return c, firstOf(f.err(), err)
}

func (f *flaky) Family(ctx context.Context, grant string) (store.Family, error) {
	if f.hangs.Load() {
		<-ctx.Done()
		return store.Family{}, ctx.Err()
	}
	c, err := f.Store.Family(ctx, grant)
	return c, firstOf(f.err(), err)
}

func (f *flaky) FamilyAndUser(ctx context.Context, grant string) (store.Family, store.User, error) {
	if _, err := f.Family(ctx, grant); err != nil {
		return store.Family{}, store.User{}, err
	}
	return f.Store.FamilyAndUser(ctx, grant)
}

func (f *flaky) AppendAudit(ctx context.Context, events []store.AuditEvent) error {
	if err := f.err(); err != nil {
		return err
	}
	return f.Store.AppendAudit(ctx, events)
}

func (f *flaky) SessionByCookie(ctx context.Context, c store.Digest, now time.Time) (store.Session, error) {
	s, err := f.Store.SessionByCookie(ctx, c, now)
	return s, firstOf(f.err(), err)
}

// lost is a store whose commits cannot be trusted to have happened.
type lost struct{ *flaky }

func (l lost) ConsumeCode(ctx context.Context, h store.Digest, now time.Time, f *store.Family) error {
	err := l.Store.ConsumeCode(ctx, h, now, f)
	return firstOf(l.err(), err)
}

func (l lost) RotateRefresh(ctx context.Context, r store.Rotation) (store.Family, bool, error) {
	f, replayed, err := l.Store.RotateRefresh(ctx, r)
	if l.err() != nil {
		return store.Family{}, false, errAway
	}
	return f, replayed, err
}

func (l lost) Code(ctx context.Context, h store.Digest) (store.Code, error) {
	return l.Store.Code(ctx, h)
}
func (l lost) Family(ctx context.Context, grant string) (store.Family, error) {
	return l.Store.Family(ctx, grant)
}
func (l lost) FamilyAndUser(ctx context.Context, grant string) (store.Family, store.User, error) {
	return l.Store.FamilyAndUser(ctx, grant)
}
func (l lost) Ping(ctx context.Context) error { return l.Store.Ping(ctx) }

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// unavailable fails the test unless the answer is 503 with nothing granted.
func (r reply) unavailable(t testing.TB) {
	t.Helper()
	r.want(t, 503, "temporarily_unavailable")
	if r.header.Get("Retry-After") == "" || strings.Contains(r.body, "db.internal") || r.str("access_token") != "" {
		t.Errorf("answer %s %v", r.body, r.header)
	}
}

func TestOAuth60_WithoutTheStoreThereIsNoToken(t *testing.T) {
	f := &flaky{Store: openStores(t, tables.SQLite(t), 1)[0]}
	e := startOn(t, f, nil)
	b := e.browser()
	code := b.mustCode(request())
	r := e.grant()
	f.away.Store(true)
	e.redeem(code).unavailable(t)
	e.refresh(r.str("refresh_token")).unavailable(t)
	e.token("nobody", "x", clientCredentials).unavailable(t)
	if page := b.get(authorizeURL(request())); page.status != 503 || strings.Contains(page.body, "db.internal") {
		t.Errorf("authorize: %d", page.status)
	}
	// The token that needs no verb is refused too, once the outage is seen.
	eventually(t, func() bool { return e.server.Ready() != nil })
	e.token("batch:1", bSecret, clientCredentials).unavailable(t)
	if e.get("/oauth/jwks").status != 200 || e.get("/.well-known/openid-configuration").status != 200 {
		t.Error("the keys cannot be read without the store")
	}
	f.away.Store(false)
	eventually(t, func() bool { return e.server.Ready() == nil })
	e.redeem(code).want(t, 200, "")
	e.refresh(r.str("refresh_token")).want(t, 200, "")
	e.token("batch:1", bSecret, clientCredentials).want(t, 200, "")
}

func TestOAuth60_UnknownCommitGivesNoToken(t *testing.T) {
	f := &flaky{Store: openStores(t, tables.SQLite(t), 1)[0]}
	e := startOn(t, lost{f}, nil)
	code := e.browser().mustCode(request())
	r := e.grant()
	f.away.Store(true)
	e.redeem(code).unavailable(t)
	e.refresh(r.str("refresh_token")).unavailable(t)
	f.away.Store(false)
	// The rotation had come through: the retry gets its successor.
	e.refresh(r.str("refresh_token")).want(t, 200, "")
}

func TestOAuth60_HangingStoreIsAnsweredWithinTheDeadline(t *testing.T) {
	f := &flaky{Store: openStores(t, tables.SQLite(t), 1)[0]}
	e := startOn(t, f, nil)
	r := e.grant()
	f.hangs.Store(true)
	begin := time.Now()
	e.refresh(r.str("refresh_token")).unavailable(t)
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("answered after %v", took)
	}
	f.hangs.Store(false)
	e.refresh(r.str("refresh_token")).want(t, 200, "")
}

func TestOAuth60_DatabaseRestartNeedsNoRestartOfOurs(t *testing.T) {
	pg := servers.StartPostgres(t)
	st, err := sqlstore.Open(t.Context(), pg.Database(), sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	e := startOn(t, st, nil)
	r := e.grant()
	pg.Stop()
	e.refresh(r.str("refresh_token")).unavailable(t)
	eventually(t, func() bool { return e.server.Ready() != nil })
	e.token("batch:1", bSecret, clientCredentials).unavailable(t)
	pg.Restart()
	eventually(t, func() bool { return e.refresh(r.str("refresh_token")).status == 200 })
	eventually(t, func() bool { return e.server.Ready() == nil })
	e.token("batch:1", bSecret, clientCredentials).want(t, 200, "")
}

func TestOAuth59_EveryEventIsOneLineAndOneRow(t *testing.T) {
	e := start(t)
	b := e.browser()
	b.post("/oauth/login", with(fields(b.loginPage().body), "username", "alice", "password", "a wrong password"))
	e.secret("a wrong password")
	code := b.mustCode(request())
	r := e.redeem(code).want(t, 200, "")
	r = e.refresh(r.str("refresh_token")).want(t, 200, "")
	e.token("batch:1", bSecret, clientCredentials).want(t, 200, "")
	e.token("batch:1", "wrong-secret-wrong-secret", clientCredentials)
	e.secret("wrong-secret-wrong-secret")
	b.run(request("prompt", "consent"), "", "deny")
	e.post("/oauth/revoke", "web", webSecret, form("token", r.str("access_token")))
	b.post("/oauth/logout", fields(b.get("/oauth/login").body))
	for _, action := range []string{"login.failed", "login.succeeded", "consent.granted", "consent.denied", "code.issued",
		"token.issued", "token.refreshed", "token.refused", "token.revoked", "logout"} {
		rows := e.events(action, 1)
		lines := strings.Count(e.logs.String(), fmt.Sprintf(`"msg":"audit","action":%q`, action))
		if lines != len(rows) {
			t.Errorf("%s: %d lines, %d rows", action, lines, len(rows))
		}
		ev := rows[0]
		if ev.IP != "127.0.0.1" || ev.Actor == "" || ev.Outcome == "" || ev.Time.IsZero() {
			t.Errorf("%s: %+v", action, ev)
		}
	}
	for i, line := range bytes.Split([]byte(strings.TrimSpace(e.logs.String())), []byte("\n")) {
		if !bytes.HasPrefix(line, []byte("{")) {
			t.Errorf("line %d is not JSON", i)
		}
	}
	for _, name := range []string{"issued authorization_code client_secret_basic", "issued refresh_token client_secret_basic",
		"issued client_credentials client_secret_basic", "error invalid_client", "login success", "login failure"} {
		if e.counts.of(name) != 1 {
			t.Errorf("%q was counted %d times", name, e.counts.of(name))
		}
	}
}
