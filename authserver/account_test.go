package authserver_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/users"
)

// signIn signs a user in without an application and returns the account page.
func (b *browser) signIn(user, pw string) reply {
	b.e.t.Helper()
	r := b.get("/oauth/login")
	r = b.post("/oauth/login", with(fields(r.body), "username", user, "password", pw))
	if r.status != http.StatusSeeOther {
		b.e.t.Fatalf("sign-in: %d %s", r.status, r.body)
	}
	return b.get(r.header.Get("Location"))
}

// act sends a form of the account page.
func (b *browser) act(pairs ...string) reply {
	b.e.t.Helper()
	page := b.get("/oauth/account")
	return b.post("/oauth/account", with(form("csrf", fields(page.body).Get("csrf")), pairs...))
}

// shows fails the test unless the reply is a page that holds the words.
func (r reply) shows(t testing.TB, status int, words ...string) reply {
	t.Helper()
	for _, w := range words {
		if r.status != status || !strings.Contains(r.body, w) {
			t.Fatalf("answer %d, want %d with %q:\n%s", r.status, status, w, r.body)
		}
	}
	return r
}

// addUser stores a user with the tests' password.
func (e *env) addUser(name, email string) store.User {
	e.t.Helper()
	u := store.User{Subject: "usr_" + name, Name: name, PasswordHash: passwordHash(), Email: email, EmailVerified: email != "", Created: e.clock.now()}
	if err := e.store.AddUser(e.t.Context(), u); err != nil {
		e.t.Fatal(err)
	}
	return u
}

var (
	secretText  = regexp.MustCompile(`<code>([A-Z2-7 ]{32,})</code>`)
	recoveryRow = regexp.MustCompile(`<code>([a-z2-7-]{19})</code>`)
)

// enrol adds an authenticator app to the account of a signed-in browser.
func (b *browser) enrol() (secret string, recovery []string) {
	b.e.t.Helper()
	page := b.get("/oauth/account/app").shows(b.e.t, 200, "/oauth/account/qr?e=")
	secret = strings.ReplaceAll(secretText.FindStringSubmatch(page.body)[1], " ", "")
	b.e.secret(secret)
	qr := b.get(regexp.MustCompile(`/oauth/account/qr\?e=[^"]+`).FindString(page.body))
	if qr.status != 200 || qr.header.Get("Content-Type") != "image/png" || !strings.HasPrefix(qr.body, "\x89PNG") {
		b.e.t.Fatalf("QR code: %d", qr.status)
	}
	wrong := b.post("/oauth/account/app", with(fields(page.body), "code", "000000"))
	wrong.shows(b.e.t, 422, `aria-invalid="true"`)
	done := b.post("/oauth/account/app", with(fields(page.body), "code", b.e.codeAt(secret, 0)))
	done.shows(b.e.t, 200, "<code>")
	for _, m := range recoveryRow.FindAllStringSubmatch(done.body, -1) {
		recovery = append(recovery, m[1])
		b.e.secret(m[1])
	}
	if len(recovery) != 10 {
		b.e.t.Fatalf("%d recovery codes", len(recovery))
	}
	return secret, recovery
}

// codeAt is the app's code so many steps from now.
func (e *env) codeAt(secret string, steps int) string {
	e.t.Helper()
	code, err := totp.GenerateCode(secret, e.clock.now().Add(time.Duration(steps)*30*time.Second))
	if err != nil {
		e.t.Fatal(err)
	}
	return code
}

// factorPage signs in with the password and stops at the second step.
func (b *browser) factorPage(user string) reply {
	b.e.t.Helper()
	r := b.get("/oauth/login")
	r = b.post("/oauth/login", with(fields(r.body), "username", user, "password", password))
	return b.get(r.header.Get("Location")).shows(b.e.t, 200, `action="/oauth/factor"`)
}

func (b *browser) sendCode(page reply, code string) reply {
	b.e.t.Helper()
	return b.post("/oauth/factor", with(fields(page.body), "code", code))
}

func TestOAuth22_CodeOfTheAppCountsOnceAndNearItsTime(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		list := openStores(t, dsn, 2)
		e := startOn(t, list[0], nil)
		replica := startOn(t, list[1], e)
		b := e.browser()
		b.signIn("alice", password).shows(t, 200, "Your account")
		secret, recovery := b.enrol()
		e.events("totp.enabled", 1)

		refused := func(what string, r reply) {
			t.Helper()
			if r.status != http.StatusUnprocessableEntity || !strings.Contains(r.body, `action="/oauth/factor"`) {
				t.Errorf("%s: %d", what, r.status)
			}
		}
		fresh := e.browser()
		page := fresh.factorPage("alice")
		refused("the code that confirmed the app", fresh.sendCode(page, e.codeAt(secret, 0)))
		e.clock.advance(90 * time.Second)
		refused("a code two steps old", fresh.sendCode(page, e.codeAt(secret, -2)))
		refused("a code two steps early", fresh.sendCode(page, e.codeAt(secret, 2)))
		code := e.codeAt(secret, 1)
		if r := fresh.sendCode(page, code); r.status != http.StatusSeeOther {
			t.Fatalf("a code one step early: %d %s", r.status, r.body)
		}
		other := replica.browser()
		page = other.factorPage("alice")
		refused("the same code at another replica", other.sendCode(page, code))
		refused("an earlier code", other.sendCode(page, e.codeAt(secret, 0)))
		if r := other.sendCode(page, recovery[3]); r.status != http.StatusSeeOther {
			t.Fatalf("a recovery code: %d", r.status)
		}
		e.events("recovery.used", 1)
		again := e.browser()
		page = again.factorPage("alice")
		refused("the same recovery code", again.sendCode(page, recovery[3]))
		again.signedOut(t)

		// What the token says of it.
		app := e.browser()
		r := app.get(authorizeURL(request()))
		r = app.get(r.header.Get("Location"))
		r = app.post("/oauth/login", with(fields(r.body), "username", "alice", "password", password))
		e.clock.advance(2 * time.Minute)
		page = app.get(r.header.Get("Location"))
		r = app.sendCode(page, e.codeAt(secret, 0))
		r = app.get(r.header.Get("Location")) // authorize
		r = app.get(r.header.Get("Location")) // consent
		r = app.post("/oauth/consent", with(fields(r.body), "decision", "allow"))
		r = app.get(r.header.Get("Location"))
		id := claims(t, e.redeem(app.code(r)).want(t, 200, "").str("id_token"), 1)
		if id["acr"] != "urn:gatehouse:acr:otp" || len(id["amr"].([]any)) != 3 {
			t.Errorf("acr %v amr %v", id["acr"], id["amr"])
		}

		// Turned off, the password is enough again.
		app.act("action", "remove_app").shows(t, 303, "")
		e.events("totp.disabled", 1)
		e.browser().signIn("alice", password).shows(t, 200, "Your account")
	})
}

// signedOut fails the test if the browser has a session.
func (b *browser) signedOut(t testing.TB) {
	t.Helper()
	if r := b.get("/oauth/account"); r.status != http.StatusSeeOther || !strings.HasPrefix(r.header.Get("Location"), "/oauth/login?i=") {
		t.Errorf("the browser is signed in: %d", r.status)
	}
}

func TestOAuth21_GuessesOfTheSecondStepAreThrottled(t *testing.T) {
	e := start(t)
	b := e.browser()
	b.signIn("alice", password)
	secret, _ := b.enrol()
	e.clock.advance(time.Minute)
	thief := e.browser()
	page := thief.factorPage("alice")
	for range 5 {
		if r := thief.sendCode(page, "123456"); r.status != http.StatusUnprocessableEntity {
			t.Fatalf("a wrong code: %d", r.status)
		}
	}
	if r := thief.sendCode(page, e.codeAt(secret, 0)); r.status != http.StatusTooManyRequests || r.header.Get("Retry-After") == "" {
		t.Errorf("after five wrong codes: %d", r.status)
	}
	e.clock.advance(31 * time.Second)
	if r := thief.sendCode(page, e.codeAt(secret, 0)); r.status != http.StatusSeeOther {
		t.Errorf("after the delay: %d", r.status)
	}
}

func TestSecondStepCannotBeSkipped(t *testing.T) {
	e := start(t)
	b := e.browser()
	b.signIn("alice", password)
	b.enrol()
	other := e.browser()
	page := other.factorPage("alice")
	other.signedOut(t)
	handle := fields(page.body).Get("i")
	if r := other.get("/oauth/authorize?i=" + handle); r.status != 400 {
		t.Errorf("a half sign-in at /authorize: %d", r.status)
	}
	if r := e.browser().get("/oauth/factor?i=" + handle); r.status != 400 {
		t.Errorf("a half sign-in in another browser: %d", r.status)
	}
	plain := other.get(authorizeURL(request())).header.Get("Location")
	if r := other.get(strings.Replace(plain, "/login", "/factor", 1)); r.status != 400 {
		t.Errorf("the second step without the first: %d", r.status)
	}
	e.clock.advance(11 * time.Minute)
	if r := other.get("/oauth/factor?i=" + handle); r.status != 400 {
		t.Errorf("the second step eleven minutes later: %d", r.status)
	}
}

func TestAccountEndsSessionsAndTheirTokens(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		e := startOn(t, openStores(t, dsn, 1)[0], nil)
		first, second := e.browser(), e.browser()
		token := e.redeem(first.mustCode(request())).want(t, 200, "").str("access_token")
		second.signIn("alice", password)
		page := second.get("/oauth/account").shows(t, 200, "this browser")
		ids := regexp.MustCompile(`name="id" value="(ses_[^"]+)"`).FindAllStringSubmatch(page.body, -1)
		if len(ids) != 2 {
			t.Fatalf("%d sessions in the list", len(ids))
		}
		bob := e.browser()
		bob.signIn("bob", password)
		bob.act("action", "end_session", "id", ids[0][1])
		if !e.active(token) {
			t.Fatal("bob ended a session of alice")
		}
		second.act("action", "end_others")
		second.get("/oauth/account?done=sessions").shows(t, 200, `role="status"`)
		first.signedOut(t)
		if e.active(token) {
			t.Error("a token of an ended session lives")
		}
		second.act("action", "end_session", "id", ids[0][1])
		second.act("action", "end_session", "id", ids[1][1])
		second.signedOut(t)
		if len(e.events("session.ended", 2)) != 2 {
			t.Error("the ends of sessions are not audited one by one")
		}
	})
}

func TestWithdrawnAccessKillsTokens(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		e := startOn(t, openStores(t, dsn, 1)[0], nil)
		b := e.browser()
		first := e.redeem(b.mustCode(request())).want(t, 200, "")
		several := b.run(request("client_id", "several", "redirect_uri", "https://a.example.com/cb"), "", "allow")
		bare := e.token("several", webSecret, redemption(b.code(several), "redirect_uri", "https://a.example.com/cb")).want(t, 200, "")
		b.get("/oauth/account").shows(t, 200, "Web Shop", "several", "Read your orders")
		b.act("action", "withdraw", "client", "web")
		b.act("action", "withdraw", "client", "several")
		for name, token := range map[string]string{"access": first.str("access_token"), "one without a refresh token": bare.str("access_token")} {
			if e.active(token) {
				t.Errorf("%s lives after the consent was withdrawn", name)
			}
		}
		e.refresh(first.str("refresh_token")).want(t, 400, "invalid_grant")
		b.get("/oauth/account").shows(t, 200, "No application")
		b.sent(b.get(authorizeURL(request("prompt", "none"))), "consent_required")
		e.events("consent.removed", 2)
	})
}

func TestNewPasswordEndsEverythingElse(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		e := startOn(t, openStores(t, dsn, 1)[0], nil)
		e.addUser("carol", "")
		mine, other := e.browser(), e.browser()
		mine.signIn("carol", password)
		r := other.run(request(), "carol", "allow")
		token := e.redeem(other.code(r)).want(t, 200, "")
		const fresh = "another horse, another battery"
		e.secret(fresh)
		page := mine.get("/oauth/account/password").shows(t, 200, `autocomplete="new-password"`)
		f := with(fields(page.body), "current", password, "new", fresh, "repeat", fresh)
		mine.post("/oauth/account/password", with(f, "current", "not the password")).shows(t, 422, "The current password is not right")
		mine.post("/oauth/account/password", with(f, "new", "short", "repeat", "short")).shows(t, 422, "too short")
		mine.post("/oauth/account/password", with(f, "repeat", "something else")).shows(t, 422, "not the same")
		if !e.active(token.str("access_token")) {
			t.Fatal("a refused change ended something")
		}
		mine.post("/oauth/account/password", f).shows(t, 303, "")
		mine.get("/oauth/account?done=password").shows(t, 200, "Your password was changed")
		other.signedOut(t)
		if e.active(token.str("access_token")) {
			t.Error("a token from before lives")
		}
		e.refresh(token.str("refresh_token")).want(t, 400, "invalid_grant")
		e.browser().signIn("carol", fresh).shows(t, 200, "Your account")
		e.events("password.changed", 1)
	})
}

func TestAccountNeedsARecentSignInForWhatChangesSigningIn(t *testing.T) {
	e := start(t)
	b := e.browser()
	b.signIn("alice", password)
	csrf := fields(b.get("/oauth/account").body).Get("csrf")
	e.clock.advance(11 * time.Minute)
	r := b.get("/oauth/account/app")
	if r.status != http.StatusSeeOther {
		t.Fatalf("eleven minutes after the sign-in: %d", r.status)
	}
	for _, a := range []string{"app", "remove_app", "recovery", "passkey", "remove_passkey"} {
		if r := b.post("/oauth/account", form("csrf", csrf, "action", a)); r.status != 303 || !strings.HasPrefix(r.header.Get("Location"), "/oauth/login?i=") {
			t.Errorf("%s: %d", a, r.status)
		}
	}
	page := b.get(r.header.Get("Location")).shows(t, 200, `value="alice"`)
	r = b.post("/oauth/login", with(fields(page.body), "username", "alice", "password", password))
	if to := r.header.Get("Location"); to != "/oauth/account/app" {
		t.Errorf("after the sign-in the browser goes to %q", to)
	}
	b.get("/oauth/account/app").shows(t, 200, "/oauth/account/qr")
	b.get("/oauth/account/nonsense").shows(t, 404, "")
	b.post("/oauth/account", form("csrf", fields(b.get("/oauth/account").body).Get("csrf"), "action", "nonsense")).shows(t, 400, "")
}

func TestOAuth18_ForgedAccountFormsChangeNothing(t *testing.T) {
	e := start(t)
	b, other := e.browser(), e.browser()
	b.signIn("alice", password)
	other.signIn("alice", password)
	foreign := fields(other.get("/oauth/account").body).Get("csrf")
	own := fields(b.get("/oauth/account").body).Get("csrf")
	for name, r := range map[string]reply{
		"without token":          b.post("/oauth/account", form("action", "end_others")),
		"another browser's":      b.post("/oauth/account", form("action", "end_others", "csrf", foreign)),
		"from another origin":    b.post("/oauth/account", form("action", "end_others", "csrf", own), "Origin", "https://evil.example.com"),
		"with origin null":       b.post("/oauth/account", form("action", "end_others", "csrf", own), "Origin", "null"),
		"the form of a password": b.post("/oauth/account/password", form("action", "password", "csrf", foreign)),
	} {
		if r.status != http.StatusForbidden {
			t.Errorf("%s: %d", name, r.status)
		}
	}
	other.get("/oauth/account").shows(t, 200, "Your account")
}

func TestDeclaredUsersPasswordIsTheFiles(t *testing.T) {
	e := start(t)
	b := e.browser()
	b.signIn("alice", password)
	b.get("/oauth/account").shows(t, 200, "kept elsewhere", "alice@example.com")
	b.get("/oauth/account/password").shows(t, 400, "kept elsewhere")
	csrf := fields(b.get("/oauth/account").body).Get("csrf")
	b.post("/oauth/account/password", form("csrf", csrf, "action", "password", "current", password, "new", "a new password", "repeat", "a new password")).
		shows(t, 400, "kept elsewhere")
	e.config.Declared.Users = append(e.config.Declared.Users[:0:0], users.Declared{Name: "bob", PasswordHash: passwordHash()})
	if err := e.server.Reload(t.Context(), e.config.Declared); err != nil {
		t.Fatal(err)
	}
	b.signedOut(t)
}

func TestUserinfoSaysWhetherTheAddressIsVerified(t *testing.T) {
	e := start(t)
	token := e.grant("scope", "openid email").str("access_token")
	info := e.get("/oauth/userinfo", "Authorization", "Bearer "+token).want(t, 200, "")
	if info.str("email") != "alice@example.com" || info.json["email_verified"] != true {
		t.Errorf("userinfo %s", info.body)
	}
	for name := range claims(t, token, 1) {
		if strings.Contains(name, "mail") {
			t.Errorf("the access token has the claim %s", name)
		}
	}
}
