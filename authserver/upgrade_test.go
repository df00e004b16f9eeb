package authserver_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/keys"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/store/sqlstore"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

var writeState = flag.Bool("write-state", false, "write testdata/state-41 anew, with the schema of this version")

// kept is what was given out by the server whose state is in testdata.
type kept struct {
	Now                     time.Time
	Issuer, KEK             string
	Access, Refresh, Spent  string
	ClientID, ClientSecret  string
	Cookies                 []*http.Cookie
	Subject, Revoked, Grant string
}

const stateFile, keptFile = "testdata/state-41.jsonl", "testdata/state-41.json"

// What a server with schema 41 stored goes on under every later schema: see
// also TestPreviousVersionWorksOnTheMigratedSchema, which runs the older
// program itself.
func TestStateOfAnEarlierSchemaGoesOn(t *testing.T) {
	if *writeState {
		writeEarlierState(t)
		return
	}
	raw, err := os.ReadFile(keptFile)
	if err != nil {
		t.Fatal(err)
	}
	var k kept
	if err := json.Unmarshal(raw, &k); err != nil {
		t.Fatal(err)
	}
	dump, err := os.ReadFile(stateFile)
	if err != nil {
		t.Fatal(err)
	}
	goesOn := func(t *testing.T, dsn string) {
		if err := sqlstore.Restore(t.Context(), dsn, bytes.NewReader(dump)); err != nil {
			t.Fatal(err)
		}
		then := &env{clock: &clock{}, config: authserver.Config{Issuer: k.Issuer}}
		then.clock.advance(time.Until(k.Now.Add(time.Minute)))
		st := openStores(t, dsn, 1)[0]
		rewrap(t, st, k.KEK, then.clock.now)
		e := startOn(t, st, then)
		e.secret(k.Access, k.Refresh, k.Spent, k.Revoked, k.ClientSecret)

		if !e.active(k.Access) || e.active(k.Revoked) {
			t.Error("an access token is not what it was")
		}
		e.refresh(k.Spent).want(t, 400, "invalid_grant")
		e.token(k.ClientID, k.ClientSecret, clientCredentials).want(t, 200, "")
		b := e.browser()
		at, err := url.Parse(e.url)
		if err != nil {
			t.Fatal(err)
		}
		b.http.Jar.SetCookies(at, k.Cookies)
		if r := b.get(authorizeURL(request("prompt", "none"))); b.code(r) == "" {
			t.Errorf("the session, or the consent, is gone: %d %s", r.status, r.header.Get("Location"))
		}
		if claims(t, e.refresh(k.Refresh).want(t, 200, "").str("access_token"), 1)["sub"] != k.Subject {
			t.Error("the subject is another one")
		}
		e.admin("DELETE", "/api/v1/grants/"+k.Grant, "").want(t, 200, "")
		e.refresh(k.Refresh).want(t, 400, "invalid_grant")
	}
	// Without tables: these are the dump's to make.
	t.Run("sqlite", func(t *testing.T) { goesOn(t, "sqlite:"+filepath.Join(t.TempDir(), "state.db")) })
	t.Run("postgres", func(t *testing.T) { goesOn(t, servers.Postgres(t)) })
}

// rewrap seals what is sealed under old under the tests' own key.
func rewrap(t *testing.T, st store.Store, old string, now func() time.Time) {
	t.Helper()
	config := keys.Config{Now: now}
	for _, text := range []string{kek, old} {
		k, err := keys.ParseKek(text)
		if err != nil {
			t.Fatal(err)
		}
		config.Keks = append(config.Keks, k)
	}
	if _, err := keys.Open(t.Context(), st, config); err != nil {
		t.Fatal(err)
	}
}

func writeEarlierState(t *testing.T) {
	e := start(t)
	b := e.browser()
	got := e.redeem(b.mustCode(request())).want(t, 200, "")
	revoked := e.grant()
	e.post("/oauth/revoke", "web", webSecret, form("token", revoked.str("refresh_token"))).want(t, 200, "")
	spent := e.grant()
	e.refresh(spent.str("refresh_token")).want(t, 200, "")
	made := e.admin("POST", "/api/v1/clients", `{"id":"stored","grants":["client_credentials"],"scopes":["read:orders"]}`)
	e.admin("POST", "/api/v1/registration-tokens", `{"name":"ci"}`).want(t, 201, "")
	e.token("", "", form("grant_type", deviceGrant, "client_id", "tv", "device_code", "none"))
	e.post("/oauth/device_authorization", "", "", form("client_id", "tv")).want(t, 200, "")
	e.addUser("carol", "carol@example.com")
	at, err := url.Parse(e.url)
	if err != nil {
		t.Fatal(err)
	}
	k := kept{
		Now: e.clock.now(), Issuer: e.config.Issuer, KEK: kek, Access: got.str("access_token"), Refresh: got.str("refresh_token"),
		Spent: spent.str("refresh_token"), ClientID: "stored", ClientSecret: made.str("secret"), Cookies: b.http.Jar.Cookies(at),
		Subject: claims(t, got.str("access_token"), 1)["sub"].(string), Revoked: revoked.str("access_token"),
		Grant: claims(t, got.str("access_token"), 1)["grant"].(string),
	}
	var dump bytes.Buffer
	if err := e.store.(*sqlstore.Store).Dump(t.Context(), &dump); err != nil {
		t.Fatal(err)
	}
	about, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{stateFile: dump.Bytes(), keptFile: append(about, '\n')} {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
