package e2e

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// signingOutReachesTheOther ends a session at A, by each way that people and
// applications have, while a token of it is in use at B.
func signingOutReachesTheOther(t *testing.T, c *cluster) {
	for _, way := range []struct {
		name string
		end  func(t *testing.T, c *cluster, b *browser, signedIn tokens)
	}{
		{"an application signs the person out", func(t *testing.T, c *cluster, b *browser, signedIn tokens) {
			p := b.do(t, http.MethodGet, c.a.page(t, "/oauth/logout?id_token_hint="+signedIn.ID), nil)
			if p.status != http.StatusOK {
				t.Fatalf("logout: %d %s", p.status, p.body)
			}
		}},
		{"the person signs out", func(t *testing.T, c *cluster, b *browser, _ tokens) {
			c.a.fillIn(t, b, "/oauth/logout", http.StatusOK)
		}},
		{"the session is ended in the list of another browser", func(t *testing.T, c *cluster, b *browser, _ tokens) {
			other := newBrowser(t, b.user, b.password)
			other.origin = b.origin
			other.visit(t, c.a.url+"/oauth/account", "")
			c.a.fillIn(t, other, "/oauth/account", http.StatusSeeOther, "action", "end_others")
		}},
		{"the password changes", func(t *testing.T, c *cluster, b *browser, _ tokens) {
			next := rand.Text()
			c.a.fillIn(t, b, "/oauth/account/password", http.StatusSeeOther, "current", b.password, "new", next, "repeat", next)
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			promptly(t, "the last accepted use after the end", time.Second, func() time.Duration {
				user := "dora-" + rand.Text()
				c.a.administer(t, "POST", "/api/v1/users", map[string]string{"name": user, "password": password})
				b, signedIn := c.loginAs(t, c.a, user, "openid read:orders")
				c.b.call("GET", "/orders/1", signedIn.Access).want(t, 200, "")
				use := load{next: fixed("GET", "/orders/1", signedIn.Access), to: []*gateway{c.b}, callers: 1, pace: 2 * time.Millisecond}.start(t)
				way.end(t, c, b, signedIn)
				last := lastAccepted(t, use, time.Now())
				for _, g := range []*gateway{c.a, c.b} {
					g.call("GET", "/orders/1", signedIn.Access).want(t, 401, "token_revoked")
					status, answered := g.tokenEndpoint(t, "web", webSecret, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {signedIn.Refresh}})
					if status != 400 || answered.Error != "invalid_grant" {
						t.Errorf("refresh after the end: %d %s", status, answered.Error)
					}
				}
				return last
			})
		})
	}
}

// page is the URL of one.
func (g *gateway) page(t testing.TB, path string) *url.URL {
	t.Helper()
	u, err := url.Parse(g.url + path)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// fillIn opens a page of who is signed in, and sends its form with more values.
func (g *gateway) fillIn(t testing.TB, b *browser, path string, want int, more ...string) {
	t.Helper()
	p := b.do(t, http.MethodGet, g.page(t, path), nil)
	fields := p.fields()
	for i := 0; i < len(more); i += 2 {
		fields.Set(more[i], more[i+1])
	}
	if p = b.do(t, http.MethodPost, p.url, fields); p.status != want {
		t.Fatalf("%s: %d %s", path, p.status, p.body)
	}
}
