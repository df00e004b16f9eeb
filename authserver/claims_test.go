package authserver_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/gatehouse/gatehouse/authserver"
)

// TestOAuth44_RolesByRuleAndNeverPersonalData gives a client rules, and looks at
// all that its access tokens say.
func TestOAuth44_RolesByRuleAndNeverPersonalData(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		e := startOn(t, openStores(t, dsn, 1)[0], nil, func(c *authserver.Config) {
			c.Declared.Permissions = map[string][]string{"editor": {"orders:write", "orders:read"}, "auditor": {"orders:read"}}
			for i := range c.Declared.Clients {
				if c.Declared.Clients[i].ID == "web" {
					c.Declared.Clients[i].Claims = map[string]string{
						"roles": "user.roles", "https://example.com/permissions": "user.permissions", "groups": "user.groups",
					}
				}
			}
			c.Declared.Users[0].Roles = []string{"editor", "auditor"}
		})
		first := e.grant()
		says := claims(t, first.str("access_token"), 1)
		if have := fmt.Sprint(says["roles"], says["https://example.com/permissions"], says["groups"]); have != "[auditor editor] [orders:read orders:write] []" {
			t.Errorf("claims %s", have)
		}
		for _, name := range []string{"email", "name", "preferred_username", "username"} {
			if says[name] != nil {
				t.Errorf("the access token says %s", name)
			}
		}
		// A change is in the next token.
		d := e.config.Declared
		d.Users[0].Roles = []string{"auditor"}
		if err := e.server.Reload(context.Background(), d); err != nil {
			t.Fatal(err)
		}
		second := e.refresh(first.str("refresh_token")).want(t, 200, "")
		if says := claims(t, second.str("access_token"), 1); fmt.Sprint(says["roles"]) != "[auditor]" {
			t.Errorf("claims after a change: %v", says["roles"])
		}
		// A client without rules gets none, a client's own token neither.
		if says := claims(t, e.token("batch:1", bSecret, clientCredentials).want(t, 200, "").str("access_token"), 1); says["roles"] != nil {
			t.Error("a client's own token has roles")
		}
	})
}
