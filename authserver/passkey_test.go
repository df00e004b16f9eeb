package authserver_test

import (
	"html"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/descope/virtualwebauthn"

	"github.com/gatehouse/gatehouse/authserver"
)

// atLocalhost gives the issuer a domain name, which passkeys need.
func atLocalhost(c *authserver.Config) {
	c.Issuer = strings.Replace(c.Issuer, "127.0.0.1", "localhost", 1)
}

// device is an authenticator with one passkey.
type device struct {
	party virtualwebauthn.RelyingParty
	auth  virtualwebauthn.Authenticator
	key   virtualwebauthn.Credential
}

func (e *env) device() *device {
	return &device{
		party: virtualwebauthn.RelyingParty{Name: "localhost", ID: "localhost", Origin: e.config.Issuer},
		auth:  virtualwebauthn.NewAuthenticator(), key: virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2),
	}
}

var options = regexp.MustCompile(`data-options="([^"]*)"`)

func optionsOf(t testing.TB, page reply) string {
	t.Helper()
	m := options.FindStringSubmatch(page.body)
	if m == nil {
		t.Fatalf("no options in the page: %d %s", page.status, page.body)
	}
	return html.UnescapeString(m[1])
}

// create answers the page that adds a passkey.
func (d *device) create(t testing.TB, page reply) string {
	t.Helper()
	o, err := virtualwebauthn.ParseAttestationOptions(optionsOf(t, page))
	if err != nil {
		t.Fatal(err)
	}
	return virtualwebauthn.CreateAttestationResponse(d.party, d.auth, d.key, *o)
}

// sign answers a page that asks for a passkey.
func (d *device) sign(t testing.TB, page reply) string {
	t.Helper()
	o, err := virtualwebauthn.ParseAssertionOptions(optionsOf(t, page))
	if err != nil {
		t.Fatal(err)
	}
	return virtualwebauthn.CreateAssertionResponse(d.party, d.auth, d.key, *o)
}

// addPasskey adds the device's passkey to the account of a signed-in browser.
func (b *browser) addPasskey(d *device, subject string) {
	b.e.t.Helper()
	d.auth.Options.UserHandle = []byte(subject)
	page := b.get("/oauth/account/passkey").shows(b.e.t, 200, `data-passkey="create"`, "<noscript>")
	if csp := page.header.Get("Content-Security-Policy"); !strings.Contains(csp, "script-src 'self'") {
		b.e.t.Fatalf("CSP %q", csp)
	}
	r := b.post("/oauth/account/passkey", with(fields(page.body), "passkey", d.create(b.e.t, page), "name", "Phone"))
	if r.status != http.StatusSeeOther {
		b.e.t.Fatalf("passkey: %d %s", r.status, r.body)
	}
}

func TestOAuth22_PasskeyFromElsewhereOrAgainIsRefused(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		e := startOn(t, openStores(t, dsn, 1)[0], nil, atLocalhost)
		carol := e.addUser("carol", "")
		b := e.browser()
		b.signIn("carol", password)
		d := e.device()
		b.addPasskey(d, carol.Subject)
		b.get("/oauth/account").shows(t, 200, "Phone")
		e.events("passkey.added", 1)

		try := func(change func(d *device), answer func(string) string) reply {
			t.Helper()
			other, page := e.browser(), reply{}
			page = other.get("/oauth/login")
			copied := *d
			if change != nil {
				change(&copied)
			}
			text := copied.sign(t, page)
			if answer != nil {
				text = answer(text)
			}
			return other.post("/oauth/login", with(fields(page.body), "passkey", text))
		}
		refused := func(name string, r reply) {
			t.Helper()
			if r.status != http.StatusUnprocessableEntity {
				t.Errorf("%s: %d", name, r.status)
			}
			e.clock.advance(40 * time.Second) // past every delay
		}
		d.key.Counter = 5
		if r := try(nil, nil); r.status != http.StatusSeeOther {
			t.Fatalf("the right passkey: %d %s", r.status, r.body)
		}
		refused("the counter stands still", try(nil, nil))
		refused("the counter goes back", try(func(d *device) { d.key.Counter = 2 }, nil))
		d.key.Counter = 6
		refused("another origin", try(func(d *device) { d.party.Origin = "https://evil.example.com" }, nil))
		refused("another relying party", try(func(d *device) { d.party.ID = "evil.example.com" }, nil))
		refused("nobody verified", try(func(d *device) { d.auth.Options.UserNotVerified = true }, nil))
		refused("another key", try(func(d *device) { d.key.Key = virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2).Key }, nil))
		refused("another user", try(func(d *device) { d.auth.Options.UserHandle = []byte("usr_nobody") }, nil))
		refused("no JSON", try(nil, func(string) string { return "{" }))
		other := e.browser()
		first, second := other.get("/oauth/login"), other.get("/oauth/login")
		refused("another challenge", other.post("/oauth/login", with(fields(second.body), "passkey", d.sign(t, first))))
		stranger := e.browser().get("/oauth/login")
		refused("a challenge of another browser", other.post("/oauth/login",
			with(fields(first.body), "state", fields(stranger.body).Get("state"), "passkey", d.sign(t, stranger))))

		// The right one once, and not again.
		page := other.get("/oauth/login")
		f := with(fields(page.body), "passkey", d.sign(t, page))
		if r := other.post("/oauth/login", f); r.status != http.StatusSeeOther {
			t.Fatalf("the right passkey: %d", r.status)
		}
		refused("the same answer again", other.post("/oauth/login", f))

		other.act("action", "remove_passkey", "id", regexp.MustCompile(`name="id" value="([^"]{40,})"`).FindStringSubmatch(other.get("/oauth/account").body)[1])
		e.events("passkey.removed", 1)
		d.key.Counter = 9
		refused("a removed passkey", try(nil, nil))
	})
}

func TestPasskeySignsInAtAnApplicationAndIsASecondFactor(t *testing.T) {
	e := start(t, atLocalhost)
	carol := e.addUser("carol", "")
	b := e.browser()
	b.signIn("carol", password)
	d := e.device()
	b.addPasskey(d, carol.Subject)
	r := b.post("/oauth/account/passkey", with(fields(b.get("/oauth/account/passkey").body), "passkey", "{}"))
	r.shows(t, 422, "was not added")

	tokens := func(app *browser, r reply) map[string]any {
		t.Helper()
		for range 3 {
			r = app.get(r.header.Get("Location"))
			if strings.Contains(r.body, `action="/oauth/consent"`) {
				r = app.post("/oauth/consent", with(fields(r.body), "decision", "allow"))
			}
			if code := app.code(r); code != "" {
				return claims(t, e.redeem(code).want(t, 200, "").str("id_token"), 1)
			}
		}
		t.Fatalf("no code: %d %s", r.status, r.body)
		return nil
	}
	app := e.browser()
	d.key.Counter++
	page := app.get(app.get(authorizeURL(request())).header.Get("Location"))
	id := tokens(app, app.post("/oauth/login", with(fields(page.body), "passkey", d.sign(t, page))))
	if id["acr"] != "urn:gatehouse:acr:passkey" || id["sub"] != carol.Subject {
		t.Errorf("acr %v sub %v", id["acr"], id["sub"])
	}

	b.enrol()
	second := e.browser()
	d.key.Counter++
	r = second.get(authorizeURL(request()))
	r = second.get(r.header.Get("Location"))
	r = second.post("/oauth/login", with(fields(r.body), "username", "carol", "password", password))
	page = second.get(r.header.Get("Location")).shows(t, 200, `action="/oauth/factor"`)
	id = tokens(second, second.post("/oauth/factor", with(fields(page.body), "passkey", d.sign(t, page))))
	if id["acr"] != "urn:gatehouse:acr:password-passkey" {
		t.Errorf("acr %v", id["acr"])
	}
	if strings.Contains(start(t).browser().get("/oauth/login").body, "data-passkey") {
		t.Error("an issuer at an address offers passkeys")
	}
}

// TestBrowserMakesAndUsesAPasskey has a real browser with a virtual
// authenticator run the page's script.
func TestBrowserMakesAndUsesAPasskey(t *testing.T) {
	e := start(t, atLocalhost)
	e.addUser("carol", "")
	ctx := chromium(t)
	at := e.config.Issuer
	if err := chromedp.Do(ctx, authenticator(),
		chromedp.Navigate(at+"/oauth/login"),
		chromedp.WaitVisible(chromedp.CSS(`form[data-passkey] button`)),
		chromedp.SendKeys(chromedp.CSS(`#username`), "carol"), chromedp.SendKeys(chromedp.CSS(`#password`), password+"\r"),
		chromedp.WaitVisible(chromedp.CSS(`#passkeys`)),
		chromedp.Navigate(at+"/oauth/account/passkey"),
		chromedp.WaitVisible(chromedp.CSS(`form[data-passkey="create"]`)),
		chromedp.SendKeys(chromedp.CSS(`#name`), "Laptop"), chromedp.Click(chromedp.CSS(`form[data-passkey] button`)),
		chromedp.WaitVisible(chromedp.CSS(`p.done[role="status"]`)),
		chromedp.WaitVisible(chromedp.CSS(`button[value="remove_passkey"]`)),
		chromedp.Click(chromedp.CSS(`form[action="/oauth/logout"] button`)),
		chromedp.WaitNotPresent(chromedp.CSS(`#passkeys`)),
		chromedp.Navigate(at+"/oauth/login"),
		chromedp.Click(chromedp.CSS(`form[data-passkey="get"] button`)),
		chromedp.WaitVisible(chromedp.CSS(`#passkeys`)),
	); err != nil {
		t.Fatal(err)
	}
	if len(e.events("login.succeeded", 2)) != 2 {
		t.Error("the passkey did not sign in")
	}
}
