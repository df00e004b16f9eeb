// Package authserver is the OAuth 2.1 and OpenID Connect authorization server:
// it puts the endpoints together and runs what goes on behind them.
//
// It owns the wiring, the list of endpoints, reload and health. What each
// endpoint does is in the package of its name; state is in store, keys in
// keys. It does not listen: the gateway gives it the requests for the issuer's
// paths, with the client's address in RemoteAddr.
//
//	s, err := authserver.New(ctx, authserver.Config{Issuer: "https://api.example.com", Store: st, Keys: ring, …})
//	go s.Run(ctx)
//	http.Handle("/", s.Handler())
package authserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/account"
	"github.com/gatehouse/gatehouse/authserver/admin"
	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/authorize"
	"github.com/gatehouse/gatehouse/authserver/backchannel"
	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/consent"
	"github.com/gatehouse/gatehouse/authserver/device"
	"github.com/gatehouse/gatehouse/authserver/dpop"
	"github.com/gatehouse/gatehouse/authserver/enrol"
	"github.com/gatehouse/gatehouse/authserver/factors"
	"github.com/gatehouse/gatehouse/authserver/grants"
	"github.com/gatehouse/gatehouse/authserver/headless"
	"github.com/gatehouse/gatehouse/authserver/introspect"
	"github.com/gatehouse/gatehouse/authserver/login"
	"github.com/gatehouse/gatehouse/authserver/logout"
	"github.com/gatehouse/gatehouse/authserver/mail"
	"github.com/gatehouse/gatehouse/authserver/metadata"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/register"
	"github.com/gatehouse/gatehouse/authserver/revocation"
	"github.com/gatehouse/gatehouse/authserver/revoke"
	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/sender"
	"github.com/gatehouse/gatehouse/authserver/session"
	"github.com/gatehouse/gatehouse/authserver/signin"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
	"github.com/gatehouse/gatehouse/authserver/unusual"
	"github.com/gatehouse/gatehouse/authserver/upstream"
	"github.com/gatehouse/gatehouse/authserver/userinfo"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/visitor"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Keys is the key ring.
type Keys interface {
	tokens.Keys
	metadata.JWKS
	admin.Rotator
	// Algorithm is that of new keys.
	Algorithm() string
	// Run follows the stored keys and rotates them until ctx ends.
	Run(ctx context.Context) error
}

const (
	// apiTimeout bounds a request of a program, with all that it waits for.
	apiTimeout = 2 * time.Second
	// pageTimeout is longer: passwords may have to queue for hashing.
	pageTimeout = 5 * time.Second
)

// Server is the authorization server. It is safe for concurrent use.
type Server struct {
	config   Config
	clients  *clients.Registry
	users    *users.Registry
	scopes   *scopes.Catalogue
	metadata *metadata.Endpoint
	gate     *tokens.Gate
	pages    *web.Pages
	audit    *audit.Log
	logouts  *backchannel.Notifier
	register *register.Endpoint
	unusual  *unusual.Watch
	post     *mail.Post // nil: there is no mail
	enrol    *enrol.Enrol
	health   health
	handler  http.Handler
	admin    http.Handler
}

// New builds a server. It reads the store, for what is declared must not be
// stored too, and starts nothing: see Run.
func New(ctx context.Context, c Config) (*Server, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	place, err := places(c.Issuer)
	if err != nil {
		return nil, err
	}
	pages, err := web.NewPages(place.Base, c.Logger)
	if err != nil {
		return nil, err
	}
	sessionConfig := session.Config{
		Store: c.Store, Now: c.Now, TTL: c.SessionTTL, Plain: strings.HasPrefix(c.Issuer, "http:"),
		Key: c.Keys.Derive("key:interaction", 0),
	}
	var front *headless.Front // nil: our pages are shown
	if c.InteractionURL != "" {
		if front, err = headless.New(headless.Config{Issuer: c.Issuer, Path: place.Base, URL: c.InteractionURL}); err != nil {
			return nil, err
		}
		sessionConfig.Once = c.Store
	}
	sessions, err := session.New(sessionConfig)
	if err != nil {
		return nil, err
	}
	s := &Server{
		config:  c,
		clients: clients.New(clients.Config{Store: c.Store, Once: c.Store, Issuer: c.Issuer, Fetch: c.Fetch, Now: c.Now}),
		users:   users.New(c.Store, users.NewThrottle(c.Store, c.Keys.Derive("key:throttle", 0), c.Now), c.Now),
		scopes:  scopes.New(c.Audience),
		pages:   pages,
		gate:    tokens.NewGate(c.Now),
		audit:   audit.New(c.Store, c.Audit, c.Now),
		metadata: metadata.New(metadata.Config{
			Issuer: c.Issuer, Algorithm: c.Keys.Algorithm(), Keys: c.Keys, KeysMaxAge: c.KeysMaxAge,
			RequirePAR: c.RequirePAR, MutualTLS: c.MutualTLS,
		}),
	}
	// From here on: what is changed through the store is not remembered.
	s.config.Store = s.clients.Store(c.Store)
	s.users.Use(c.Directory, func(e store.AuditEvent) { s.audit.Line(context.Background(), e) })
	second, err := newFactors(&c)
	if err != nil {
		return nil, err
	}
	if c.Mail != nil {
		s.post, err = mail.New(mail.Config{
			Store: c.Store, Sender: c.Mail, Key: c.Keys.Derive("key:mail", 0), Audit: s.audit, Observer: c.Observer, Logger: c.Logger, Now: c.Now,
		})
		if err != nil {
			return nil, err
		}
	}
	s.mount(place, pages, sessions, second, front)
	if err := s.Reload(ctx, c.Declared); err != nil {
		return nil, err
	}
	return s, nil
}

// mount is the one list of all endpoints.
func (s *Server) mount(place metadata.Places, pages *web.Pages, sessions *session.Manager, second *factors.Factors, front *headless.Front) {
	c := &s.config
	issuer := tokens.New(tokens.Config{
		Keys: c.Keys, Issuer: c.Issuer, TTL: c.AccessTokenTTL, Now: c.Now, Store: c.Store,
	})
	revoker := revocation.New(c.Store, issuer, s.gate, c.Now)
	s.users.LookAfter(users.Recheck{Every: c.DirectoryRecheck, Closed: c.DirectoryClosed, Gone: func(ctx context.Context, subject string) error {
		event := store.AuditEvent{Action: audit.UserGone, Outcome: audit.Success, Actor: audit.System, Subject: subject, Reason: c.Directory.Provider()}
		return s.audit.With(ctx, event, func(event store.AuditEvent) error {
			_, err := revoker.Revoke(ctx, oauth.LevelSubject, subject, event)
			return err
		})
	}})
	guard := &web.Guard{Key: c.Keys.Derive("key:csrf", 0), Origin: web.OriginOf(c.Issuer)}
	base := place.Base
	s.unusual = unusual.New(unusual.Config{
		Policy: c.Unusual, Counters: c.Store, Revoker: revoker, Audit: s.audit, Observer: c.Observer, Now: c.Now, TokenLife: c.AccessTokenTTL,
	})

	holder := &sender.Checker{Once: c.Store, Now: c.Now}
	if c.DPoPNonce {
		holder.Nonces = Nonces(c.Keys)
	}
	token := grants.New(grants.Config{
		Issuer: c.Issuer, Clients: s.clients, Users: s.users, Scopes: s.scopes, Tokens: issuer, Gate: s.gate,
		Sender: holder, Limits: c.Limits,
		Store: c.Store, Audit: s.audit, Observer: c.Observer, Available: s.health.err, Now: c.Now,
		RefreshTTL: c.RefreshTTL, RefreshIdle: c.RefreshIdle, Grace: c.RefreshGrace, Unusual: s.unusual,
	})
	revocations := revoke.New(revoke.Config{
		Clients: s.clients, Tokens: issuer, Store: c.Store, Revoker: revoker, Audit: s.audit, Now: c.Now,
	})
	introspection := introspect.New(introspect.Config{
		Issuer: c.Issuer, Clients: s.clients, Users: s.users, Scopes: s.scopes, Tokens: issuer, Store: c.Store,
		View: c.Revocations, Now: c.Now,
	})
	info := userinfo.New(userinfo.Config{Issuer: c.Issuer, Users: s.users, Scopes: s.scopes, Tokens: issuer, Sender: holder})
	authorization := authorize.New(authorize.Config{
		Issuer: c.Issuer, Path: base, Clients: s.clients, Users: s.users, Scopes: s.scopes, Sessions: sessions,
		Tokens: issuer, Store: c.Store, Audit: s.audit, Now: c.Now, CodeTTL: c.CodeTTL,
		Sender: holder, RequirePAR: c.RequirePAR,
	})
	steps := signin.New(signin.Config{
		Path: base, Sessions: sessions, Users: s.users, Factors: second, Revoker: revoker,
		Audit: s.audit, Observer: c.Observer, Unusual: s.unusual,
	})
	s.enrol = enrol.New(enrol.Config{
		Issuer: c.Issuer, Policy: c.Enrol, Post: s.post, Pages: pages, Users: s.users, Store: c.Store, Revoker: revoker,
		Throttle: users.NewThrottle(c.Store, c.Keys.Derive("key:mail-throttle", 0), c.Now), Audit: s.audit, Now: c.Now,
	})
	signIn := login.New(login.Config{
		Path: base, Pages: pages, Guard: guard, Sessions: sessions, Users: s.users, Factors: second, SignIn: steps, Elsewhere: c.elsewhere(),
		Reset: s.enrol.CanReset(), Signup: s.enrol.CanRegister(),
	})
	visitors := visitor.New(visitor.Config{Pages: pages, Guard: guard, Sessions: sessions, Enrol: s.enrol})
	others := upstream.New(upstream.Config{
		Issuer: c.Issuer, Path: base, Providers: c.Upstream, Sessions: sessions, Users: s.users, SignIn: steps,
		Once: c.Store, Audit: s.audit, Now: c.Now,
	})
	own := account.New(account.Config{
		Path: base, Pages: pages, Guard: guard, Sessions: sessions, Clients: s.clients, Users: s.users, Scopes: s.scopes,
		Factors: second, Revoker: revoker, Enrol: s.enrol, Store: c.Store, Audit: s.audit, Now: c.Now,
	})
	allow := consent.New(consent.Config{
		Path: base, Pages: pages, Guard: guard, Sessions: sessions, Users: s.users, Scopes: s.scopes,
		Store: c.Store, Audit: s.audit, Now: c.Now,
	})
	devices := device.New(device.Config{
		Issuer: c.Issuer, Path: base, Clients: s.clients, Users: s.users, Scopes: s.scopes, Sessions: sessions,
		Pages: pages, Guard: guard, Store: c.Store, Audit: s.audit, Now: c.Now, Key: c.Keys.Derive("key:usercode", 0),
	})
	s.register = register.New(register.Config{
		Issuer: c.Issuer, Store: c.Store, Revoker: revoker, Fetch: c.Fetch, Known: s.scopes.Known,
		Algorithm: c.Keys.Algorithm(), Audit: s.audit, Now: c.Now,
	})
	signOut := logout.New(logout.Config{
		Path: base, Pages: pages, Guard: guard, Sessions: sessions, Clients: s.clients, Tokens: issuer,
		Revoker: revoker, Audit: s.audit,
	})

	api := &web.API{Logger: c.Logger, Timeout: apiTimeout, Realm: c.Issuer}
	counted := &web.API{Logger: c.Logger, Timeout: apiTimeout, Realm: c.Issuer, Failed: c.Observer.TokenError}
	cors := &web.CORS{Known: s.clients.Origin}
	const get, head, post = http.MethodGet, http.MethodHead, http.MethodPost
	page := func(e web.Endpoint, methods ...string) http.Handler {
		h := pages.Handler(e, pageTimeout, methods...)
		if front != nil {
			h = front.Browser(h)
		}
		return h
	}
	mux := newRouter()
	for path, h := range map[string]http.Handler{
		place.OpenID(): cors.Handler(api.Handler(s.metadata.Document, get, head), "GET, HEAD"),
		place.OAuth():  cors.Handler(api.Handler(s.metadata.Document, get, head), "GET, HEAD"),

		base + "/oauth/jwks":       cors.Handler(api.Handler(s.metadata.KeySet, get, head), "GET, HEAD"),
		base + "/oauth/token":      cors.Handler(counted.Handler(token.Serve, post), "POST"),
		base + "/oauth/par":        cors.Handler(api.Handler(authorization.Push, post), "POST"),
		base + "/oauth/revoke":     cors.Handler(api.Handler(revocations.Serve, post), "POST"),
		base + "/oauth/introspect": api.Handler(introspection.Serve, post),
		base + "/oauth/userinfo":   cors.Handler(api.Handler(info.Serve, get, post), "GET, POST"),

		base + "/oauth/register":      cors.Handler(api.Handler(s.register.Create, post), "POST"),
		base + "/oauth/register/{id}": cors.Handler(api.Handler(s.register.Manage, get, http.MethodPut, http.MethodDelete), "GET, PUT, DELETE"),

		base + "/oauth/device_authorization": api.Handler(devices.Start, post),
		base + "/oauth/device":               page(devices.Page, get, post),

		base + "/oauth/authorize": page(authorization.Serve, get, post),
		base + "/oauth/login":     page(signIn.Serve, get, post),
		base + "/oauth/factor":    page(signIn.Factor, get, post),
		base + "/oauth/account":   page(own.Serve, get, post),
		base + "/oauth/account/":  page(own.Serve, get, post),
		base + "/oauth/consent":   page(allow.Serve, get, post),
		base + "/oauth/logout":    page(signOut.Serve, get, post),

		base + "/oauth/reset":      page(visitors.Forgot, get, post),
		base + "/oauth/reset/new":  page(visitors.Password, get, post),
		base + "/oauth/signup":     page(visitors.Signup, get, post),
		base + "/oauth/signup/new": page(visitors.Account, get, post),
		base + "/oauth/email":      page(visitors.Email, get, post),

		base + "/oauth/upstream":          page(others.Start, get),
		base + "/oauth/upstream/callback": page(others.Callback, get),

		base + "/oauth/static/": http.HandlerFunc(pages.Static),
	} {
		mux.Handle(path, h)
	}
	if front != nil {
		steps := &web.API{Logger: c.Logger, Timeout: pageTimeout, Realm: c.Issuer}
		for name, e := range map[string]web.Endpoint{
			"login": signIn.Serve, "factor": signIn.Factor, "consent": allow.Serve, "device": devices.Page,
			"account": own.Serve, "account/": own.Serve, "logout": signOut.Serve,
			"reset": visitors.Forgot, "reset/new": visitors.Password, "signup": visitors.Signup, "signup/new": visitors.Account,
			"email": visitors.Email,
		} {
			mux.Handle(base+"/oauth/interaction/"+name, front.CORS(steps.Handler(front.Step(e), get, post)))
		}
	}
	s.handler = mux
	s.logouts = backchannel.New(backchannel.Config{
		Store: c.Store, Clients: s.clients, Tokens: issuer, Post: c.Fetch, Audit: s.audit, Logger: c.Logger, Now: c.Now,
	})
	s.admin = admin.New(admin.Config{
		Store: c.Store, Clients: s.clients, Users: s.users, Scopes: s.scopes, Revoker: revoker, Enrol: s.enrol,
		Keys: c.Keys, Tokens: issuer, Audit: s.audit, Logger: c.Logger, Now: c.Now, Timeout: pageTimeout,
	})
}

// newFactors makes what people sign in with besides passwords. Passkeys belong
// to a domain name, so an issuer at an address has none.
func newFactors(c *Config) (*factors.Factors, error) {
	u, err := url.Parse(c.Issuer)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	domain := u.Hostname()
	if _, err := netip.ParseAddr(domain); err == nil {
		domain = ""
	}
	return factors.New(factors.Config{
		Store: c.Store, Now: c.Now, Key: c.Keys.Derive("key:totp", 0), Name: u.Hostname(), Domain: domain, Origin: web.OriginOf(c.Issuer),
	})
}

// Handler serves everything under the issuer's paths; see Patterns.
func (s *Server) Handler() http.Handler { return s.handler }

// Admin serves the authorization server's part of /api/v1/. Whoever mounts it
// has to know who asks: see admin.WithActor.
func (s *Server) Admin() http.Handler { return s.admin }

// Reload checks the declared clients, users, scopes and the theme together, and then puts
// all of them in place. On an error, which names every problem, nothing
// changed. It is for one goroutine at a time.
func (s *Server) Reload(ctx context.Context, d Declared) error {
	list, err := scopes.Prepare(d.Scopes, d.Resources)
	problems := []error{err}
	stored := make([]store.Client, 0, len(d.Clients))
	for _, c := range d.Clients {
		one, err := c.stored()
		if err != nil {
			problems = append(problems, err)
			continue
		}
		for _, r := range one.Resources {
			if r != s.config.Audience && !slices.Contains(d.Resources, r) {
				problems = append(problems, fmt.Errorf("client %q: resource %q is not the audience of any route", c.ID, r))
			}
		}
		stored = append(stored, one)
	}
	known, err := s.clients.Prepare(ctx, stored, list.Known)
	problems = append(problems, err)
	people, err := s.users.Prepare(ctx, d.Users)
	problems = append(problems, err)
	look, err := s.pages.Prepare(d.Theme, samples(), enrol.Letters()...)
	problems = append(problems, err, d.Registration.Check(list.Known))
	countries, err := lookup(d.Countries)
	problems = append(problems, err)
	if err := errors.Join(problems...); err != nil {
		return err
	}
	s.pages.Apply(look)
	s.unusual.Use(countries)
	s.scopes.Declare(list)
	s.clients.Declare(known)
	s.users.Declare(people)
	s.users.DeclarePermissions(d.Permissions)
	s.register.Declare(d.Registration)
	s.metadata.Advertise(s.scopes.Advertised(), d.Registration != nil)
	return nil
}

// lookup is that of a file of countries, nil where there is none.
func lookup(path string) (unusual.Lookup, error) {
	if path == "" {
		return nil, nil
	}
	t, err := unusual.ReadTable(path)
	if err != nil {
		return nil, err
	}
	return t.Country, nil
}

// Nonces are the nonces of DPoP proofs; those that replicas derive from the same
// keys are the same.
func Nonces(k tokens.Keys) *dpop.Nonces { return dpop.NewNonces(k.Derive("key:dpop-nonce", 0)) }

// Noted tells the server of revocations that came from other replicas, so that
// it mints no token that they cover, and looks again at clients of which they
// tell. It may be called with any entry, more
// than once and in any order.
func (s *Server) Noted(entries []oauth.Revocation) {
	s.gate.Note(entries)
	for _, r := range entries {
		if r.Level == oauth.LevelClient {
			s.clients.Forget(r.ID)
		}
	}
}

// Ready returns why tokens cannot be issued now; nil when they can.
func (s *Server) Ready() error { return s.health.err() }

func places(issuer string) (metadata.Places, error) {
	p, err := metadata.PlacesOf(issuer)
	if err != nil {
		return p, fmt.Errorf("issuer: %w", err)
	}
	return p, nil
}
