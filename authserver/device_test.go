package authserver_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
)

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// startDevice asks for a device code as the client tv.
func (e *env) startDevice(pairs ...string) reply {
	e.t.Helper()
	r := e.post("/oauth/device_authorization", "", "", with(form("client_id", "tv", "scope", "openid read:orders"), pairs...)).want(e.t, 200, "")
	e.secret(r.str("device_code"))
	return r
}

func (e *env) poll(code string, pairs ...string) reply {
	e.t.Helper()
	return e.token("", "", with(form("client_id", "tv", "grant_type", deviceGrant, "device_code", code), pairs...))
}

// device opens the device page at target and signs in as user where it asks.
func (b *browser) device(target, user string) reply {
	b.e.t.Helper()
	r := b.get(target)
	for range 5 {
		switch {
		case r.status == http.StatusSeeOther:
			r = b.get(r.header.Get("Location"))
		case strings.Contains(r.body, `action="/oauth/login"`):
			r = b.post("/oauth/login", with(fields(r.body), "username", user, "password", password))
		default:
			return r
		}
	}
	return r
}

// typeCode sends the code of a device page, and returns the page about it.
func (b *browser) typeCode(page reply, code string) reply {
	b.e.t.Helper()
	return b.post("/oauth/device", with(fields(page.body), "user_code", code))
}

func TestOAuth53_DeviceSignsInByAnotherBrowser(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		stores := openStores(t, dsn, 2)
		e := startOn(t, stores[0], nil)
		other := startOn(t, stores[1], e)
		d := e.startDevice()
		if !regexp.MustCompile(`^[B-DF-HJ-NP-TV-XZ]{4}-[B-DF-HJ-NP-TV-XZ]{4}$`).MatchString(d.str("user_code")) ||
			d.str("verification_uri") != e.config.Issuer+"/oauth/device" ||
			d.str("verification_uri_complete") != e.config.Issuer+"/oauth/device?user_code="+d.str("user_code") || d.json["interval"] != 5.0 || d.json["expires_in"] != 600.0 {
			t.Fatalf("answer %s", d.body)
		}
		code := d.str("device_code")
		e.poll(code).want(t, 400, "authorization_pending")
		other.poll(code).want(t, 400, "slow_down") // replicas count together

		b := e.browser()
		page := b.device("/oauth/device?user_code="+d.str("user_code"), "alice")
		if !strings.Contains(page.body, `value="`+d.str("user_code")+`"`) {
			t.Fatalf("the code is not filled in: %d %s", page.status, page.body)
		}
		e.clock.advance(6 * time.Second)
		e.poll(code).want(t, 400, "slow_down") // the interval is ten seconds now
		e.clock.advance(16 * time.Second)
		e.poll(code).want(t, 400, "authorization_pending")
		confirm := b.typeCode(page, " "+strings.ToLower(strings.ReplaceAll(d.str("user_code"), "-", "")))
		for _, want := range []string{"Living Room", d.str("user_code"), "Read your orders", "If somebody sent you"} {
			if !strings.Contains(confirm.body, want) {
				t.Fatalf("the page does not show %q: %d %s", want, confirm.status, confirm.body)
			}
		}
		if r := b.post("/oauth/device", with(fields(confirm.body), "decision", "allow")); !strings.Contains(r.body, "signed in") || r.status != 200 {
			t.Fatalf("decision: %d %s", r.status, r.body)
		}
		b.post("/oauth/device", with(fields(confirm.body), "decision", "deny")).page(t, 400)
		e.poll(code, "client_id", "spa").want(t, 400, "unauthorized_client")
		e.poll(code, "client_id", "tv2").want(t, 400, "invalid_grant")

		// Of many polls over two replicas one gets the tokens.
		var mu sync.Mutex
		var won []reply
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				r := []*env{e, other}[i%2].poll(code)
				mu.Lock()
				defer mu.Unlock()
				if r.status == 200 {
					won = append(won, r)
				} else if r.str("error") != "invalid_grant" {
					t.Errorf("poll: %d %s", r.status, r.body)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d polls got tokens", len(won))
		}
		r := won[0]
		id, access := claims(t, r.str("id_token"), 1), claims(t, r.str("access_token"), 1)
		if id["aud"] != "tv" || id["sub"] != access["sub"] || access["client_id"] != "tv" || access["scope"] != "openid read:orders" || access["acr"] == nil {
			t.Errorf("claims %v %v", id, access)
		}
		r = e.token("", "", form("client_id", "tv", "grant_type", "refresh_token", "refresh_token", r.str("refresh_token"))).want(t, 200, "")
		if !e.active(r.str("access_token")) {
			t.Error("not active")
		}
		e.events("device.started", 1)
		if ev := e.events("device.allowed", 1)[0]; ev.Client != "tv" || ev.Subject != id["sub"] || ev.Grant == "" {
			t.Errorf("audit %+v", ev)
		}
	})
}

func TestOAuth53_DeviceRefusals(t *testing.T) {
	e := start(t)
	e.post("/oauth/device_authorization", "", "", form("client_id", "spa")).want(t, 400, "unauthorized_client")
	e.post("/oauth/device_authorization", "", "", form("client_id", "nobody")).want(t, 401, "invalid_client")
	e.post("/oauth/device_authorization", "", "", form("client_id", "tv", "scope", "nonsense")).want(t, 400, "invalid_scope")
	e.post("/oauth/device_authorization", "", "", form("client_id", "tv", "resource", "https://nowhere.example")).want(t, 400, "invalid_target")
	e.poll("").want(t, 400, "invalid_request")
	e.poll("ghd_x").want(t, 400, "invalid_grant")
	e.poll("ghd_"+strings.Repeat("A", 43)).want(t, 400, "invalid_grant")

	b := e.browser()
	denied := e.startDevice()
	page := b.device("/oauth/device", "alice")
	confirm := b.typeCode(page, denied.str("user_code"))
	// Another's answer, a forged one, and one without the page.
	bob := e.browser()
	bobs := bob.device("/oauth/device", "bob")
	bob.post("/oauth/device", with(fields(bobs.body), "i", fields(confirm.body).Get("i"), "decision", "allow")).page(t, 400)
	b.post("/oauth/device", with(fields(confirm.body), "csrf", "x", "decision", "allow")).page(t, 403)
	e.browser().post("/oauth/device", with(fields(confirm.body), "decision", "allow")).page(t, 403)
	b.post("/oauth/device", fields(confirm.body)).page(t, 400)
	e.poll(denied.str("device_code")).want(t, 400, "authorization_pending")
	if r := b.post("/oauth/device", with(fields(confirm.body), "decision", "deny")); r.status != 200 || !strings.Contains(r.body, "no access") {
		t.Fatalf("deny: %d", r.status)
	}
	e.poll(denied.str("device_code")).want(t, 400, "access_denied")
	b.typeCode(page, denied.str("user_code")).page(t, 422)

	late := e.startDevice()
	e.clock.advance(10 * time.Minute)
	e.poll(late.str("device_code")).want(t, 400, "expired_token")
	b.typeCode(page, late.str("user_code")).page(t, 422)

	// What ends the session ends what it allowed and nobody has fetched yet.
	d := e.startDevice()
	b.post("/oauth/device", with(fields(b.typeCode(page, d.str("user_code")).body), "decision", "allow"))
	b.post("/oauth/logout", fields(b.get("/oauth/logout").body))
	e.poll(d.str("device_code")).want(t, 400, "invalid_grant")
}

func TestOAuth53_UserCodesCannotBeGuessed(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		stores := openStores(t, dsn, 2)
		e := startOn(t, stores[0], nil)
		other := startOn(t, stores[1], e)
		seen := map[string]bool{}
		letters := map[rune]bool{}
		for range 50 {
			code := e.startDevice().str("user_code")
			if seen[code] {
				t.Fatal("a code came twice")
			}
			seen[code] = true
			for _, c := range strings.ReplaceAll(code, "-", "") {
				letters[c] = true
			}
		}
		if len(letters) != 20 {
			t.Errorf("codes are made of %d letters, want 20", len(letters))
		}
		b := e.browser()
		page := b.device("/oauth/device", "alice")
		d := e.startDevice()
		for i := range 10 {
			r := b.typeCode(page, "BBBB-BBB"+string("BCDFGHJKLM"[i]))
			r.page(t, 422)
		}
		r := b.typeCode(page, d.str("user_code"))
		r.page(t, 429)
		if r.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		// The other replica knows; another person is not held up.
		u, err := url.Parse(other.url)
		if err != nil {
			t.Fatal(err)
		}
		base, err := url.Parse(e.url)
		if err != nil {
			t.Fatal(err)
		}
		b.http.Jar.SetCookies(u, b.http.Jar.Cookies(base))
		there := &browser{e: other, http: b.http, origin: b.origin}
		there.post("/oauth/device", with(fields(page.body), "user_code", d.str("user_code"))).page(t, 429)
		bob := e.browser()
		if r := bob.typeCode(bob.device("/oauth/device", "bob"), d.str("user_code")); r.status != 200 {
			t.Errorf("another person: %d", r.status)
		}
		e.clock.advance(10 * time.Minute)
		b.typeCode(page, "BBBB-BBBB").page(t, 422)
		e.events("device.guessed", 11)
	})
}

func TestDeviceClientsAreDeclared(t *testing.T) {
	start(t, func(c *authserver.Config) {
		c.Declared.Clients = append(c.Declared.Clients, authserver.Client{ID: "short", Grants: []string{"device_code", "refresh_token"}})
	})
}
