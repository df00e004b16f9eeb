package dev

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
)

// NewShop is a small web application as a client developer would write it: it
// lets a person log in with the authorization code flow and PKCE, and then
// calls the orders API on the same hostname with the token. It is served under
// /shop/ of origin, the gateway's URL, as the public client clientID.
func NewShop(origin, clientID string) http.Handler {
	s := &shop{
		origin: origin,
		oauth: oauth2.Config{
			ClientID:    clientID,
			RedirectURL: origin + "/shop/callback",
			Scopes:      []string{"openid", "profile", "read:orders"},
			Endpoint: oauth2.Endpoint{
				AuthURL: origin + "/oauth/authorize", TokenURL: origin + "/oauth/token",
				AuthStyle: oauth2.AuthStyleInParams,
			},
		},
		client:  &http.Client{Timeout: 5 * time.Second},
		started: map[string]login{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /shop/{$}", s.home)
	mux.HandleFunc("GET /shop/login", s.login)
	mux.HandleFunc("GET /shop/callback", s.callback)
	return mux
}

type shop struct {
	origin string
	oauth  oauth2.Config
	client *http.Client

	mu      sync.Mutex
	started map[string]login // by state
}

type login struct {
	verifier string
	at       time.Time
}

const (
	stateCookie = "shop_state"
	loginLife   = 10 * time.Minute
	maxLogins   = 1000
)

var shopPage = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Demo shop</title>
<h1>Demo shop</h1>
{{if .Answer}}<p>The orders API answered {{.Status}}:</p><pre>{{.Answer}}</pre>{{end}}
{{if .Problem}}<p role="alert">{{.Problem}}</p>{{end}}
<p><a href="/shop/login">Log in and show my order</a></p>
</html>
`))

type shopView struct{ Status, Answer, Problem string }

func (s *shop) render(w http.ResponseWriter, status int, v shopView) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	_ = shopPage.Execute(w, v)
}

func (s *shop) home(w http.ResponseWriter, _ *http.Request) {
	s.render(w, http.StatusOK, shopView{})
}

func (s *shop) login(w http.ResponseWriter, r *http.Request) {
	state, verifier := rand.Text(), oauth2.GenerateVerifier()
	s.mu.Lock()
	now := time.Now()
	for k, l := range s.started {
		if now.Sub(l.at) > loginLife {
			delete(s.started, k)
		}
	}
	full := len(s.started) >= maxLogins
	if !full {
		s.started[state] = login{verifier, now}
	}
	s.mu.Unlock()
	if full {
		s.render(w, http.StatusServiceUnavailable, shopView{Problem: "Too many logins at once."})
		return
	}
	http.SetCookie(w, &http.Cookie{Name: stateCookie, Value: state, Path: "/shop/", HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: int(loginLife.Seconds())})
	http.Redirect(w, r, s.oauth.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier)), http.StatusSeeOther)
}

func (s *shop) callback(w http.ResponseWriter, r *http.Request) {
	state := r.URL.Query().Get("state")
	cookie, err := r.Cookie(stateCookie)
	s.mu.Lock()
	l, known := s.started[state]
	delete(s.started, state)
	s.mu.Unlock()
	switch {
	case err != nil || cookie.Value != state || !known:
		s.render(w, http.StatusBadRequest, shopView{Problem: "This login was not started in this browser."})
		return
	case r.URL.Query().Get("iss") != s.origin:
		s.render(w, http.StatusBadRequest, shopView{Problem: "The answer is from another issuer."})
		return
	case r.URL.Query().Get("error") != "":
		s.render(w, http.StatusForbidden, shopView{Problem: "The login was refused: " + r.URL.Query().Get("error")})
		return
	}
	ctx := context.WithValue(r.Context(), oauth2.HTTPClient, s.client)
	token, err := s.oauth.Exchange(ctx, r.URL.Query().Get("code"), oauth2.VerifierOption(l.verifier))
	if err != nil {
		s.render(w, http.StatusBadGateway, shopView{Problem: "No token was issued."})
		return
	}
	status, answer, err := s.order(ctx, token)
	if err != nil {
		s.render(w, http.StatusBadGateway, shopView{Problem: "The orders API does not answer."})
		return
	}
	s.render(w, http.StatusOK, shopView{Status: status, Answer: answer})
}

// order calls the API as the person who logged in.
func (s *shop) order(ctx context.Context, token *oauth2.Token) (status, answer string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.origin+"/orders/1", nil)
	if err != nil {
		return "", "", err
	}
	token.SetAuthHeader(req)
	resp, err := s.client.Do(req)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return "", "", err
	}
	var pretty strings.Builder
	var v any
	if json.Unmarshal(content, &v) == nil {
		e := json.NewEncoder(&pretty)
		e.SetIndent("", "  ")
		_ = e.Encode(v)
	} else {
		pretty.Write(content)
	}
	return fmt.Sprint(resp.StatusCode), pretty.String(), nil
}
