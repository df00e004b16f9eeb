package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

// Guard refuses forms that were not sent from our own pages: by a token that
// is bound to a cookie, and by what the browser says about the origin.
type Guard struct {
	// Key makes tokens unforgeable; shared by replicas.
	Key []byte
	// Origin is scheme://host[:port] of our pages.
	Origin string
}

// FieldCSRF is the form field that holds the token.
const FieldCSRF = "csrf"

// Token returns the token of the forms shown to the holder of a cookie.
func (g *Guard) Token(cookie string) string {
	mac := hmac.New(sha256.New, g.Key)
	mac.Write([]byte(cookie))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// Check refuses, with 403, a form that lacks the cookie's token or that comes
// from another origin. An empty cookie is never right.
func (g *Guard) Check(r *http.Request, f Form, cookie string) error {
	forbidden := &oauth.Error{Status: http.StatusForbidden, Code: oauth.AccessDenied, Description: "the form was not sent from this site"}
	if front := frontOf(r.Context()); front != nil && front.Vouched && cookie != "" {
		return nil
	}
	if cookie == "" || !hmac.Equal([]byte(f.Value(FieldCSRF)), []byte(g.Token(cookie))) {
		return forbidden
	}
	site := r.Header.Get("Sec-Fetch-Site")
	switch origin := r.Header.Get("Origin"); origin {
	case g.Origin:
		return nil
	case "null": // privacy settings hide the origin; the browser vouches in another field
		if site == "same-origin" {
			return nil
		}
	case "": // not a browser of the last years, or one that sends the other field
		if site == "" || site == "same-origin" {
			return nil
		}
	}
	return forbidden
}

// OriginOf is how browsers name the origin of a URL in the Origin field, which
// leaves the scheme's own port out; "" where it is no URL.
func OriginOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return ""
	}
	host := u.Host
	if p := u.Port(); u.Scheme == "https" && p == "443" || u.Scheme == "http" && p == "80" {
		host = strings.TrimSuffix(host, ":"+p)
	}
	return u.Scheme + "://" + host
}
