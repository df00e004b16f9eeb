package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/authserver/keys"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// TestBackupAndRestoreCommands takes a backup of a running gatehouse and goes
// on with it on a database of the other kind. The other direction is tested
// where a passphrase costs less.
func TestBackupAndRestoreCommands(t *testing.T) {
	from, to := "sqlite:"+filepath.Join(t.TempDir(), "state.db"), servers.Postgres(t)
	kek := keys.NewKekText()
	folder := t.TempDir()
	pass, file := filepath.Join(folder, "pass"), filepath.Join(folder, "state.backup")
	if err := os.WriteFile(pass, []byte("a passphrase for testing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	first, stop := startGatehouse(t, from, kek)
	first.command(t, "", "client", "add", "reports", "--grants", "client_credentials", "--scopes", "read:orders")
	first.command(t, "", "user", "add", "alice", "--generate")
	head := strings.Fields(first.command(t, "", "audit", "verify"))[5]
	first.command(t, "", "backup", "-c", first.config, "--passphrase-file", pass, "--out", file)
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	stop()

	text, err := os.ReadFile(first.config)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(folder, "other.yaml")
	if err := os.WriteFile(other, []byte(strings.Replace(string(text), from, to, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	first.command(t, "", "restore", "-c", other, "--passphrase-file", pass, file)
	second, _ := startGatehouse(t, to, kek)
	if out := second.command(t, "", "client", "list"); !strings.Contains(out, "reports") {
		t.Errorf("clients: %s", out)
	}
	if out := second.command(t, "", "user", "list"); !strings.Contains(out, "alice") {
		t.Errorf("users: %s", out)
	}
	second.command(t, "", "audit", "verify", "--head", head)
	if out := second.command(t, "", "audit", "list"); !strings.Contains(out, "store.restored") {
		t.Errorf("audit: %s", out)
	}
}
