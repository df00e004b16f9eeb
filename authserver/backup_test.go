package authserver_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/gatehouse/gatehouse/authserver/backup"
	"github.com/gatehouse/gatehouse/authserver/store/sqlstore"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// TestBackupMovesEverythingToAnotherDatabase issues, revokes and audits on one
// database, and goes on with what a backup brought to another.
func TestBackupMovesEverythingToAnotherDatabase(t *testing.T) {
	f := func(t *testing.T, from, to string) {
		t.Helper()
		first := startOn(t, openStores(t, from, 1)[0], nil)
		everything(t, first) // a row in most tables
		kept := first.grant()
		revoked := first.grant()
		first.post("/oauth/revoke", "web", webSecret, form("token", revoked.str("refresh_token"))).want(t, 200, "")
		made := first.admin("POST", "/api/v1/clients", `{"id":"stored","grants":["client_credentials"],"scopes":["read:orders"]}`).want(t, 201, "")
		first.events("token.issued", 4)

		var file bytes.Buffer
		const passphrase = "a passphrase for testing"
		if err := backup.Write(&file, passphrase, 10, func(w io.Writer) error { return first.store.(*sqlstore.Store).Dump(context.Background(), w) }); err != nil {
			t.Fatal(err)
		}
		if err := backup.Read(&file, passphrase, func(r io.Reader) error { return sqlstore.Restore(context.Background(), to, r) }); err != nil {
			t.Fatal(err)
		}

		second := startOn(t, openStores(t, to, 1)[0], first)
		second.refresh(kept.str("refresh_token")).want(t, 200, "")
		second.refresh(revoked.str("refresh_token")).want(t, 400, "invalid_grant")
		if !second.active(kept.str("access_token")) || second.active(revoked.str("access_token")) {
			t.Error("a revocation did not hold, or held too much")
		}
		second.token("stored", made.str("secret"), clientCredentials).want(t, 200, "")
		before, after := verified(t, first.store), verified(t, second.store)
		for i, ev := range before[:min(len(before), 20)] {
			if ev != after[i] {
				t.Fatalf("audit event %d: %+v became %+v", i, ev, after[i])
			}
		}
		oldKeys, err := first.store.Keys(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		newKeys, err := second.store.Keys(context.Background())
		if err != nil || len(oldKeys) == 0 || len(newKeys) < len(oldKeys) || newKeys[0].ID != oldKeys[0].ID || !bytes.Equal(newKeys[0].Sealed, oldKeys[0].Sealed) {
			t.Errorf("keys %d, %d, %v", len(oldKeys), len(newKeys), err)
		}
	}
	t.Run("sqlite to postgres", func(t *testing.T) { f(t, tables.SQLite(t), servers.Postgres(t)) })
	t.Run("postgres to sqlite", func(t *testing.T) { f(t, tables.Postgres(t), tables.SQLite(t)) })
}
