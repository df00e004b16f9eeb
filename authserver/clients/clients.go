// Package clients knows the OAuth clients: the declared ones of the
// configuration and the stored ones in one list, how a client proves who it
// is, and which redirect URIs are its own.
//
// It owns what a valid client is. It does not own what a client may do with a
// grant (grants, authorize), nor the pages about it (consent).
//
//	c, err := registry.Authenticate(r, form) // RFC 6749, 2.3
//	uri, ok := c.Redirect(form.Value("redirect_uri"))
package clients

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/authserver/fetch"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// Grant types that clients may have.
const (
	GrantCode              = "authorization_code"
	GrantRefresh           = "refresh_token"
	GrantClientCredentials = "client_credentials"
	// GrantDevice is of RFC 8628.
	GrantDevice = "urn:ietf:params:oauth:grant-type:device_code"
	// GrantExchange is of RFC 8693.
	GrantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
)

// GrantTypes are the grant types of names that may lack the beginning of a URN.
func GrantTypes(names []string) []string {
	list := make([]string, 0, len(names))
	for _, name := range names {
		if full := "urn:ietf:params:oauth:grant-type:" + name; slices.Contains(grantTypes, full) {
			name = full
		}
		list = append(list, name)
	}
	return list
}

// Client is a client as the endpoints see it. It is shared: never change it.
type Client struct {
	store.Client
	Declared bool
	// origins are those of its redirect URIs, for CORS.
	origins []string
}

// Public reports whether the client has nothing to prove who it is.
func (c *Client) Public() bool { return c.Method() == None }

// MayUse reports whether the grant type is in the client's list.
func (c *Client) MayUse(grant string) bool { return slices.Contains(c.Grants, grant) }

// MayAsk reports whether the scope is in the client's list.
func (c *Client) MayAsk(scope string) bool { return slices.Contains(c.Scopes, scope) }

// Title is the client's name for people.
func (c *Client) Title() string {
	if c.Name != "" {
		return c.Name
	}
	return c.ID
}

// Registry finds clients. It is safe for concurrent use.
type Registry struct {
	store     store.Clients
	once      Once
	issuer    string
	now       func() time.Time
	published keySets

	declared   atomic.Pointer[map[string]*Client]
	remembered remembered

	// stored holds the origins of stored clients as they were a moment ago: a
	// preflight must not cost a look through all clients.
	stored struct {
		sync.Mutex
		origins map[string]bool
		read    time.Time
	}
}

// originsAge is how long the origins of stored clients are trusted.
const originsAge = 5 * time.Second

// Once remembers what must not come twice; see store.Store.
type Once interface {
	Once(ctx context.Context, key string, expires time.Time) (fresh bool, err error)
}

// Config is what a Registry needs.
type Config struct {
	Store store.Clients
	Once  Once
	// Issuer is the audience of client assertions.
	Issuer string
	// Fetch gets the keys that clients publish.
	Fetch *fetch.Fetcher
	Now   func() time.Time
}

// New returns a registry without declared clients.
func New(c Config) *Registry {
	r := &Registry{
		store: c.Store, once: c.Once, issuer: c.Issuer, now: c.Now,
		published: keySets{fetch: c.Fetch, now: c.Now, sets: map[string]*fetchedSet{}},
	}
	r.declared.Store(&map[string]*Client{})
	return r
}

// Prepared is a checked set of declared clients.
type Prepared map[string]*Client

// Prepare checks declared clients against each other, the known scopes and
// the stored clients, and reports every problem at once. It changes nothing.
func (r *Registry) Prepare(ctx context.Context, declared []store.Client, scopes func(string) bool) (Prepared, error) {
	set := Prepared{}
	var problems []error
	for _, c := range declared {
		if _, twice := set[c.ID]; twice {
			problems = append(problems, fmt.Errorf("client %q is declared twice", c.ID))
			continue
		}
		if err := Validate(c, scopes); err != nil {
			problems = append(problems, fmt.Errorf("client %q: %w", c.ID, err))
			continue
		}
		set[c.ID] = wrap(c, true)
		switch _, err := r.store.Client(ctx, c.ID); {
		case err == nil:
			problems = append(problems, fmt.Errorf("client %q is declared in the configuration and stored too: remove one of them", c.ID))
		case !errors.Is(err, store.ErrNotFound):
			return nil, fmt.Errorf("look for a stored client %q: %w", c.ID, err)
		}
	}
	return set, errors.Join(problems...)
}

// Declare makes the prepared set the declared clients, at once for all.
func (r *Registry) Declare(p Prepared) {
	m := map[string]*Client(p)
	r.declared.Store(&m)
}

func wrap(c store.Client, declared bool) *Client {
	w := &Client{Client: c, Declared: declared}
	for _, u := range c.RedirectURIs {
		if o := origin(u); o != "" {
			w.origins = append(w.origins, o)
		}
	}
	return w
}

// Client returns an enabled client; store.ErrNotFound for any other. A stored
// one may be as it was a second ago, where another replica changed it.
func (r *Registry) Client(ctx context.Context, id string) (*Client, error) {
	if c, ok := (*r.declared.Load())[id]; ok {
		if c.Disabled {
			return nil, store.ErrNotFound
		}
		return c, nil
	}
	if !validID(id) {
		return nil, store.ErrNotFound
	}
	c, err := r.storedClient(ctx, id)
	if err != nil {
		return nil, err
	}
	if c.Disabled {
		return nil, store.ErrNotFound
	}
	return c, nil
}

// Declared returns the declared client of this id.
func (r *Registry) Declared(id string) (*Client, bool) {
	c, ok := (*r.declared.Load())[id]
	return c, ok
}

// All returns declared and stored clients, disabled ones too, by id.
func (r *Registry) All(ctx context.Context) ([]*Client, error) {
	stored, err := r.store.Clients(ctx)
	if err != nil {
		return nil, err
	}
	var all []*Client
	for _, c := range *r.declared.Load() {
		all = append(all, c)
	}
	for _, c := range stored {
		all = append(all, wrap(c, false))
	}
	slices.SortFunc(all, func(a, b *Client) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return all, nil
}

// Origin reports whether an origin is that of a client's redirect URI. Stored
// clients count from at most five seconds after they were stored.
func (r *Registry) Origin(ctx context.Context, origin string) bool {
	for _, c := range *r.declared.Load() {
		if slices.Contains(c.origins, origin) {
			return true
		}
	}
	r.stored.Lock()
	defer r.stored.Unlock()
	if now := r.now(); r.stored.origins == nil || now.Sub(r.stored.read) > originsAge {
		list, err := r.store.Clients(ctx)
		if err != nil {
			return r.stored.origins[origin] // what was known; without CORS fields at worst
		}
		r.stored.origins, r.stored.read = map[string]bool{}, now
		for _, c := range list {
			for _, o := range wrap(c, false).origins {
				r.stored.origins[o] = true
			}
		}
	}
	return r.stored.origins[origin]
}

// NewSecret returns a secret of 256 random bits and the digest to store.
func NewSecret() (secret string, hash store.Digest) {
	var b [32]byte
	rand.Read(b[:]) // never fails
	secret = "ghs_" + base64.RawURLEncoding.EncodeToString(b[:])
	return secret, sha256.Sum256([]byte(secret))
}
