package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gatehouse/gatehouse/authserver/keys"
)

func keyCommand() *cobra.Command {
	c := operating("key", "Keys of the authorization server", keyList, keyRotate, keyRetire)
	c.AddCommand(&cobra.Command{
		Use: "new-kek", Short: "Print a new key encryption key", Example: "  gatehouse key new-kek > secrets/kek", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), keys.NewKekText())
			return err
		},
	})
	return c
}

func keyList(o *operator) *cobra.Command {
	return leaf("list", "List signing keys", "gatehouse key list", func(ctx context.Context, _ []string) error {
		var found struct{ Keys []object }
		if err := o.call(ctx, http.MethodGet, "keys", nil, &found); err != nil {
			return err
		}
		return o.list(found.Keys, "kid", "use", "alg", "state", "created", "activates", "retired", "gone")
	})
}

func keyRotate(o *operator) *cobra.Command {
	return leaf("rotate", "Begin a rotation: new keys are published at once, and sign when everybody could see them", "gatehouse key rotate", func(ctx context.Context, _ []string) error {
		if err := o.call(ctx, http.MethodPost, "keys/rotate", nil, nil); err != nil {
			return err
		}
		return o.did("new keys are published and take over by themselves")
	})
}

func keyRetire(o *operator) *cobra.Command {
	return leaf("retire KID", "Take a key out of use at once, because others may have it: what it signed is not valid any more", "gatehouse key list\ngatehouse key retire KID", func(ctx context.Context, args []string) error {
		if err := o.call(ctx, http.MethodPost, "keys/"+escaped(args[0])+"/retire", nil, nil); err != nil {
			return err
		}
		return o.did("key %s is gone, with every token that it signed", args[0])
	})
}

func tokenCommand() *cobra.Command {
	return operating("token", "Tokens and grants; tokens are read from standard input, since arguments are visible to others",
		tokenInspect, tokenRevoke, tokenGrants, tokenGrant)
}

// tokenInput reads a token from standard input.
func tokenInput(c *cobra.Command) (string, error) {
	raw, err := readInput(c, "-")
	if err != nil {
		return "", usageError{err}
	}
	token := strings.TrimSpace(string(raw))
	if token == "" {
		return "", usageError{errors.New("no token on standard input")}
	}
	return token, nil
}

func tokenInspect(o *operator) *cobra.Command {
	var c *cobra.Command
	c = leaf("inspect", "Say what an access or refresh token is, and whether it is good", "gatehouse token inspect < token", func(ctx context.Context, _ []string) error {
		token, err := tokenInput(c)
		if err != nil {
			return err
		}
		var v object
		if err := o.call(ctx, http.MethodPost, "tokens/inspect", object{"token": token}, &v); err != nil {
			return err
		}
		return o.one(v, "active", "kind", "client", "subject")
	})
	return c
}

func tokenRevoke(o *operator) *cobra.Command {
	var grant, jti, issuer string
	var c *cobra.Command
	c = leaf("revoke", "Revoke a token with its grant, a grant, a token by its jti, or everything",
		"gatehouse token revoke < token\ngatehouse token revoke --grant GRANT\ngatehouse token revoke --everything https://api.example.com", func(ctx context.Context, _ []string) error {
			var entry object
			for level, id := range map[string]string{"grant": grant, "token": jti, "issuer": issuer} {
				if id == "" {
					continue
				}
				if err := o.call(ctx, http.MethodPost, "revocations", object{"level": level, "id": id}, &entry); err != nil {
					return err
				}
				return o.one(entry, "seq", "level", "id")
			}
			token, err := tokenInput(c)
			if err != nil {
				return err
			}
			if err := o.call(ctx, http.MethodPost, "tokens/revoke", object{"token": token}, &entry); err != nil {
				return err
			}
			return o.one(entry, "seq", "level", "id")
		})
	c.Flags().StringVar(&grant, "grant", "", "a grant: a refresh token, its successors, and all access tokens of it")
	c.Flags().StringVar(&jti, "jti", "", "one access token, by its jti")
	c.Flags().StringVar(&issuer, "everything", "", "all tokens and sessions; write the issuer to confirm it")
	c.MarkFlagsMutuallyExclusive("grant", "jti", "everything")
	return c
}

func tokenGrants(o *operator) *cobra.Command {
	return o.ofUser("grants NAME", "List the live grants of a user", "gatehouse token grants alice", func(ctx context.Context, path string, _ []string) error {
		var found struct{ Grants []object }
		if err := o.call(ctx, http.MethodGet, path+"/grants", nil, &found); err != nil {
			return err
		}
		return o.list(found.Grants, "grant", "client", "scopes", "refreshes", "created", "idle_until")
	})
}

func tokenGrant(o *operator) *cobra.Command {
	return leaf("grant GRANT", "Show a grant", "gatehouse token grant GRANT", func(ctx context.Context, args []string) error {
		var v object
		if err := o.call(ctx, http.MethodGet, "grants/"+escaped(args[0]), nil, &v); err != nil {
			return err
		}
		return o.one(v, "grant", "client", "subject")
	})
}
