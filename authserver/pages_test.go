package authserver_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/users"
)

// loginPage opens the login page of a request.
func (b *browser) loginPage() reply {
	b.e.t.Helper()
	r := b.get(authorizeURL(request()))
	return b.get(r.header.Get("Location"))
}

// consentPage signs alice in and stops at the consent page.
func (b *browser) consentPage() reply {
	b.e.t.Helper()
	r := b.run(request(), "alice", "")
	if !strings.Contains(r.body, `action="/oauth/consent"`) {
		b.e.t.Fatalf("no consent page: %d", r.status)
	}
	return r
}

func TestOAuth17_PagesCarryTheSecurityFields(t *testing.T) {
	e := start(t)
	b := e.browser()
	pages := map[string]reply{
		"login": b.loginPage(), "consent": b.consentPage(), "signed in": b.get("/oauth/login"),
		"logout": b.get("/oauth/logout"), "error": b.get("/oauth/authorize"), "405": b.post("/oauth/authorize/", nil),
		"signed out": e.browser().get("/oauth/logout"), "forbidden": b.post("/oauth/login", form("username", "x")),
	}
	delete(pages, "405") // not a page: no such path
	external := regexp.MustCompile(`(?i)(src|href|url\()\s*=?\s*["']?(https?:)?//`)
	for name, r := range pages {
		csp := r.header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: CSP %q lacks %s", name, csp, want)
			}
		}
		for field, want := range map[string]string{
			"X-Frame-Options": "DENY", "Referrer-Policy": "same-origin", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
		} {
			if got := r.header.Get(field); got != want {
				t.Errorf("%s: %s = %q, want %q", name, field, got, want)
			}
		}
		if strings.Contains(r.body, "<script") || external.MatchString(r.body) {
			t.Errorf("%s: a script or something of another site is in the page", name)
		}
		if !strings.Contains(r.body, `<html lang="en"`) || !strings.Contains(r.body, "<h1>") {
			t.Errorf("%s: no language or no heading", name)
		}
	}
	// Browsers check form-action after the redirects that follow a form.
	for _, name := range []string{"login", "consent"} {
		if csp := pages[name].header.Get("Content-Security-Policy"); !strings.HasSuffix(csp, "form-action 'self' https://app.example.com") {
			t.Errorf("%s: CSP %q does not let the form lead to the client", name, csp)
		}
	}
	href := regexp.MustCompile(`href="(/oauth/static/style\.[0-9a-f]+\.css)"`).FindStringSubmatch(pages["login"].body)
	if href == nil {
		t.Fatal("no style sheet")
	}
	if r := b.get(href[1]); r.status != 200 || !strings.Contains(r.header.Get("Cache-Control"), "immutable") {
		t.Errorf("style sheet: %d %v", r.status, r.header)
	}
	if r := b.get("/oauth/static/style.0.css"); r.status != 404 {
		t.Errorf("another style sheet: %d", r.status)
	}
}

func TestOAuth18_ForgedFormsChangeNothing(t *testing.T) {
	e := start(t)
	// Login.
	b := e.browser()
	good := with(fields(b.loginPage().body), "username", "alice", "password", password)
	other := e.browser()
	foreign := fields(other.loginPage().body).Get("csrf")
	f := func(name string, r reply) {
		t.Helper()
		if r.status != http.StatusForbidden {
			t.Errorf("%s: %d, want 403", name, r.status)
		}
	}
	f("login without token", b.post("/oauth/login", with(good, "csrf", "")))
	f("login with another browser's token", b.post("/oauth/login", with(good, "csrf", foreign)))
	f("login from another origin", b.post("/oauth/login", good, "Origin", "https://evil.example.com"))
	f("login with origin null", b.post("/oauth/login", good, "Origin", "null"))
	f("login with origin null, cross-site", b.post("/oauth/login", good, "Origin", "null", "Sec-Fetch-Site", "cross-site"))
	b.origin = ""
	f("login without origin, cross-site", b.post("/oauth/login", good, "Sec-Fetch-Site", "cross-site"))
	f("login without cookies", e.browser().post("/oauth/login", good))
	if e.counts.of("login success") > 0 {
		t.Error("a forged form signed in")
	}
	if r := b.post("/oauth/login", good, "Origin", "null", "Sec-Fetch-Site", "same-origin"); r.status != 303 {
		t.Errorf("our own form with a hidden origin: %d", r.status)
	}
	// Consent.
	b = e.browser()
	good = with(fields(b.consentPage().body), "decision", "allow")
	foreign = fields(other.consentPage().body).Get("csrf")
	f("consent without token", b.post("/oauth/consent", with(good, "csrf", "")))
	f("consent with another session's token", b.post("/oauth/consent", with(good, "csrf", foreign)))
	f("consent from another origin", b.post("/oauth/consent", good, "Origin", "https://evil.example.com"))
	f("logout without token", b.post("/oauth/logout", form("csrf", "x")))
	b.sent(b.get(authorizeURL(request("prompt", "none"))), "consent_required")
	if r := b.post("/oauth/consent", good); r.status != 303 {
		t.Errorf("the right form: %d", r.status)
	}
}

func TestOAuth19_SessionChangesAtLoginAndCookieIsBoundToHost(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, start func(...func(*authserver.Config)) *env) {
		e := start()
		cookie := func(r reply, name string) *http.Cookie {
			for _, c := range (&http.Response{Header: r.header}).Cookies() {
				if strings.HasSuffix(c.Name, name) {
					return c
				}
			}
			return nil
		}
		b := e.browser()
		signIn := func(r reply) *http.Cookie {
			t.Helper()
			c := cookie(b.post("/oauth/login", with(fields(r.body), "username", "alice", "password", password)), "session")
			if c == nil {
				t.Fatal("no session cookie")
			}
			return c
		}
		first := signIn(b.loginPage())
		r := b.get(authorizeURL(request("prompt", "login")))
		second := signIn(b.get(r.header.Get("Location")))
		if first.Value == second.Value {
			t.Error("the session cookie did not change at login")
		}
		withCookie := func(c *http.Cookie) string { return e.get("/oauth/login", "Cookie", c.Name+"="+c.Value).body }
		if strings.Contains(withCookie(first), "signed in as") {
			t.Error("the cookie before the login still works")
		}
		if !strings.Contains(withCookie(second), "signed in as") {
			t.Error("the new cookie does not work")
		}
		if !first.HttpOnly || first.SameSite != http.SameSiteLaxMode || first.Path != "/" || first.Domain != "" {
			t.Errorf("cookie %v", first)
		}
		page := b.get("/oauth/login")
		if r := b.post("/oauth/logout", fields(page.body)); r.status != 200 || cookie(r, "session").MaxAge >= 0 {
			t.Errorf("logout: %d", r.status)
		}
		if strings.Contains(withCookie(second), "signed in as") {
			t.Error("the session is alive after logout")
		}

		// Under https.
		tls := start(func(c *authserver.Config) { c.Issuer = "https://auth.example.com" })
		rec := httptest.NewRecorder()
		tls.server.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "https://auth.example.com/oauth/login", nil))
		set := rec.Header().Get("Set-Cookie")
		for _, want := range []string{"__Host-gatehouse_browser=", "Secure", "HttpOnly", "SameSite=Lax", "Path=/"} {
			if !strings.Contains(set, want) {
				t.Errorf("Set-Cookie %q lacks %s", strings.SplitN(set, ";", 2)[1], want)
			}
		}
	})
}

func TestOAuth20_UnknownUserLooksLikeWrongPassword(t *testing.T) {
	hash, err := users.HashPassword(t.Context(), password)
	if err != nil {
		t.Fatal(err)
	}
	e := start(t, func(c *authserver.Config) { c.Declared.Users[0].PasswordHash = hash })
	try := func(name string) (string, int, time.Duration) {
		b := e.browser()
		f := with(fields(b.loginPage().body), "username", name, "password", "not the password")
		begin := time.Now()
		r := b.post("/oauth/login", f)
		took := time.Since(begin)
		body := hidden.ReplaceAllString(r.body, "")
		return strings.ReplaceAll(body, name, "NAME"), r.status, took
	}
	var known, unknown []time.Duration
	for range 4 {
		body1, status1, took1 := try("alice")
		body2, status2, took2 := try("nobody")
		if body1 != body2 || status1 != status2 {
			t.Fatalf("the answers differ: %d %d\n%s\n%s", status1, status2, body1, body2)
		}
		known, unknown = append(known, took1), append(unknown, took2)
	}
	k, u := slices.Min(known), slices.Min(unknown)
	if k > 2*u || u > 2*k {
		t.Errorf("a wrong password takes %v, an unknown user %v", k, u)
	}
}

func TestOAuth21_GuessingIsThrottledNotLocked(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, start func(...func(*authserver.Config)) *env) {
		var ip string
		e := start()
		h := e.server.Handler()
		attempt := func(name, pw string) int {
			t.Helper()
			get := httptest.NewRequest(http.MethodGet, e.config.Issuer+"/oauth/login", nil)
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, get)
			f := with(fields(rec.Body.String()), "username", name, "password", pw)
			post := httptest.NewRequest(http.MethodPost, e.config.Issuer+"/oauth/login", strings.NewReader(f.Encode()))
			post.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			post.Header.Set("Cookie", strings.SplitN(rec.Header().Get("Set-Cookie"), ";", 2)[0])
			post.RemoteAddr = ip
			rec = httptest.NewRecorder()
			h.ServeHTTP(rec, post)
			if rec.Code == http.StatusTooManyRequests && rec.Header().Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
			return rec.Code
		}
		n := 0
		from := func() { n++; ip = fmt.Sprintf("192.0.2.%d:1", n) }
		for i := range 5 {
			from()
			if got := attempt("alice", "wrong"); got != http.StatusUnprocessableEntity {
				t.Fatalf("failure %d: %d", i, got)
			}
		}
		from()
		if got := attempt("alice", password); got != http.StatusTooManyRequests {
			t.Fatalf("after five failures from five addresses: %d, want 429", got)
		}
		if got := attempt("bob", password); got != http.StatusSeeOther {
			t.Fatalf("another account: %d", got)
		}
		if len(e.events("login.throttled", 1)) == 0 || e.counts.of("login throttled") == 0 {
			t.Error("throttling is not audited")
		}
		e.clock.advance(31 * time.Second) // the longest delay
		if got := attempt("alice", password); got != http.StatusSeeOther {
			t.Fatalf("after the delay: %d: the account is locked", got)
		}
		from()
		if got := attempt("alice", "wrong"); got != http.StatusUnprocessableEntity {
			t.Fatalf("after a success: %d, want failures to count from none", got)
		}
		ip = "198.51.100.1:1"
		throttled := false
		for i := range 30 {
			throttled = throttled || attempt(fmt.Sprintf("user%d", i), "wrong") == http.StatusTooManyRequests
		}
		if !throttled {
			t.Error("one address over many accounts was not throttled")
		}
	})
}

func TestOAuth21_GuessingElsewhereDoesNotDelayAKnownBrowser(t *testing.T) {
	e := start(t)
	mine := e.browser()
	signIn := func(b *browser, pw string) int {
		t.Helper()
		r := b.get(authorizeURL(request("prompt", "login")))
		r = b.get(r.header.Get("Location"))
		return b.post("/oauth/login", with(fields(r.body), "username", "alice", "password", pw)).status
	}
	if got := signIn(mine, password); got != http.StatusSeeOther {
		t.Fatal(got)
	}
	for range 6 {
		signIn(e.browser(), "a wrong guess")
	}
	if got := signIn(e.browser(), password); got != http.StatusTooManyRequests {
		t.Errorf("an unknown browser: %d, want 429", got)
	}
	if got := signIn(mine, password); got != http.StatusSeeOther {
		t.Errorf("the user's own browser: %d: guessing keeps the user out", got)
	}
	for range 6 {
		signIn(mine, "a wrong guess")
	}
	if got := signIn(mine, password); got != http.StatusTooManyRequests {
		t.Errorf("guessing in the known browser: %d, want 429", got)
	}
}

func TestOAuth23_InteractionIsBoundToItsBrowser(t *testing.T) {
	e := start(t)
	a, b := e.browser(), e.browser()
	b.consentPage() // b has cookies and a session of its own
	login := a.get(authorizeURL(request())).header.Get("Location")
	if r := b.get(login); r.status != 400 {
		t.Errorf("login of A in browser B: %d", r.status)
	}
	page := a.consentPage()
	i := fields(page.body).Get("i")
	if r := b.get("/oauth/consent?i=" + i); r.status != 400 {
		t.Errorf("consent of A in browser B: %d", r.status)
	}
	own := fields(b.consentPage().body)
	if r := b.post("/oauth/consent", with(own, "i", i, "decision", "allow")); r.status != 400 {
		t.Errorf("consent of A sent by B: %d", r.status)
	}
	done := a.post("/oauth/consent", with(fields(page.body), "decision", "allow")).header.Get("Location")
	if r := b.get(done); r.status != 400 || b.code(r) != "" {
		t.Errorf("answer of A in browser B: %d", r.status)
	}
	e.clock.advance(2 * time.Minute)
	if r := a.get(done); r.status != 400 {
		t.Errorf("answer used two minutes later: %d", r.status)
	}
}
