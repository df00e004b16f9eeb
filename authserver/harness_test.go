package authserver_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/store/sqlstore"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

const (
	password  = "correct horse battery staple"
	webSecret = "web-secret-web-secret-web-secret-web"
	bSecret   = "batch%secret+with:odd/characters-and-more"
	callback  = "https://app.example.com/callback"
	verifier  = "a-verifier-that-is-long-enough-to-be-one-0123456789"
)

// passwordHash costs next to nothing, so that tests may sign in often.
var passwordHash = sync.OnceValue(func() string {
	salt := []byte("salt for testing")
	key := argon2.IDKey([]byte(password), salt, 1, 64, 1, 32)
	b64 := base64.RawStdEncoding
	return "$argon2id$v=19$m=64,t=1,p=1$" + b64.EncodeToString(salt) + "$" + b64.EncodeToString(key)
})

func challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// clock is the real one, which can be moved forward.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// logs collects everything that is logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// counts is an Observer.
type counts struct {
	mu sync.Mutex
	m  map[string]int
}

func (c *counts) add(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m[name]++
}
func (c *counts) of(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[name]
}
func (c *counts) TokenIssued(grant, auth string) { c.add("issued " + grant + " " + auth) }
func (c *counts) TokenError(code string)         { c.add("error " + code) }
func (c *counts) Login(result string)            { c.add("login " + result) }
func (c *counts) RefreshReuse()                  { c.add("reuse") }
func (c *counts) Unusual(kind string)            { c.add("unusual " + kind) }
func (c *counts) Mail(result string)             { c.add("mail " + result) }

// env is an authorization server on a socket.
type env struct {
	t      testing.TB
	url    string // issuer
	server *authserver.Server
	store  store.Store
	keys   authserver.Keys
	clock  *clock
	logs   *logs
	counts *counts
	config authserver.Config

	mu      sync.Mutex
	secrets map[string]bool // what must never be in a log
}

func declared() authserver.Declared {
	both := []string{"authorization_code", "refresh_token"}
	all := []string{"openid", "profile", "email", "offline_access", "read:orders", "write:orders"}
	return authserver.Declared{
		Clients: []authserver.Client{
			{ID: "web", Name: "Web Shop", Secret: webSecret, Grants: both, Scopes: all,
				RedirectURIs: []string{callback}, PostLogoutRedirectURIs: []string{"https://app.example.com/bye"}},
			{ID: "first", Secret: webSecret, Grants: both, Scopes: append([]string{"gatehouse:admin"}, all...), RedirectURIs: []string{"https://first.example.com/cb"}, SkipConsent: true},
			{ID: "spa", Grants: both, Scopes: all, RedirectURIs: []string{"https://spa.example.com/cb"}},
			{ID: "native", Grants: both, Scopes: all, RedirectURIs: []string{"http://127.0.0.1/cb", "http://[::1]/cb", "com.example.app:/cb"}},
			{ID: "several", Secret: webSecret, Grants: both[:1], Scopes: all,
				RedirectURIs: []string{"https://a.example.com/cb", "https://b.example.com/cb?tenant=1"}},
			{ID: "batch:1", Secret: bSecret, Grants: []string{"client_credentials"}, Scopes: []string{"read:orders"}},
			{ID: "rs", Secret: webSecret, Scopes: []string{"gatehouse:introspect"}},
			{ID: "other", Secret: webSecret, Grants: []string{"client_credentials", "authorization_code", "refresh_token"},
				Scopes: all, RedirectURIs: []string{"https://other.example.com/cb"}},
			{ID: "tv", Name: "Living Room", Grants: []string{deviceGrant, "refresh_token"}, Scopes: all},
			{ID: "tv2", Grants: []string{deviceGrant}, Scopes: all},
		},
		Users: []users.Declared{
			{Name: "alice", PasswordHash: passwordHash(), Email: "alice@example.com", DisplayName: "Alice <b>A</b>"},
			{Name: "bob", PasswordHash: passwordHash()},
		},
		Scopes:    map[string]string{"read:orders": "Read your orders", "write:orders": "Place and change orders"},
		Resources: []string{"https://orders.example.com", "https://billing.example.com"},
	}
}

// openStores returns n handles on one new database.
func openStores(t testing.TB, dsn string, n int) []store.Store {
	t.Helper()
	var list []store.Store
	for range n {
		s, err := sqlstore.Open(context.Background(), dsn, sqlstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		list = append(list, s)
	}
	return list
}

// tables are databases with all tables and no rows.
var tables = servers.Template{Fill: func(dsn string) error {
	s, err := sqlstore.Open(context.Background(), dsn, sqlstore.Options{})
	if err != nil {
		return err
	}
	return s.Close()
}}

// onEachStore runs a test about state on SQLite and PostgreSQL.
func onEachStore(t *testing.T, f func(t *testing.T, dsn string)) {
	t.Run("sqlite", func(t *testing.T) { f(t, tables.SQLite(t)) })
	t.Run("postgres", func(t *testing.T) { f(t, tables.Postgres(t)) })
}

// onEachDatabase is onEachStore for tests that start servers by themselves: each
// start has a new database.
func onEachDatabase(t *testing.T, f func(t *testing.T, start func(...func(*authserver.Config)) *env)) {
	run := func(name string, dsn func(testing.TB) string) {
		t.Run(name, func(t *testing.T) {
			f(t, func(change ...func(*authserver.Config)) *env {
				return startOn(t, openStores(t, dsn(t), 1)[0], nil, change...)
			})
		})
	}
	run("sqlite", tables.SQLite)
	run("postgres", tables.Postgres)
}

// start runs a server over a new SQLite database.
func start(t testing.TB, change ...func(*authserver.Config)) *env {
	t.Helper()
	return startOn(t, openStores(t, tables.SQLite(t), 1)[0], nil, change...)
}

// startOn runs a server over st. first is a replica with which it shares
// issuer, keys and clock; nil: it is the first.
func startOn(t testing.TB, st store.Store, first *env, change ...func(*authserver.Config)) *env {
	t.Helper()
	e := &env{t: t, store: st, clock: &clock{}, logs: &logs{}, counts: &counts{m: map[string]int{}}, secrets: map[string]bool{}}
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.server.Handler().ServeHTTP(w, r)
	}))
	e.url = "http://" + front.Listener.Addr().String()
	issuer := e.url
	if first != nil {
		e.clock, issuer = first.clock, first.config.Issuer
	}
	e.keys = openKeys(t, st, e.clock.now)
	handler := slog.NewJSONHandler(e.logs, &slog.HandlerOptions{Level: slog.LevelDebug})
	e.config = authserver.Config{
		Issuer: issuer, RefreshGrace: 10 * time.Second, Declared: declared(), Store: st, Keys: e.keys,
		Now: e.clock.now, Logger: slog.New(handler), Audit: slog.New(handler), Observer: e.counts,
	}
	for _, c := range change {
		c(&e.config)
	}
	var err error
	if e.server, err = authserver.New(context.Background(), e.config); err != nil {
		t.Fatal(err)
	}
	e.secret(password, webSecret, bSecret, verifier)
	front.Start()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.server.Run(ctx) }()
	t.Cleanup(func() {
		front.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		e.noSecretLeaked()
	})
	return e
}

// secret remembers what must never be logged.
func (e *env) secret(list ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range list {
		if len(s) >= 16 {
			e.secrets[s] = true
		}
	}
}

// noSecretLeaked looks for every secret of the test in what it logged and in
// the audit log (OAUTH 59).
func (e *env) noSecretLeaked() {
	e.t.Helper()
	var rows bytes.Buffer
	for after := int64(0); ; {
		events, err := e.store.AuditSince(context.Background(), after, 1000)
		if err != nil {
			e.t.Logf("audit rows not checked: %v", err)
			break
		}
		if len(events) == 0 {
			break
		}
		for _, ev := range events {
			fmt.Fprintf(&rows, "%+v\n", ev)
			after = ev.Seq
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	written := e.logs.String()
	for s := range e.secrets {
		for name, text := range map[string]string{"log": written, "audit rows": rows.String()} {
			if strings.Contains(text, s) || strings.Contains(text, url.QueryEscape(s)) {
				e.t.Errorf("a secret (%.8s…) is in the %s", s, name)
			}
		}
	}
}

// events returns the stored audit events of an action, waiting for queued ones.
func (e *env) events(action string, atLeast int) []store.AuditEvent {
	e.t.Helper()
	var found []store.AuditEvent
	eventually(e.t, func() bool {
		found = nil
		all, err := e.store.AuditSince(context.Background(), 0, 1000)
		if err != nil {
			e.t.Fatal(err)
		}
		for _, ev := range all {
			if ev.Action == action {
				found = append(found, ev)
			}
		}
		return len(found) >= atLeast
	})
	return found
}

func eventually(t testing.TB, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen within a minute")
		}
	}
}

// reply is a response that was read.
type reply struct {
	status int
	header http.Header
	body   string
	json   map[string]any
}

func (r reply) str(name string) string {
	s, _ := r.json[name].(string)
	return s
}

// want fails the test unless the reply is an error of this status and code, or
// a success where code is empty.
func (r reply) want(t testing.TB, status int, code string) reply {
	t.Helper()
	if r.status != status || r.str("error") != code {
		t.Fatalf("answer %d %q, want %d %q: %s", r.status, r.str("error"), status, code, r.body)
	}
	return r
}

func (e *env) do(c *http.Client, req *http.Request) reply {
	e.t.Helper()
	res, err := c.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	r := reply{status: res.StatusCode, header: res.Header, body: string(body)}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/") {
		_ = json.Unmarshal(body, &r.json)
	}
	for _, name := range []string{"access_token", "refresh_token", "id_token"} {
		e.secret(r.str(name))
	}
	for _, c := range res.Cookies() {
		e.secret(c.Value)
	}
	return r
}

func form(pairs ...string) url.Values {
	f := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		f.Add(pairs[i], pairs[i+1])
	}
	return f
}

// with returns a copy with some values changed; an empty one is removed.
func with(f url.Values, pairs ...string) url.Values {
	c := url.Values{}
	for k, v := range f {
		c[k] = slices.Clone(v)
	}
	for i := 0; i < len(pairs); i += 2 {
		c.Del(pairs[i])
		if pairs[i+1] != "" {
			c.Set(pairs[i], pairs[i+1])
		}
	}
	return c
}

// post sends a form to an endpoint as a client, "" for none.
func (e *env) post(path, client, secret string, f url.Values) reply {
	e.t.Helper()
	req, err := http.NewRequest(http.MethodPost, e.url+path, strings.NewReader(f.Encode()))
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if client != "" {
		req.SetBasicAuth(url.QueryEscape(client), url.QueryEscape(secret))
	}
	return e.do(http.DefaultClient, req)
}

func (e *env) token(client, secret string, f url.Values) reply {
	e.t.Helper()
	return e.post("/oauth/token", client, secret, f)
}

func (e *env) get(path string, header ...string) reply {
	e.t.Helper()
	req, err := http.NewRequest(http.MethodGet, e.url+path, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return e.do(http.DefaultClient, req)
}

// active asks introspection, as the client web unless the token is another's.
func (e *env) active(token string) bool {
	e.t.Helper()
	r := e.post("/oauth/introspect", "rs", webSecret, form("token", token)).want(e.t, 200, "")
	if r.json["active"] != true && r.body != `{"active":false}` {
		e.t.Fatalf("inactive answer says more: %s", r.body)
	}
	return r.json["active"] == true
}
