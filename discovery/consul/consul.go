// Package consul finds the instances of services in Consul: those whose checks
// all pass, by one blocking query per service.
//
// It owns when an answer of Consul may be believed; it does not own what
// becomes of the last good set (discovery.Cache). Each watched service holds
// one connection to the agent, whose limits.http_max_conns_per_client is 200
// unless raised: above about 150 services, raise it. The token needs
// service_prefix "" and node_prefix "" with policy read.
//
//	src, err := consul.New(consul.Config{Address: "http://127.0.0.1:8500"})
//	cache := discovery.NewCache(src)
package consul

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/gatehouse/gatehouse/discovery"
)

// Config says which Consul is asked and how.
type Config struct {
	// Address is http://host:port, https://host:port or host:port of an
	// agent, the local one by preference, with a path where one is before it.
	Address string
	// Token is the ACL token; empty: none is sent. Consul tells only who has
	// one that ACLs hide instances: where ACLs are on, use a token.
	Token string
	// TokenFile holds the token instead. It is read at New, and again
	// whenever Consul answers 403.
	TokenFile string
	// TLS is for https; certificates are always verified.
	TLS TLS
	// HTTPClient replaces the client built from TLS.
	HTTPClient *http.Client
	// Report, when not nil, is told of each failed or refused answer and of
	// each instance that is left out. It must not block.
	Report func(q discovery.Query, err error)
	// Now and Rand replace time.Now and rand.Float64.
	Now  func() time.Time
	Rand func() float64
}

// TLS names files in PEM.
type TLS struct {
	CAFile     string // absent: the system's
	CertFile   string // of ours, with KeyFile
	KeyFile    string
	ServerName string // absent: the host of the address
}

// Counters are what a Source has seen since it began. They only grow.
type Counters struct {
	Answers     atomic.Int64 // sets applied, confirmations included
	Errors      atomic.Int64 // failed requests
	Refused     atomic.Int64 // answers not believed: no leader, too stale, filtered
	ACLFiltered atomic.Int64 // answers that lack what the token may not see
	IndexResets atomic.Int64 // the index went backwards: Consul lost its state
	Dropped     atomic.Int64 // unusable instances left out of a set
}

// Source is a discovery.Source. Its endpoints are named node/service-id. It is safe for concurrent use.
type Source struct {
	health   *api.Health
	report   func(discovery.Query, error)
	now      func() time.Time
	rand     func() float64
	watching atomic.Int64
	counters Counters
}

// New checks the configuration; it does not ask Consul. The environment
// variables that Consul's own tools obey (CONSUL_HTTP_ADDR, _TOKEN, _SSL_VERIFY
// and so on) change neither address nor token nor the verification of
// certificates.
func New(c Config) (*Source, error) {
	base, err := parseAddress(c.Address)
	if err != nil {
		return nil, err
	}
	client := http.Client{}
	if c.HTTPClient != nil {
		client = *c.HTTPClient
	}
	if client.Transport == nil {
		if client.Transport, err = newTransport(c.TLS); err != nil {
			return nil, err
		}
	}
	tokens, err := newTokens(c.Token, c.TokenFile)
	if err != nil {
		return nil, err
	}
	client.Transport = &roundTripper{next: client.Transport, tokens: tokens}
	ac, err := api.NewClient(&api.Config{
		Address: base.Host, Scheme: base.Scheme, PathPrefix: strings.TrimSuffix(base.Path, "/"), HttpClient: &client,
		// The header is the roundTripper's; this only outranks the environment.
		Token: "unused",
	})
	if err != nil {
		return nil, fmt.Errorf("consul client: %w", err)
	}
	s := &Source{health: ac.Health(), report: c.Report, now: c.Now, rand: c.Rand}
	if s.report == nil {
		s.report = func(discovery.Query, error) {}
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.rand == nil {
		s.rand = rand.Float64
	}
	return s, nil
}

// Counters returns the live counters.
func (s *Source) Counters() *Counters { return &s.counters }

func parseAddress(address string) (*url.URL, error) {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		// url.Error quotes the address, which may hold a password.
		return nil, errors.New("consul address: not a URL such as http://127.0.0.1:8500")
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		// What may be a secret in it is not repeated.
		return nil, fmt.Errorf("consul address %q: want http://host:port or https://host:port", u.Scheme+"://"+u.Host)
	}
	return u, nil
}

func newTransport(t TLS) (*http.Transport, error) {
	conf, err := api.SetupTLSConfig(&api.TLSConfig{
		Address: t.ServerName, CAFile: t.CAFile, CertFile: t.CertFile, KeyFile: t.KeyFile,
	})
	if err != nil {
		return nil, fmt.Errorf("consul tls: %w", err)
	}
	// A dead agent is noticed within 11 s even while nothing is expected of it.
	dialer := net.Dialer{Timeout: 2 * time.Second, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}}
	return &http.Transport{
		DialContext:         dialer.DialContext,
		TLSClientConfig:     conf,
		TLSHandshakeTimeout: 2 * time.Second,
		// One connection per blocked watcher; they must not be redialled.
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     90 * time.Second,
	}, nil
}
