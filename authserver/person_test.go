package authserver_test

import (
	"encoding/base64"
	"encoding/json"
	"html"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// request is the authorization request of the client web.
func request(pairs ...string) url.Values {
	return with(form("client_id", "web", "redirect_uri", callback, "response_type", "code",
		"scope", "openid profile read:orders", "state", "s-1", "nonce", "n-1",
		"code_challenge", challenge(verifier), "code_challenge_method", "S256"), pairs...)
}

// browser keeps cookies and follows redirects by hand.
type browser struct {
	e    *env
	http *http.Client
	// origin is sent with forms, as browsers do.
	origin string
}

func (e *env) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		e.t.Fatal(err)
	}
	return &browser{e: e, origin: e.config.Issuer, http: &http.Client{
		Jar:           jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (b *browser) get(target string) reply {
	b.e.t.Helper()
	req, err := http.NewRequest(http.MethodGet, b.abs(target), nil)
	if err != nil {
		b.e.t.Fatal(err)
	}
	return b.e.do(b.http, req)
}

func (b *browser) abs(target string) string {
	if strings.HasPrefix(target, "/") {
		return b.e.url + target
	}
	return target
}

func (b *browser) post(path string, f url.Values, header ...string) reply {
	b.e.t.Helper()
	req, err := http.NewRequest(http.MethodPost, b.abs(path), strings.NewReader(f.Encode()))
	if err != nil {
		b.e.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if b.origin != "" {
		req.Header.Set("Origin", b.origin)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return b.e.do(b.http, req)
}

var hidden = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)

// fields returns the hidden fields of a page's form.
func fields(page string) url.Values {
	f := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(page, -1) {
		f.Set(m[1], html.UnescapeString(m[2]))
	}
	return f
}

// run follows an authorization request through the pages to the redirect to
// the client or to an error page. It signs in as user and answers decision.
func (b *browser) run(f url.Values, user, decision string) reply {
	b.e.t.Helper()
	r := b.get("/oauth/authorize?" + f.Encode())
	for range 10 {
		switch {
		case r.status == http.StatusSeeOther:
			to := r.header.Get("Location")
			if !strings.HasPrefix(to, "/oauth/") {
				if code := b.code(r); code != "" {
					b.e.secret(code)
				}
				return r
			}
			r = b.get(to)
		case strings.Contains(r.body, `action="/oauth/login"`) && user != "":
			r = b.post("/oauth/login", with(fields(r.body), "username", user, "password", password))
			user = ""
		case strings.Contains(r.body, `action="/oauth/consent"`) && decision != "":
			r = b.post("/oauth/consent", with(fields(r.body), "decision", decision))
		default:
			return r
		}
	}
	b.e.t.Fatal("too many redirects")
	return r
}

// param returns a parameter of the redirect to the client.
func (b *browser) param(r reply, name string) string {
	u, err := url.Parse(r.header.Get("Location"))
	if err != nil {
		b.e.t.Fatal(err)
	}
	return u.Query().Get(name)
}

func (b *browser) code(r reply) string { return b.param(r, "code") }

// grant signs alice in at the client web and returns the token answer.
func (e *env) grant(pairs ...string) reply {
	e.t.Helper()
	return e.redeem(e.browser().mustCode(request(pairs...))).want(e.t, 200, "")
}

func (b *browser) mustCode(f url.Values) string {
	b.e.t.Helper()
	r := b.run(f, "alice", "allow")
	code := b.code(r)
	if code == "" {
		b.e.t.Fatalf("no code: %d %s %s", r.status, r.header.Get("Location"), r.body)
	}
	return code
}

func redemption(code string, pairs ...string) url.Values {
	return with(form("grant_type", "authorization_code", "code", code, "redirect_uri", callback, "code_verifier", verifier), pairs...)
}

func (e *env) redeem(code string, pairs ...string) reply {
	e.t.Helper()
	return e.token("web", webSecret, redemption(code, pairs...))
}

func (e *env) refresh(token string, pairs ...string) reply {
	e.t.Helper()
	return e.token("web", webSecret, with(form("grant_type", "refresh_token", "refresh_token", token), pairs...))
}

// claims decodes a JWT's part without verifying it: 0 is the header.
func claims(t testing.TB, token string, part int) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("not a JWT")
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[part])
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}
