// Package upstream signs people in who have a login at another OpenID Connect
// provider: this server is a client there (OpenID Connect Core, 3.1).
//
// It owns the way to the provider and back, and what of the provider's ID token
// is believed. It does not own which user somebody is here (users), nor the
// session that begins (signin).
//
//	u, err := upstream.New(config)
//	mux.Handle("/oauth/upstream", pages.Handler(u.Start, timeout, http.MethodGet))
//	mux.Handle("/oauth/upstream/callback", pages.Handler(u.Callback, timeout, http.MethodGet))
package upstream

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/session"
	"github.com/gatehouse/gatehouse/authserver/signin"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// ACR is the `acr` of a session that began at another provider.
const ACR = "urn:gatehouse:acr:upstream"

// Provider is another provider, and what this server is there.
type Provider struct {
	// Name is in URLs and identities; Title is what people read.
	Name, Title            string
	Issuer                 string
	ClientID, ClientSecret string
	// Scopes are asked for besides openid.
	Scopes []string
	// LinkByEmail makes a person with a verified address the user of our own
	// who has it.
	LinkByEmail bool
	// GroupsClaim has a person's groups; Roles are those of their members.
	GroupsClaim string
	Roles       map[string][]string
}

// Once is replay protection (store.Store).
type Once interface {
	Once(ctx context.Context, key string, expires time.Time) (fresh bool, err error)
}

// Config is what an Endpoint needs.
type Config struct {
	// Issuer and Path are those of this server.
	Issuer, Path string
	Providers    []Provider
	Sessions     *session.Manager
	Users        *users.Registry
	SignIn       *signin.SignIn
	Once         Once
	Audit        *audit.Log
	Now          func() time.Time
	// Client reaches the providers; nil: one with a time limit.
	Client *http.Client
}

// Endpoint is both ends of the way. It is safe for concurrent use.
type Endpoint struct {
	Config
	known map[string]*provider
}

// provider is a Provider with what was discovered about it.
type provider struct {
	Provider
	mu     sync.Mutex
	oidc   *oidc.Provider
	asked  time.Time
	issues bool // it says iss in its answers (RFC 9207)
}

// New returns the endpoints. Providers are asked when somebody comes.
func New(c Config) *Endpoint {
	if c.Client == nil {
		c.Client = &http.Client{Timeout: 4 * time.Second}
	}
	e := &Endpoint{Config: c, known: map[string]*provider{}}
	for _, p := range c.Providers {
		e.known[p.Name] = &provider{Provider: p}
	}
	return e
}

const (
	// wayLife is how long somebody may take at the provider.
	wayLife = 15 * time.Minute
	purpose = "upstream sign-in"
	// leeway is how far the provider's clock may be away.
	leeway = 30 * time.Second
	// retry is how long a provider that did not answer is left alone.
	retry = 2 * time.Second
)

// way is one sign-in on its way. It travels as the state parameter, sealed for
// the browser that set out.
type way struct {
	Provider    string `json:"p"`
	Interaction string `json:"i"`
	Nonce       string `json:"n"`
	Verifier    string `json:"v"`
	ID          string `json:"d"`
	// MaxAge is how old the sign-in there may be, in seconds; absent: as old as
	// the provider lets it be.
	MaxAge *int64 `json:"m,omitempty"`
}

// again reads out of what brought somebody here how fresh the sign-in has to
// be: the provider has a session of its own, which our page does not end.
func again(i session.Interaction) (prompt string, maxAge *int64) {
	if i.Next != "" && i.Hint != "" { // the account page wants to know again who it is
		return "login", nil
	}
	form, err := web.ParseQuery(i.Query)
	if err != nil {
		return "", nil
	}
	for _, value := range strings.Fields(form.Value("prompt")) {
		if value == "login" || value == "select_account" {
			prompt = value
		}
	}
	if seconds, err := strconv.ParseInt(form.Value("max_age"), 10, 32); err == nil && seconds >= 0 {
		maxAge = &seconds
	}
	return prompt, maxAge
}

// Start sends the browser to a provider.
func (e *Endpoint) Start(w http.ResponseWriter, r *http.Request) error {
	form, err := web.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	p, ok := e.known[form.Value("provider")]
	if !ok {
		return oauth.Refuse(oauth.InvalidRequest, "There is no such way to sign in.")
	}
	browser := e.Sessions.EnsureBrowser(w, r)
	var i session.Interaction
	if handle := form.Value("i"); handle != "" {
		if i, err = e.Sessions.Open(browser, handle); err != nil {
			return session.ErrOver
		}
	}
	config, _, err := e.discover(r.Context(), p)
	if err != nil {
		return oauth.Unavailable(err)
	}
	out := way{Provider: p.Name, Interaction: form.Value("i"), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), ID: rand.Text()}
	options := []oauth2.AuthCodeOption{oidc.Nonce(out.Nonce), oauth2.S256ChallengeOption(out.Verifier)}
	prompt, maxAge := again(i)
	if prompt != "" {
		options = append(options, oauth2.SetAuthURLParam("prompt", prompt))
	}
	if out.MaxAge = maxAge; maxAge != nil {
		options = append(options, oauth2.SetAuthURLParam("max_age", strconv.FormatInt(*maxAge, 10)))
	}
	state, err := e.Sessions.SealValue(purpose, browser, wayLife, out)
	if err != nil {
		return oauth.Failed(err)
	}
	web.Redirect(w, config.AuthCodeURL(state, options...))
	return nil
}

// discover returns what is known about a provider, and asks it the first time.
func (e *Endpoint) discover(ctx context.Context, p *provider) (*oauth2.Config, *oidc.Provider, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.oidc == nil {
		if e.Now().Sub(p.asked) < retry {
			return nil, nil, fmt.Errorf("the provider %s did not answer a moment ago", p.Name)
		}
		p.asked = e.Now()
		// Its keys are fetched later, when this request is over.
		found, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), e.Client), p.Issuer)
		if err != nil {
			return nil, nil, fmt.Errorf("discover the provider %s: %w", p.Name, err)
		}
		var says struct {
			Issues bool `json:"authorization_response_iss_parameter_supported"`
		}
		if err := found.Claims(&says); err != nil {
			return nil, nil, fmt.Errorf("discover the provider %s: %w", p.Name, err)
		}
		p.oidc, p.issues = found, says.Issues
	}
	return &oauth2.Config{
		ClientID: p.ClientID, ClientSecret: p.ClientSecret, Endpoint: p.oidc.Endpoint(),
		RedirectURL: e.Issuer + "/oauth/upstream/callback", Scopes: append([]string{oidc.ScopeOpenID}, p.Scopes...),
	}, p.oidc, nil
}

// Callback takes what the provider sent with the browser.
func (e *Endpoint) Callback(w http.ResponseWriter, r *http.Request) error {
	// 1. Is it the answer to something that this browser asked?
	form, err := web.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	var out way
	if err := e.Sessions.OpenValue(purpose, e.Sessions.Browser(r), form.Value("state"), &out); err != nil {
		return session.ErrOver
	}
	p, ok := e.known[out.Provider]
	if !ok {
		return session.ErrOver
	}
	ctx := r.Context()
	id := sha256.Sum256([]byte(out.ID))
	fresh, err := e.Once.Once(ctx, "upstream:"+hex.EncodeToString(id[:]), e.Now().Add(wayLife+time.Minute))
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("use the state once: %w", err))
	}
	if !fresh {
		return e.refused(r, p, "replayed state")
	}
	config, discovered, err := e.discover(ctx, p)
	if err != nil {
		return oauth.Unavailable(err)
	}
	// 2. Is it the answer of the provider that was asked (RFC 9207, 2.4)?
	if iss := form.Value("iss"); iss != p.Issuer && (iss != "" || p.issues) {
		return e.refused(r, p, "another issuer")
	}
	if form.Value("error") != "" || form.Value("code") == "" {
		return e.refused(r, p, "refused by the provider")
	}
	// 3. Who is it?
	person, err := e.person(ctx, p, config, discovered, form.Value("code"), out)
	var wrong *wrongError
	if errors.As(err, &wrong) {
		return e.refused(r, p, wrong.reason)
	}
	if err != nil {
		return oauth.Unavailable(err)
	}
	u, err := e.Users.SignIn(ctx, person, p.LinkByEmail)
	if errors.Is(err, store.ErrNotFound) {
		return e.refused(r, p, "disabled")
	}
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("sign in who comes from %s: %w", p.Name, err))
	}
	return e.finish(w, r, out.Interaction, u)
}

func (e *Endpoint) finish(w http.ResponseWriter, r *http.Request, handle string, u store.User) error {
	var i session.Interaction
	if handle != "" {
		var err error
		if i, err = e.Sessions.Open(e.Sessions.Browser(r), handle); err != nil {
			return session.ErrOver
		}
	}
	second, err := e.SignIn.NeedsSecond(r.Context(), u.Subject)
	if err != nil {
		return err
	}
	if second {
		i.Half = u.Subject
		if handle, err = e.Sessions.Seal(e.Sessions.Browser(r), i); err != nil {
			return oauth.Failed(err)
		}
		web.Redirect(w, e.Path+"/oauth/factor?i="+handle)
		return nil
	}
	target, err := e.SignIn.Finish(w, r, i, handle, u, ACR)
	if err != nil {
		return err
	}
	web.Redirect(w, target)
	return nil
}

// wrongError says that an answer proves nothing.
type wrongError struct {
	reason string
	err    error
}

func (w *wrongError) Error() string { return w.reason }
func (w *wrongError) Unwrap() error { return w.err }

// person redeems the code and reads who the ID token is about (OpenID Connect
// Core, 3.1.3.7).
func (e *Endpoint) person(ctx context.Context, p *provider, config *oauth2.Config, discovered *oidc.Provider, code string, out way) (users.Person, error) {
	ctx = oidc.ClientContext(ctx, e.Client)
	var person users.Person
	answer, err := config.Exchange(ctx, code, oauth2.VerifierOption(out.Verifier))
	var refusal *oauth2.RetrieveError
	if errors.As(err, &refusal) && refusal.Response.StatusCode < http.StatusInternalServerError {
		return person, &wrongError{"the code is not good", err}
	}
	if err != nil {
		return person, fmt.Errorf("redeem the code at %s: %w", p.Name, plain(err))
	}
	raw, _ := answer.Extra("id_token").(string)
	verifier := discovered.VerifierContext(ctx, &oidc.Config{
		ClientID: p.ClientID, Now: e.Now, SupportedSigningAlgs: []string{oidc.RS256, oidc.PS256, oidc.ES256, oidc.EdDSA},
	})
	token, err := verifier.Verify(ctx, raw)
	if err != nil {
		return person, &wrongError{"the ID token is not good", err}
	}
	if token.Nonce != out.Nonce {
		return person, &wrongError{"another nonce", nil}
	}
	var claims struct {
		Name     string `json:"name"`
		Username string `json:"preferred_username"`
		Email    string `json:"email"`
		Verified any    `json:"email_verified"`
		Party    string `json:"azp"`
		AuthTime int64  `json:"auth_time"`
	}
	all := map[string]any{}
	if err := errors.Join(token.Claims(&claims), token.Claims(&all)); err != nil {
		return person, &wrongError{"claims that are none", err}
	}
	if out.MaxAge != nil && e.Now().Sub(time.Unix(claims.AuthTime, 0)) > time.Duration(*out.MaxAge)*time.Second+leeway {
		return person, &wrongError{"an older sign-in than was asked for", nil} // OpenID Connect Core, 3.1.3.7 (13)
	}
	if claims.Name == "" && claims.Username == "" && claims.Email == "" && discovered.UserInfoEndpoint() != "" {
		// Providers may tell these to who asks only (OpenID Connect Core, 5.4).
		info, err := discovered.UserInfo(ctx, oauth2.StaticTokenSource(answer))
		if err != nil {
			return person, fmt.Errorf("ask %s who it is: %w", p.Name, plain(err))
		}
		if info.Subject != token.Subject { // or it may be about somebody else (5.3.2)
			return person, &wrongError{"userinfo about another", nil}
		}
		if err := errors.Join(info.Claims(&claims), info.Claims(&all)); err != nil {
			return person, &wrongError{"claims that are none", err}
		}
	}
	if token.Subject == "" {
		return person, &wrongError{"nobody's ID token", nil}
	}
	if len(token.Audience) > 1 && claims.Party != p.ClientID {
		return person, &wrongError{"an ID token for several", nil}
	}
	person = users.Person{
		Provider: p.Name, ID: token.Subject, Name: claims.Username, Email: claims.Email, DisplayName: claims.Name,
		EmailVerified: claims.Verified == true || claims.Verified == "true", Groups: words(all[p.GroupsClaim]),
	}
	for _, g := range person.Groups {
		person.Roles = append(person.Roles, p.Roles[g]...)
	}
	slices.Sort(person.Roles)
	person.Roles = slices.Compact(person.Roles)
	return person, nil
}

// plain leaves out what an error of the library quotes of an answer.
func plain(err error) error {
	var refusal *oauth2.RetrieveError
	if errors.As(err, &refusal) {
		return fmt.Errorf("status %d", refusal.Response.StatusCode)
	}
	var address *url.Error
	if errors.As(err, &address) {
		return address.Err
	}
	return err
}

// words are the strings of a claim that is a list, or one string.
func words(claim any) (list []string) {
	switch claim := claim.(type) {
	case string:
		return []string{claim}
	case []any:
		for _, v := range claim {
			if s, ok := v.(string); ok {
				list = append(list, s)
			}
		}
	}
	return list
}

// refused records that somebody did not get in, and why; the page does not say.
func (e *Endpoint) refused(r *http.Request, p *provider, reason string) error {
	if err := e.Audit.Write(r.Context(), store.AuditEvent{
		Action: audit.LoginFailed, Outcome: audit.Failure, Actor: audit.Unknown, IP: web.ClientAddress(r), Reason: p.Name + ": " + reason,
	}); err != nil {
		return oauth.Unavailable(err)
	}
	return oauth.Refuse(oauth.AccessDenied, "The sign-in did not work. Try again.")
}
