package clients

import (
	"context"
	"sync"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

const (
	// rememberedFor is how long a stored client is taken as it was read. What
	// this process changes, and what a revocation of the client tells of, counts
	// at once: see Registry.Forget. So a second is for how long another replica
	// may act by a secret, a scope or a redirect URI that was taken away.
	rememberedFor = time.Second
	// maxRemembered bounds the clients that are remembered.
	maxRemembered = 4096
)

// remembered are stored clients as they were a moment ago.
type remembered struct {
	mu      sync.RWMutex
	clients map[string]rememberedClient
	// changes counts calls of forget: what was read before one is not kept.
	changes uint64
}

type rememberedClient struct {
	client *Client
	read   time.Time
}

func (m *remembered) find(id string, now time.Time) (c *Client, changes uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if r, ok := m.clients[id]; ok && now.Sub(r.read) < rememberedFor && !now.Before(r.read) {
		return r.client, m.changes
	}
	return nil, m.changes
}

// keep remembers a client that was read since find told of changes.
func (m *remembered) keep(c *Client, read time.Time, changes uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changes != changes {
		return
	}
	if m.clients == nil || len(m.clients) >= maxRemembered {
		m.clients = map[string]rememberedClient{}
	}
	m.clients[c.ID] = rememberedClient{c, read}
}

func (m *remembered) forget(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes++
	delete(m.clients, id)
}

// Forget makes the next look at a stored client ask the store.
func (r *Registry) Forget(id string) { r.remembered.forget(id) }

// storedClient returns the stored client, disabled ones too.
func (r *Registry) storedClient(ctx context.Context, id string) (*Client, error) {
	now := r.now()
	c, changes := r.remembered.find(id, now)
	if c != nil {
		return c, nil
	}
	row, err := r.store.Client(ctx, id)
	if err != nil {
		return nil, err
	}
	c = wrap(row, false)
	r.remembered.keep(c, now, changes)
	return c, nil
}

// Store is store, and makes r forget the clients that are changed through it.
func (r *Registry) Store(s store.Store) store.Store { return &changing{s, r} }

type changing struct {
	store.Store
	registry *Registry
}

// UpdateClient implements store.Clients.
func (s *changing) UpdateClient(ctx context.Context, c store.Client, events ...store.AuditEvent) error {
	defer s.registry.Forget(c.ID) // whatever comes of it
	return s.Store.UpdateClient(ctx, c, events...)
}

// RemoveClient implements store.Clients.
func (s *changing) RemoveClient(ctx context.Context, id string, events ...store.AuditEvent) error {
	defer s.registry.Forget(id)
	return s.Store.RemoveClient(ctx, id, events...)
}

// ChangeRegistered implements store.Registrations.
func (s *changing) ChangeRegistered(ctx context.Context, c store.Client, old store.Digest, now store.Registration, events ...store.AuditEvent) error {
	defer s.registry.Forget(c.ID)
	return s.Store.ChangeRegistered(ctx, c, old, now, events...)
}
