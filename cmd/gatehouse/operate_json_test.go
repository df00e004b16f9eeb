package main

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/gatehouse/gatehouse/authserver/keys"
)

// TestEveryOperatorCommandSpeaksJSON runs each command that talks to the admin
// API once, with -o json, and fails if one is left out.
func TestEveryOperatorCommandSpeaksJSON(t *testing.T) {
	r, _ := startGatehouse(t, "sqlite:"+filepath.Join(t.TempDir(), "state.db"), keys.NewKekText())
	ran := map[string]bool{}
	// f runs a command and returns what it says, an object or a list; silent
	// ones say nothing.
	f := func(stdin, command string, arguments ...string) (said any) {
		t.Helper()
		ran[command] = true
		out := r.command(t, stdin, append(append(strings.Fields(command), "-o", "json"), arguments...)...)
		if out == "" {
			return nil
		}
		if err := json.Unmarshal([]byte(out), &said); err != nil {
			t.Fatalf("%s says no JSON: %v: %s", command, err, out)
		}
		return said
	}
	text := func(said any, name string) string {
		t.Helper()
		v, ok := said.(map[string]any)[name].(string)
		if !ok || v == "" {
			t.Fatalf("no %s in %v", name, said)
		}
		return v
	}
	lists := func(said any, atLeast int) []any {
		t.Helper()
		l, ok := said.([]any)
		if !ok || len(l) < atLeast {
			t.Fatalf("a list of %d is wanted: %v", atLeast, said)
		}
		return l
	}

	text(f("", "client add", "app", "--grants", "client_credentials", "--scopes", "read:orders"), "secret")
	text(f("", "client get", "app"), "id")
	text(f("", "client update", "app", "--name", "App"), "name")
	text(f("", "client rotate", "app"), "secret")
	if n := f("", "client drop-secret", "app").(map[string]any)["secrets"]; n != 1.0 {
		t.Errorf("%v secrets are left", n)
	}
	text(f("", "client revoke", "app"), "level")
	lists(f("", "client list"), 2)
	f("", "client remove", "app")
	initial := f("", "client registration-token add", "--name", "ci")
	text(initial, "token")
	lists(f("", "client registration-token list"), 1)
	f("", "client registration-token remove", "--", text(initial, "id"))

	subject := text(f("", "user add", "alice", "--generate"), "subject")
	text(f("", "user get", "alice"), "name")
	text(f("", "user update", "alice", "--email", "alice@example.com"), "email")
	text(f("a new password of hers", "user password", "alice", "--password-file", "-"), "subject")
	text(f("", "user disable", "alice"), "name")
	text(f("", "user enable", "alice"), "name")
	lists(f("", "user consents", "alice"), 0)
	f("", "user withdraw", "alice", "batch")
	text(f("", "user revoke", "alice"), "level")
	f("", "user reset-factors", "alice")
	f("", "user reset-password", "alice")
	lists(f("", "user list"), 2)

	lists(f("", "token grants", "alice"), 0)
	lists(f("", "session list"), 0)
	text(f("", "session revoke", "ses_1"), "level")
	token, err := accessToken(http.DefaultClient, r.issuer, "batch", "batch-secret-batch-secret-batch-secret", "")
	if err != nil {
		t.Fatal(err)
	}
	text(f(token, "token inspect"), "client")
	text(f(token, "token revoke"), "level")

	kid := text(lists(f("", "key list"), 1)[0], "kid")
	f("", "key rotate")
	f("", "key retire", "--", kid)

	lists(f("", "audit list"), 10)
	text(f("", "audit verify"), "head")
	f("", "user remove", subject)

	elsewhere := map[string]string{
		"token grant":  "there is no grant without a browser: TestOperateScripts",
		"key new-kek":  "talks to no server",
		"audit export": "JSON lines, whatever -o says",
	}
	var walk func(c *cobra.Command, path string)
	walk = func(c *cobra.Command, path string) {
		path = strings.TrimSpace(path + " " + c.Name())
		for _, sub := range c.Commands() {
			walk(sub, path)
		}
		if !c.HasSubCommands() && !ran[path] && elsewhere[path] == "" {
			t.Errorf("gatehouse %s was not run with -o json", path)
		}
	}
	for _, c := range []*cobra.Command{clientCommand(), userCommand(), keyCommand(), sessionCommand(), tokenCommand(), auditCommand()} {
		walk(c, "")
	}
}
