package authserver

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/enrol"
	"github.com/gatehouse/gatehouse/authserver/fetch"
	"github.com/gatehouse/gatehouse/authserver/grants"
	"github.com/gatehouse/gatehouse/authserver/introspect"
	"github.com/gatehouse/gatehouse/authserver/login"
	"github.com/gatehouse/gatehouse/authserver/mail"
	"github.com/gatehouse/gatehouse/authserver/register"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/unusual"
	"github.com/gatehouse/gatehouse/authserver/upstream"
	"github.com/gatehouse/gatehouse/authserver/users"
)

// Config is what a Server needs. Zero durations are the defaults named, but
// for RefreshGrace.
type Config struct {
	// Issuer is the https URL that tokens name, with or without a path and
	// never with a slash at its end. http is accepted on loopback, where
	// cookies then have plain names; elsewhere only with Insecure.
	Issuer   string
	Insecure bool
	// Audience is the `aud` of tokens whose request names no resource;
	// default: the issuer.
	Audience string

	AccessTokenTTL time.Duration // 15m, 1m…60m
	CodeTTL        time.Duration // 60s, at most that
	SessionTTL     time.Duration // 12h
	RefreshTTL     time.Duration // 720h, absolute
	RefreshIdle    time.Duration // 168h
	// RefreshGrace is how long the last spent refresh token is answered with
	// the same successor; zero means not at all. At most 60s.
	RefreshGrace time.Duration
	// KeysMaxAge is how long the key set may be cached; the key ring publishes
	// a new key at least as long before it signs. 5m
	KeysMaxAge time.Duration
	// AuditRetention is how long audit events are kept; zero: for ever.
	AuditRetention time.Duration

	// RequirePAR refuses authorization requests that were not pushed.
	RequirePAR bool
	// DPoPNonce demands a nonce of ours in every DPoP proof.
	DPoPNonce bool
	// MutualTLS tells that some listener verifies client certificates: without
	// one the methods that need them are not advertised.
	MutualTLS bool
	// Limits bound the requests to the token endpoint.
	Limits grants.Limits
	// Fetch reaches what clients publish and where they want to be told; nil:
	// https on public addresses.
	Fetch *fetch.Fetcher

	// Upstream are other providers with which people may sign in.
	Upstream []upstream.Provider
	// Directory knows passwords of people elsewhere; nil: there is none.
	Directory users.Directory
	// DirectoryRecheck is how long it is believed about people that they are
	// still there; zero: until they sign in again. DirectoryClosed lets none of
	// them go on while it does not answer.
	DirectoryRecheck time.Duration
	DirectoryClosed  bool

	// InteractionURL is the operator's page that stands in for ours and uses the
	// interaction API; empty: ours are shown.
	InteractionURL string
	// Mail sends letters; nil: nobody does, and what needs them is off. Enrol is
	// what people may do by them.
	Mail  mail.Sender
	Enrol enrol.Policy

	// Unusual says what follows unusual behaviour.
	Unusual unusual.Policy

	Declared Declared
	Store    store.Store
	Keys     Keys
	// Revocations is the store's revocation log as this process follows it; nil:
	// introspection asks the store about every token.
	Revocations introspect.View
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Logger takes what goes wrong, Audit one line for each event.
	Logger, Audit *slog.Logger
	// Observer counts; nil: nobody does.
	Observer Observer
}

// Declared is the part of the configuration that follows every reload.
type Declared struct {
	Clients []Client
	Users   []users.Declared
	// Scopes are names with descriptions.
	Scopes map[string]string
	// Registration is what is allowed to clients that register themselves; nil:
	// they cannot.
	Registration *register.Policy
	// Resources are the audiences, besides Config.Audience, that tokens may be
	// for: those that routes ask for.
	Resources []string
	// Theme is a folder with templates, styles and texts that go before the
	// built-in ones; empty: none does.
	Theme string
	// Permissions are those that each role has.
	Permissions map[string][]string
	// Countries is a file that says in which country networks are; empty: nobody
	// says it.
	Countries string
}

// Client is a declared client. An empty Secret makes it a public one, unless
// its settings name another method.
type Client struct {
	ID, Name, Secret       string
	Grants, Scopes         []string
	RedirectURIs           []string
	PostLogoutRedirectURIs []string
	SkipConsent            bool
	store.ClientSettings
}

func (c Client) stored() (store.Client, error) {
	s := store.Client{
		ID: c.ID, Name: c.Name, Grants: clients.GrantTypes(c.Grants), Scopes: c.Scopes, RedirectURIs: c.RedirectURIs,
		PostLogoutRedirectURIs: c.PostLogoutRedirectURIs, SkipConsent: c.SkipConsent,
		ClientSettings: c.ClientSettings,
	}
	if c.Secret == "" {
		return s, nil
	}
	if len(c.Secret) < clients.MinSecret {
		return s, fmt.Errorf("client %q: the secret has %d bytes, at least %d are needed", c.ID, len(c.Secret), clients.MinSecret)
	}
	s.SecretHashes = []store.Digest{sha256.Sum256([]byte(c.Secret))}
	return s, nil
}

// Check reports everything that is wrong with the client by itself: whether
// its scopes and resources exist is known to the server only.
func (c Client) Check() error {
	s, err := c.stored()
	if err != nil {
		return err
	}
	return clients.Validate(s, func(string) bool { return true })
}

// Observer counts what the server does.
type Observer interface {
	// TokenIssued counts an access token by grant type and by how the client
	// authenticated.
	TokenIssued(grant, clientAuth string)
	// TokenError counts a refusal of the token endpoint by its code.
	TokenError(code string)
	// Login counts a sign-in: success, failure, throttled, busy.
	Login(result string)
	// RefreshReuse counts a family revoked because a spent token came back.
	RefreshReuse()
	// Unusual counts unusual behaviour: refresh, new_country, failures.
	Unusual(kind string)
	// Mail counts a letter: sent, failed (given up), retried, dropped (not
	// queued).
	Mail(result string)
}

// elsewhere are the ways to sign in that the login page offers besides.
func (c *Config) elsewhere() (list []login.Elsewhere) {
	for _, p := range c.Upstream {
		list = append(list, login.Elsewhere{Name: p.Name, Title: p.Title})
	}
	return list
}

type nobody struct{}

func (nobody) TokenIssued(string, string) {}
func (nobody) TokenError(string)          {}
func (nobody) Login(string)               {}
func (nobody) RefreshReuse()              {}
func (nobody) Unusual(string)             {}
func (nobody) Mail(string)                {}

// withDefaults returns the configuration complete, or everything that is
// wrong with it.
func (c Config) withDefaults() (Config, error) {
	var problems []error
	if err := CheckIssuer(c.Issuer, c.Insecure); err != nil {
		problems = append(problems, err)
	}
	if c.Audience == "" {
		c.Audience = c.Issuer
	}
	for _, d := range []struct {
		name            string
		value           *time.Duration
		otherwise       time.Duration
		lowest, highest time.Duration
	}{
		{"access_token_ttl", &c.AccessTokenTTL, 15 * time.Minute, time.Minute, time.Hour},
		{"code_ttl", &c.CodeTTL, time.Minute, time.Second, time.Minute},
		{"session_ttl", &c.SessionTTL, 12 * time.Hour, time.Minute, 400 * 24 * time.Hour},
		{"refresh_token.ttl", &c.RefreshTTL, 720 * time.Hour, time.Minute, 10 * 365 * 24 * time.Hour},
		{"refresh_token.idle", &c.RefreshIdle, 168 * time.Hour, time.Minute, 10 * 365 * 24 * time.Hour},
		{"refresh_token.grace", &c.RefreshGrace, 0, 0, time.Minute},
		{"email_verification.ttl", &c.Enrol.VerificationTTL, 24 * time.Hour, time.Hour, 7 * 24 * time.Hour},
		{"password_reset.ttl", &c.Enrol.ResetTTL, 20 * time.Minute, 15 * time.Minute, 30 * time.Minute},
		{"the key set's max-age", &c.KeysMaxAge, 5 * time.Minute, time.Second, 24 * time.Hour},
	} {
		if *d.value == 0 {
			*d.value = d.otherwise
		}
		if *d.value < d.lowest || *d.value > d.highest {
			problems = append(problems, fmt.Errorf("%s is %v, but must be from %v to %v", d.name, *d.value, d.lowest, d.highest))
		}
	}
	if c.Store == nil || c.Keys == nil || c.Logger == nil || c.Audit == nil {
		problems = append(problems, errors.New("a store, keys and two loggers are needed"))
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Fetch == nil {
		c.Fetch = fetch.New(fetch.Config{})
	}
	if c.Observer == nil {
		c.Observer = nobody{}
	}
	return c, errors.Join(problems...)
}

// CheckIssuer reports whether a URL can be an issuer. insecure allows http
// outside loopback.
func CheckIssuer(issuer string, insecure bool) error {
	u, err := url.Parse(issuer)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("issuer %q is not an https URL", issuer)
	case u.User != nil || strings.ContainsAny(issuer, "?#"):
		return fmt.Errorf("issuer %q must have no user, query or fragment (RFC 8414, 2)", issuer)
	case strings.HasSuffix(issuer, "/"):
		return fmt.Errorf("issuer %q must not end with a slash: clients compare it byte by byte", issuer)
	case u.Host != strings.ToLower(u.Host):
		return fmt.Errorf("issuer %q must have its host in lower case: clients compare it byte by byte", issuer)
	case u.EscapedPath() != u.Path || strings.Contains(u.Path, "//") || strings.Contains(u.Path+"/", "/./") ||
		strings.Contains(u.Path+"/", "/../") || strings.ContainsAny(u.Path, "{} "):
		return fmt.Errorf("issuer %q must have a plain path", issuer)
	case u.Scheme == "http" && !insecure && !loopback(u.Hostname()):
		return fmt.Errorf("issuer %q uses http outside loopback: passwords and codes would travel in the open", issuer)
	}
	return nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Patterns returns the paths that belong to an issuer on its host; one that
// ends with a slash stands for everything below it.
func Patterns(issuer string) ([]string, error) {
	p, err := places(issuer)
	if err != nil {
		return nil, err
	}
	return []string{p.OpenID(), p.OAuth(), p.Endpoints()}, nil
}
