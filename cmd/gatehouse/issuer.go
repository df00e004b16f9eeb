package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse/gatehouse/authserver"
	asadmin "github.com/gatehouse/gatehouse/authserver/admin"
	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/dpop"
	"github.com/gatehouse/gatehouse/authserver/fetch"
	"github.com/gatehouse/gatehouse/authserver/keys"
	"github.com/gatehouse/gatehouse/authserver/ldap"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/register"
	"github.com/gatehouse/gatehouse/authserver/revfeed"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/store/sqlstore"
	"github.com/gatehouse/gatehouse/authserver/tokens"
	"github.com/gatehouse/gatehouse/authserver/unusual"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/gateway/admin"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/auth"
	"github.com/gatehouse/gatehouse/routes"
)

// issuer is the built-in authorization server with its store, keys and the
// feed of revocations.
type issuer struct {
	url      string
	audience string
	nonces   *dpop.Nonces // nil: proofs need none
	host     string       // canonical, without port
	port     string
	patterns []string
	dev      bool

	store    *sqlstore.Store
	ring     *keys.Ring
	server   *authserver.Server
	denied   *auth.Denied
	redis    *revfeed.Redis  // nil: there is none
	people   *ldap.Directory // nil: likewise
	follower *revfeed.Follower
	relay    *revfeed.Relay // nil without Redis
}

func openIssuer(ctx context.Context, file *routes.File, dev bool, limits *limits, logger *slog.Logger, registry *prometheus.Registry) (i *issuer, err error) {
	a := file.AuthServer
	u, err := url.Parse(a.Issuer)
	if err != nil {
		return nil, err
	}
	i = &issuer{url: a.Issuer, audience: a.Audience, host: strings.ToLower(u.Hostname()), port: u.Port(), dev: dev}
	if i.audience == "" {
		i.audience = a.Issuer
	}
	if i.patterns, err = authserver.Patterns(a.Issuer); err != nil {
		return nil, err
	}
	i.patterns = append(i.patterns, wellKnownResource)
	opening, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if i.store, err = sqlstore.Open(opening, file.Store.Reveal(), sqlstore.Options{}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = i.store.Close()
		}
	}()
	ringConfig := keys.Config{
		Algorithm: a.Algorithm, Rotation: a.KeyRotation, TokenLife: a.AccessTokenTTL,
		OnError:  func(err error) { logger.Error("signing keys", "error", err) },
		OnChange: func(e store.AuditEvent) { audit.Line(ctx, auditLogger(logger), e) },
	}
	for _, text := range a.KeyEncryptionKey {
		kek, err := keys.ParseKek(text.Reveal())
		if err != nil {
			return nil, fmt.Errorf("%s: key_encryption_key: %w", a.Pos, err)
		}
		ringConfig.Keks = append(ringConfig.Keks, kek)
	}
	if i.ring, err = keys.Open(opening, i.store, ringConfig); err != nil {
		return nil, err
	}
	counters := newTokenMetrics(registry)
	grace := 10 * time.Second
	if a.RefreshToken.Grace != nil {
		grace = *a.RefreshToken.Grace
	}
	tokenLimits, err := limits.tokens(a.TokenLimits)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Pos, err)
	}
	var directory users.Directory
	if i.people, err = openDirectory(a.LDAP); err != nil {
		return nil, fmt.Errorf("%s: %w", a.Pos, err)
	} else if i.people != nil {
		directory = i.people
	}
	sender, err := openMail(a.SMTP)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Pos, err)
	}
	i.server, err = authserver.New(opening, authserver.Config{
		DirectoryRecheck: recheck(a.LDAP), DirectoryClosed: a.LDAP != nil && a.LDAP.OnFailure == "closed",
		Directory: directory, Mail: sender, Enrol: enrolment(a),
		Upstream:       upstreams(a),
		InteractionURL: a.Interaction.URL,
		Unusual: unusual.Policy{
			Refresh: unusual.Action(a.Unusual.Refresh), NewCountry: unusual.Action(a.Unusual.NewCountry), Failures: unusual.Action(a.Unusual.Failures),
		},
		RequirePAR: a.RequirePAR, DPoPNonce: a.RequireDPoPNonce, MutualTLS: mutualTLS(file), Limits: tokenLimits,
		Fetch:  fetch.New(fetch.Config{Networks: fetchNetworks(file, dev)}),
		Issuer: a.Issuer, Insecure: insecure(file), Audience: a.Audience, AccessTokenTTL: a.AccessTokenTTL, CodeTTL: a.CodeTTL, SessionTTL: a.SessionTTL,
		RefreshTTL: a.RefreshToken.TTL, RefreshIdle: a.RefreshToken.Idle, RefreshGrace: grace,
		Declared: declared(file), Store: i.store, Keys: i.ring, Revocations: i, AuditRetention: a.Audit.Retention,
		Logger: logger, Audit: auditLogger(logger), Observer: counters,
	})
	if err != nil {
		return nil, err
	}
	if a.RequireDPoPNonce {
		i.nonces = authserver.Nonces(i.ring)
	}
	i.denied = auth.NewDenied(a.Issuer)
	if err := i.openFeed(file, logger); err != nil {
		return nil, err
	}
	registerFeed(registry, i)
	return i, nil
}

// insecure tells whether an http issuer outside loopback was allowed.
func insecure(file *routes.File) bool {
	return slices.ContainsFunc(file.Listeners, func(l routes.Listener) bool { return l.Insecure })
}

// declared is the part of file that the authorization server follows.
func declared(file *routes.File) authserver.Declared {
	a := file.AuthServer
	d := authserver.Declared{Permissions: a.Permissions, Scopes: a.Scopes, Theme: a.Theme, Countries: a.Unusual.Countries}
	for _, c := range a.Clients {
		d.Clients = append(d.Clients, declaredClient(c))
	}
	if r := a.ClientRegistration; r != nil {
		d.Registration = &register.Policy{Open: r.Open, Scopes: r.Scopes, Grants: clients.GrantTypes(r.Grants)}
		for _, t := range r.Tokens {
			d.Registration.Tokens = append(d.Registration.Tokens, sha256.Sum256([]byte(t.Reveal())))
		}
	}
	for _, u := range a.Users {
		d.Users = append(d.Users, users.Declared{
			Name: u.Name, Password: u.Password.Reveal(), PasswordHash: u.PasswordHash.Reveal(),
			Email: u.Email, DisplayName: u.DisplayName, Roles: u.Roles,
		})
	}
	for _, r := range file.Routes {
		if r.Auth != nil && r.Auth.Audience != "" && !slices.Contains(d.Resources, r.Auth.Audience) {
			d.Resources = append(d.Resources, r.Auth.Audience)
		}
	}
	return d
}

func (i *issuer) reload(ctx context.Context, file *routes.File) error {
	return i.server.Reload(ctx, declared(file))
}

// owns reports whether a request is the authorization server's. Only the
// issuer's host answers as the issuer; in development the other names of
// loopback are sent on to it.
func (i *issuer) owns(host, path []byte) bool {
	for _, p := range i.patterns {
		if string(path) == p || p[len(p)-1] == '/' && len(path) >= len(p) && string(path[:len(p)]) == p {
			return string(host) == i.host || i.dev && loopbackName(string(host))
		}
	}
	return false
}

func loopbackName(host string) bool {
	return host == "localhost" || host == "127.0.0.1" || host == "::1" || host == "[::1]"
}

func (i *issuer) handler() http.Handler {
	next := i.server.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if i.dev && !strings.HasPrefix(i.url, "http://"+r.Host) {
			http.Redirect(w, r, i.url+r.URL.RequestURI(), http.StatusTemporaryRedirect)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// admin is the authorization server's part of the admin API.
func (i *issuer) admin() http.Handler {
	next := i.server.Admin()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(asadmin.WithActor(r.Context(), admin.Actor(r.Context()))))
	})
}

func (i *issuer) run(start func(string, func(context.Context) error)) {
	start("authorization server", i.server.Run)
	start("revocation feed", i.follower.Run)
	start("revocation wake-ups", func(ctx context.Context) error { return i.store.Listen(ctx, i.wake) })
	if i.relay != nil {
		start("revocation relay", i.relay.Run)
	}
	start("deny set", func(ctx context.Context) error { return i.denied.Run(ctx, time.Now) })
}

func (i *issuer) close() {
	if i.redis != nil {
		_ = i.redis.Close()
	}
	if i.people != nil {
		_ = i.people.Close()
	}
	_ = i.store.Close()
}

// openFeed makes the way of a revocation from the store's log to the edge.
func (i *issuer) openFeed(file *routes.File, logger *slog.Logger) (err error) {
	report := func(err error) { logger.Warn("revocation feed", "error", err) }
	if url := file.Redis.Reveal(); url != "" {
		if i.redis, err = revfeed.NewRedis(url); err != nil {
			return fmt.Errorf("redis: %w", err)
		}
		i.relay = revfeed.NewRelay(revfeed.RelayConfig{Log: i.store, Redis: i.redis, OnError: report})
	}
	i.follower = revfeed.NewFollower(revfeed.FollowerConfig{Log: i.store, Redis: i.redis, Apply: i.apply, OnError: report})
	i.store.OnRevoke(i.wake)
	return nil
}

// apply puts revocations into force: the edge refuses the tokens, and the
// server mints none that would be refused at once.
func (i *issuer) apply(entries []oauth.Revocation) {
	i.denied.Apply(entries)
	i.server.Noted(entries)
}

// Revoked implements introspect.View over what the edge goes by.
func (i *issuer) Revoked(t *tokens.Access) (revoked, current bool) {
	current = i.follower.Current() // before the look, so that it vouches for that
	return i.denied.Denies(&plugins.Principal{
		Issuer: i.url, ClientID: t.ClientID, Subject: t.Subject, Session: t.Session, Grant: t.Grant, TokenID: t.ID, Issued: t.Issued,
	}), current
}

// wake tells this process that the log has grown.
func (i *issuer) wake() {
	if i.relay != nil {
		i.relay.Wake()
	}
	i.follower.Wake()
}

// tokenMetrics implements authserver.Observer.
type tokenMetrics struct {
	issued, errors, logins, mails, unusual *prometheus.CounterVec
	reuse                                  prometheus.Counter
}

func newTokenMetrics(r *prometheus.Registry) *tokenMetrics {
	m := &tokenMetrics{
		issued:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "authserver_tokens_issued_total", Help: "Access tokens issued, by grant and client authentication."}, []string{"grant", "client_auth"}),
		errors:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "authserver_token_errors_total", Help: "Refusals of the token endpoint, by error."}, []string{"error"}),
		logins:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "authserver_logins_total", Help: "Sign-ins, by result."}, []string{"result"}),
		mails:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "authserver_mails_total", Help: "Mails, by result: sent, failed (given up), retried, dropped (not queued)."}, []string{"result"}),
		reuse:   prometheus.NewCounter(prometheus.CounterOpts{Name: "authserver_refresh_reuse_total", Help: "Refresh token families revoked because a spent token came back."}),
		unusual: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "authserver_unusual_total", Help: "Unusual behaviour that was noticed, by kind."}, []string{"kind"}),
	}
	r.MustRegister(m.issued, m.errors, m.logins, m.mails, m.reuse, m.unusual)
	// A series that is there from the start lets the first event be seen as a
	// rate.
	for _, result := range []string{"success", "failure", "throttled", "busy"} {
		m.logins.WithLabelValues(result)
	}
	for _, result := range []string{"sent", "failed", "retried", "dropped"} {
		m.mails.WithLabelValues(result)
	}
	for _, kind := range []string{"refresh", "new_country", "failures"} {
		m.unusual.WithLabelValues(kind)
	}
	return m
}

func (m *tokenMetrics) TokenIssued(grant, clientAuth string) {
	m.issued.WithLabelValues(grant, clientAuth).Inc()
}
func (m *tokenMetrics) TokenError(code string) { m.errors.WithLabelValues(code).Inc() }
func (m *tokenMetrics) Login(result string)    { m.logins.WithLabelValues(result).Inc() }
func (m *tokenMetrics) RefreshReuse()          { m.reuse.Inc() }
func (m *tokenMetrics) Unusual(kind string)    { m.unusual.WithLabelValues(kind).Inc() }
func (m *tokenMetrics) Mail(result string)     { m.mails.WithLabelValues(result).Inc() }
