package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/discovery"
	"github.com/gatehouse/gatehouse/discovery/consul"
	"github.com/gatehouse/gatehouse/discovery/static"
	"github.com/gatehouse/gatehouse/gateway"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/all"
	"github.com/gatehouse/gatehouse/plugins/auth"
	"github.com/gatehouse/gatehouse/plugins/breaker"
	"github.com/gatehouse/gatehouse/plugins/ratelimit"
	"github.com/gatehouse/gatehouse/plugins/retry"
	"github.com/gatehouse/gatehouse/routes"
)

// edge is the enforcing side: the plugins with what they need, and discovery.
type edge struct {
	plugins  []plugins.Plugin
	auth     *auth.Plugin
	verifier *auth.Verifier
	limits   *limits
	consul   *discovery.Cache // nil: no service is in Consul
	static   *discovery.Cache
}

// noKeys stands for keys that are not needed: nothing is verified with it.
type noKeys struct{}

func (noKeys) PublicKey(string) (crypto.PublicKey, string, string, bool) { return nil, "", "", false }
func (noKeys) Refresh(context.Context, string)                           {}
func (noKeys) Generation() uint64                                        { return 0 }

// newEdge builds the edge of file; i is nil in a process that enforces only.
func newEdge(file *routes.File, i *issuer, limits *limits, logger *slog.Logger, registry *prometheus.Registry) (*edge, error) {
	e := &edge{limits: limits, static: discovery.NewCache(static.New(static.Config{
		Report: func(q discovery.Query, err error) { logger.Warn("targets", "query", q.String(), "error", err) },
	}))}
	verify := auth.VerifierConfig{KeyError: func(issuer string, err error) {
		logger.Warn("keys of an issuer cannot be had", "issuer", issuer, "error", err)
	}}
	check := auth.Config{Realm: "gatehouse", ResourceMetadata: func(audience string) string { return challenged(file, audience) }}
	var signer auth.Signer
	ownIssuer := ""
	if i != nil {
		verify.Issuer, verify.Audience, verify.Keys = i.url, i.audience, i.ring
		check.Denied = i.denied
		check.Nonces = i.nonces
		signer, ownIssuer = i.ring, i.url
	}
	e.verifier = auth.NewVerifier(verify)
	check.Verifier = e.verifier
	check.Proofs = auth.NewProofs(nil)
	if limits.redis != nil {
		check.Proofs = auth.NewProofs(limits.redis)
	}
	e.auth = auth.New(check)
	breakers, retries := breaker.New(), retry.New(nil)
	e.plugins = all.All(all.Deps{
		Auth: e.auth, Identity: auth.NewIdentity(signer, ownIssuer),
		RateLimit: limits.limiter, Breaker: breakers, Retry: retries,
	})
	if file.Consul != nil {
		source, err := consul.New(consul.Config{
			Address: file.Consul.Address, Token: file.Consul.Token.Reveal(),
			Report: func(q discovery.Query, err error) { logger.Warn("consul", "query", q.String(), "error", err) },
		})
		if err != nil {
			return nil, fmt.Errorf("%s: consul: %w", file.Consul.Pos, err)
		}
		var options []discovery.Option
		if file.Consul.Snapshot != "" {
			options = append(options, discovery.WithSnapshot(file.Consul.Snapshot))
		}
		options = append(options, discovery.WithReport(func(err error) { logger.Warn("discovery snapshot", "error", err) }))
		e.consul = discovery.NewCache(source, options...)
		registerDiscovery(registry, e.consul, source.Counters())
	}
	registerLimiter(registry, limits.limiter)
	registerBreakers(registry, breakers)
	registerRetries(registry, retries)
	registerPlugins(registry, e.plugins)
	registerVerifier(registry, e.verifier)
	registerProofs(registry, check.Proofs)
	return e, nil
}

// discover implements gateway.Discover.
func (e *edge) discover(s *routes.Service, found func([]discovery.Endpoint)) (func(), error) {
	if s.Consul != nil {
		if e.consul == nil {
			return nil, errors.New("is in Consul, but there is no consul: section")
		}
		return e.consul.Acquire(discovery.Query{Service: s.Consul.Service, Tag: s.Consul.Tag}, found), nil
	}
	targets, err := static.Parse(s.Targets)
	if err != nil {
		return nil, err
	}
	return e.static.Acquire(targets.Query, found), nil
}

// check refuses what prepare could not do.
func (e *edge) check(file *routes.File) error {
	return e.verifier.CheckIssuers(file.Issuers)
}

// prepare makes the parts ready for file's routes, before they go live.
func (e *edge) prepare(file *routes.File) error {
	e.verifier.WantClaims(append(auth.ClaimsWanted(file.Routes), plugins.ClaimsRead(e.plugins, file.Routes)...))
	return e.verifier.SetIssuers(file.Issuers)
}

func (e *edge) run(start func(string, func(context.Context) error)) {
	start("token verifier", e.verifier.Run)
	start("rate limiter", e.limits.limiter.Run)
	start("targets", e.static.Run)
	if e.consul != nil {
		start("consul", e.consul.Run)
	}
}

func (e *edge) close() {
	for _, p := range e.plugins {
		if c, ok := p.(plugins.Closer); ok {
			c.Close()
		}
	}
	e.limits.close()
}

// checkFile is what `check` does beyond reading: it builds everything that
// `run` would, dials nothing, and runs the file's tests.
func checkFile(file *routes.File) error {
	verifier, err := offlineVerifier(file)
	if err != nil {
		return err
	}
	var signer auth.Signer
	if file.AuthServer != nil {
		signer = noSigner{}
	}
	gw := gateway.New(gateway.Config{
		Plugins: all.All(all.Deps{
			Auth: auth.New(auth.Config{Verifier: verifier}), Identity: auth.NewIdentity(signer, ""),
			RateLimit: ratelimit.New(ratelimit.Config{}), Breaker: breaker.New(), Retry: retry.New(nil),
		}),
		Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	return errors.Join(checkCertificates(file), checkClients(file), gw.Check(file), runTests(file), checkPeople(file))
}

// checkPeople tries the pages of the file's theme, and reads which countries
// networks are in.
func checkPeople(file *routes.File) error {
	if file.AuthServer == nil {
		return nil
	}
	if err := authserver.CheckFiles(file.AuthServer.Theme, file.AuthServer.Unusual.Countries); err != nil {
		return fmt.Errorf("%s: %w", file.AuthServer.Pos, err)
	}
	return nil
}

// noSigner stands for the keys of a server that is not running.
type noSigner struct{}

func (noSigner) Sign(string, string, any) (string, error) { return "", errors.New("offline") }
