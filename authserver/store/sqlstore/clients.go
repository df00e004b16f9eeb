package sqlstore

import (
	"context"
	"encoding/hex"

	"github.com/gatehouse/gatehouse/authserver/store"
)

const clientColumns = `id, name, secret_hashes, grants, scopes, redirect_uris, post_logout_redirect_uris,
	skip_consent, disabled, created, settings`

func clientValues(c store.Client) []any {
	hashes := make([]string, len(c.SecretHashes))
	for i, h := range c.SecretHashes {
		hashes[i] = hex.EncodeToString(h[:])
	}
	return []any{c.ID, c.Name, list(hashes), list(c.Grants), list(c.Scopes), list(c.RedirectURIs),
		list(c.PostLogoutRedirectURIs), number(c.SkipConsent), number(c.Disabled), micros(c.Created),
		document(c.ClientSettings)}
}

func scanClient(row func(dest []any) error) (store.Client, error) {
	var c store.Client
	var hashes []string
	err := row([]any{&c.ID, &c.Name, listColumn{&hashes}, listColumn{&c.Grants}, listColumn{&c.Scopes},
		listColumn{&c.RedirectURIs}, listColumn{&c.PostLogoutRedirectURIs}, boolColumn{&c.SkipConsent},
		boolColumn{&c.Disabled}, timeColumn{&c.Created}, documentColumn{&c.ClientSettings}})
	if err != nil {
		return store.Client{}, err
	}
	for _, h := range hashes {
		b, err := hex.DecodeString(h)
		if err != nil {
			return store.Client{}, err
		}
		var d store.Digest
		if err := (digestColumn{&d}).Scan(b); err != nil {
			return store.Client{}, err
		}
		c.SecretHashes = append(c.SecretHashes, d)
	}
	return c, nil
}

// AddClient implements store.Clients.
func (s *Store) AddClient(ctx context.Context, client store.Client, events ...store.AuditEvent) error {
	return s.audited(ctx, "add client", events, func(ctx context.Context, c conn) error {
		return insertClient(ctx, c, client)
	})
}

func insertClient(ctx context.Context, c conn, client store.Client) error {
	_, err := c.exec(ctx, `INSERT INTO clients (`+clientColumns+`)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)`, clientValues(client)...)
	return err
}

// Client implements store.Clients.
func (s *Store) Client(ctx context.Context, id string) (client store.Client, err error) {
	err = s.read(ctx, "client", func(ctx context.Context, c conn) error {
		client, err = scanClient(func(dest []any) error {
			return c.row(ctx, dest, `SELECT `+clientColumns+` FROM clients WHERE id = ?1`, id)
		})
		return err
	})
	return client, err
}

// Clients implements store.Clients.
func (s *Store) Clients(ctx context.Context) (clients []store.Client, err error) {
	err = s.read(ctx, "clients", func(ctx context.Context, c conn) error {
		return c.rows(ctx, func(row scanner) error {
			client, err := scanClient(func(dest []any) error { return row.Scan(dest...) })
			clients = append(clients, client)
			return err
		}, `SELECT `+clientColumns+` FROM clients ORDER BY id`)
	})
	if err != nil {
		return nil, err
	}
	return clients, nil
}

// UpdateClient implements store.Clients.
func (s *Store) UpdateClient(ctx context.Context, client store.Client, events ...store.AuditEvent) error {
	return s.audited(ctx, "update client", events, func(ctx context.Context, c conn) error {
		return updateClient(ctx, c, client)
	})
}

func updateClient(ctx context.Context, c conn, client store.Client) error {
	return found(c.exec(ctx, `UPDATE clients SET name = ?2, secret_hashes = ?3, grants = ?4, scopes = ?5,
		redirect_uris = ?6, post_logout_redirect_uris = ?7, skip_consent = ?8, disabled = ?9, created = ?10, settings = ?11
		WHERE id = ?1`, clientValues(client)...))
}

// RemoveClient implements store.Clients.
func (s *Store) RemoveClient(ctx context.Context, id string, events ...store.AuditEvent) error {
	return s.transaction(ctx, "remove client", func(ctx context.Context, c conn) error {
		if _, err := c.exec(ctx, `DELETE FROM consents WHERE client_id = ?1`, id); err != nil {
			return err
		}
		if _, err := c.exec(ctx, `DELETE FROM registrations WHERE client_id = ?1`, id); err != nil {
			return err
		}
		if err := found(c.exec(ctx, `DELETE FROM clients WHERE id = ?1`, id)); err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
}

// found turns a change of no row into store.ErrNotFound.
func found(n int64, err error) error {
	if err == nil && n == 0 {
		return store.ErrNotFound
	}
	return err
}
