package e2e

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// browser follows links and fills in forms, with cookies and without scripts.
type browser struct {
	http *http.Client
	// password is typed into login pages, for user.
	user, password string
	// origin is what forms are sent from, where it is not the address that
	// they are sent to: a balancer stands before the gateways.
	origin string
}

func newBrowser(t testing.TB, user, password string) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{user: user, password: password, http: &http.Client{Jar: jar, Timeout: plainClient.Timeout, CheckRedirect: plainClient.CheckRedirect}}
}

// page is what the browser shows, or the redirect that it was sent.
type page struct {
	url    *url.URL
	status int
	to     *url.URL // of a redirect
	body   string
}

func (b *browser) do(t testing.TB, method string, target *url.URL, form url.Values) page {
	t.Helper()
	req, err := http.NewRequest(method, target.String(), strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", cmp.Or(b.origin, target.Scheme+"://"+target.Host))
	}
	resp, err := b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	p := page{url: target, status: resp.StatusCode, body: string(body)}
	if resp.StatusCode/100 == 3 {
		if p.to, err = target.Parse(resp.Header.Get("Location")); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

var (
	formTag     = regexp.MustCompile(`<form[^>]*\baction="([^"]*)"`)
	hiddenInput = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

// fields are the hidden ones of a page's forms.
func (p page) fields() url.Values {
	fields := url.Values{}
	for _, m := range hiddenInput.FindAllStringSubmatch(p.body, -1) {
		fields.Set(m[1], html.UnescapeString(m[2]))
	}
	return fields
}

// visit opens a URL, signs in and consents where it is asked to, and returns
// the first page that wants neither, or the redirect to a URL that begins with
// stop.
func (b *browser) visit(t testing.TB, link, stop string) page {
	t.Helper()
	target, err := url.Parse(link)
	if err != nil {
		t.Fatal(err)
	}
	p := b.do(t, http.MethodGet, target, nil)
	for range 20 {
		form := formTag.FindStringSubmatch(p.body)
		switch {
		case p.to != nil && stop != "" && strings.HasPrefix(p.to.String(), stop):
			return p
		case p.to != nil:
			p = b.do(t, http.MethodGet, p.to, nil)
		case form != nil && strings.Contains(form[1], "/oauth/login"), form != nil && strings.Contains(form[1], "/oauth/consent"):
			fields := p.fields()
			if strings.Contains(form[1], "/oauth/login") {
				fields.Set("username", b.user)
				fields.Set("password", b.password)
			} else {
				fields.Set("decision", "allow")
			}
			to, err := p.url.Parse(html.UnescapeString(form[1]))
			if err != nil {
				t.Fatal(err)
			}
			p = b.do(t, http.MethodPost, to, fields)
		default:
			return p
		}
	}
	t.Fatal("the login does not end")
	return p
}

// login signs alice in at the client web through the pages of a gateway.
func (c *cluster) login(t testing.TB, g *gateway, scope string) tokens {
	t.Helper()
	_, answered := c.loginAs(t, g, "alice", scope)
	return answered
}

// loginAs signs a user in on a new browser, which stays signed in.
func (c *cluster) loginAs(t testing.TB, g *gateway, user, scope string) (*browser, tokens) {
	t.Helper()
	verifier := rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(verifier))
	ask := url.Values{
		"client_id": {"web"}, "redirect_uri": {callback}, "response_type": {"code"}, "scope": {scope}, "state": {"s"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	b := newBrowser(t, user, password)
	b.origin = c.issuer
	p := b.visit(t, g.url+"/oauth/authorize?"+ask.Encode(), callback)
	if p.to == nil || p.to.Query().Get("code") == "" {
		t.Fatalf("no code: %d %v %s", p.status, p.to, p.body)
	}
	status, answered := g.tokenEndpoint(t, "web", webSecret, url.Values{
		"grant_type": {"authorization_code"}, "code": {p.to.Query().Get("code")}, "redirect_uri": {callback}, "code_verifier": {verifier},
	})
	if status != http.StatusOK || answered.Access == "" || answered.Refresh == "" {
		t.Fatalf("no tokens: %d %s", status, answered.Error)
	}
	return b, answered
}
