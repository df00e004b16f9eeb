package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"

	"github.com/spf13/cobra"
)

func clientCommand() *cobra.Command {
	return operating("client", "Clients of the authorization server",
		clientList, clientGet, clientAdd, clientUpdate, clientRemove, clientRotate, clientDropSecret, clientRevoke, clientInitial)
}

func clientList(o *operator) *cobra.Command {
	return leaf("list", "List declared and stored clients", "gatehouse client list\ngatehouse client list -o json", func(ctx context.Context, _ []string) error {
		var found struct{ Clients []object }
		if err := o.call(ctx, http.MethodGet, "clients", nil, &found); err != nil {
			return err
		}
		return o.list(found.Clients, "id", "name", "public", "grants", "scopes", "secrets", "declared", "disabled")
	})
}

func clientGet(o *operator) *cobra.Command {
	return o.completeIDs(leaf("get ID", "Show a client", "gatehouse client get web", func(ctx context.Context, args []string) error {
		var v object
		if err := o.call(ctx, http.MethodGet, "clients/"+escaped(args[0]), nil, &v); err != nil {
			return err
		}
		return o.one(v, "id", "name")
	}), "clients", "id")
}

// clientFlags are the settings of a client that have flags; --from takes all.
type clientFlags struct {
	from, name                             string
	grants, scopes, redirects, postLogouts []string
	skipConsent, disabled                  bool
	claims                                 map[string]string
}

func (f *clientFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.from, "from", "", "JSON file with settings, - for standard input; flags win over it")
	c.Flags().StringVar(&f.name, "name", "", "what pages call it")
	c.Flags().StringSliceVar(&f.grants, "grants", nil, "authorization_code, refresh_token, client_credentials, …")
	c.Flags().StringSliceVar(&f.scopes, "scopes", nil, "scopes that it may ask for")
	c.Flags().StringSliceVar(&f.redirects, "redirect-uris", nil, "where codes may be sent")
	c.Flags().StringSliceVar(&f.postLogouts, "post-logout-redirect-uris", nil, "where a logout may lead")
	c.Flags().StringToStringVar(&f.claims, "claims", nil, "what access tokens say besides, such as roles=user.roles")
	c.Flags().BoolVar(&f.skipConsent, "skip-consent", false, "users are not asked; for confidential clients of your own")
}

// into puts what was given into v.
func (f *clientFlags) into(c *cobra.Command, v object) error {
	if f.from != "" {
		raw, err := readInput(c, f.from)
		if err != nil {
			return usageError{err}
		}
		if err := json.Unmarshal(raw, &v); err != nil {
			return usageError{fmt.Errorf("--from %s: %w", f.from, err)}
		}
	}
	for flag, setting := range map[string]struct {
		key   string
		value any
	}{
		"name": {"name", f.name}, "grants": {"grants", f.grants}, "scopes": {"scopes", f.scopes},
		"redirect-uris": {"redirect_uris", f.redirects}, "post-logout-redirect-uris": {"post_logout_redirect_uris", f.postLogouts},
		"skip-consent": {"skip_consent", f.skipConsent}, "disabled": {"disabled", f.disabled}, "claims": {"claims", f.claims},
	} {
		if c.Flags().Changed(flag) {
			v[setting.key] = setting.value
		}
	}
	return nil
}

func clientAdd(o *operator) *cobra.Command {
	var f clientFlags
	var public bool
	var c *cobra.Command
	c = leaf("add ID", "Add a client; its secret is made by the server and shown this once",
		"gatehouse client add billing-batch --grants client_credentials --scopes read:orders\n"+
			"gatehouse client add shop --public --grants authorization_code,refresh_token --scopes openid --redirect-uris https://shop.example.com/callback",
		func(ctx context.Context, args []string) error {
			v := object{}
			if err := f.into(c, v); err != nil {
				return err
			}
			v["id"] = args[0]
			if c.Flags().Changed("public") {
				v["public"] = public
			}
			var made object
			if err := o.call(ctx, http.MethodPost, "clients", v, &made); err != nil {
				return err
			}
			return o.one(made, "id", "secret", "name")
		})
	f.add(c)
	c.Flags().BoolVar(&public, "public", false, "it cannot keep a secret: a browser or native application")
	return c
}

func clientUpdate(o *operator) *cobra.Command {
	var f clientFlags
	var c *cobra.Command
	c = o.completeIDs(leaf("update ID", "Change what is given of a stored client; --disabled ends all its tokens",
		"gatehouse client update shop --scopes openid,read:orders\ngatehouse client update shop --disabled\ngatehouse client update shop --disabled=false",
		func(ctx context.Context, args []string) error {
			var v object
			path := "clients/" + escaped(args[0])
			if err := o.call(ctx, http.MethodGet, path, nil, &v); err != nil {
				return err
			}
			for _, shown := range []string{"declared", "created", "secrets"} { // not set
				delete(v, shown)
			}
			if err := f.into(c, v); err != nil {
				return err
			}
			var changed object
			if err := o.call(ctx, http.MethodPut, path, v, &changed); err != nil {
				return err
			}
			return o.one(changed, "id", "name")
		}), "clients", "id")
	f.add(c)
	c.Flags().BoolVar(&f.disabled, "disabled", false, "refuse the client, and end what it has")
	return c
}

func clientRemove(o *operator) *cobra.Command {
	return o.completeIDs(leaf("remove ID", "Remove a stored client with all its tokens", "gatehouse client remove shop", func(ctx context.Context, args []string) error {
		if err := o.call(ctx, http.MethodDelete, "clients/"+escaped(args[0]), nil, nil); err != nil {
			return err
		}
		return o.did("client %s is removed", args[0])
	}), "clients", "id")
}

func clientRotate(o *operator) *cobra.Command {
	var drop bool
	c := o.completeIDs(leaf("rotate ID", "Make a new secret, shown this once; the one before stays good until the next rotation",
		"gatehouse client rotate billing-batch\ngatehouse client rotate billing-batch --drop-old", func(ctx context.Context, args []string) error {
			var made object
			if err := o.call(ctx, http.MethodPost, "clients/"+escaped(args[0])+"/secret", object{"keep": !drop}, &made); err != nil {
				return err
			}
			return o.one(made, "id", "secret", "secrets")
		}), "clients", "id")
	c.Flags().BoolVar(&drop, "drop-old", false, "the old secret is worth nothing at once: somebody has it")
	return c
}

func clientDropSecret(o *operator) *cobra.Command {
	return o.completeIDs(leaf("drop-secret ID", "End the secret that was replaced, when the new one is in use everywhere", "gatehouse client drop-secret billing-batch", func(ctx context.Context, args []string) error {
		var v object
		if err := o.call(ctx, http.MethodDelete, "clients/"+escaped(args[0])+"/secret", nil, &v); err != nil {
			return err
		}
		return o.one(v, "id", "name")
	}), "clients", "id")
}

func clientRevoke(o *operator) *cobra.Command {
	return o.completeIDs(leaf("revoke ID", "End all tokens of a client, declared ones too; it may get new ones", "gatehouse client revoke shop", func(ctx context.Context, args []string) error {
		var entry object
		if err := o.call(ctx, http.MethodPost, "clients/"+escaped(args[0])+"/revoke", nil, &entry); err != nil {
			return err
		}
		return o.one(entry, "seq", "level", "id")
	}), "clients", "id")
}

// readInput reads a file, or standard input for -.
func readInput(c *cobra.Command, path string) ([]byte, error) {
	if path == "-" {
		return readAll(c.InOrStdin())
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f)
}
