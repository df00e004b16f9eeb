package main

import (
	"context"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// clientInitial is about the tokens with which software registers itself.
func clientInitial(o *operator) *cobra.Command {
	c := &cobra.Command{
		Use: "registration-token", Short: "Initial access tokens, with which software registers itself (RFC 7591)", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(initialAdd(o), initialList(o), initialRemove(o))
	return c
}

func initialAdd(o *operator) *cobra.Command {
	var name string
	var scopes []string
	var uses int
	var life time.Duration
	c := leaf("add", "Make one; it is shown this once",
		"gatehouse client registration-token add --name 'build server' --uses 5\ngatehouse client registration-token add --scopes openid,read:orders --expires-in 1h",
		func(ctx context.Context, _ []string) error {
			v := object{"name": name, "uses": uses, "expires_in": int64(life / time.Second)}
			if len(scopes) > 0 {
				v["scopes"] = scopes
			}
			var made object
			if err := o.call(ctx, http.MethodPost, "registration-tokens", v, &made); err != nil {
				return err
			}
			return o.one(made, "id", "token", "name", "uses", "expires")
		})
	c.Flags().StringVar(&name, "name", "", "what it is for, in lists")
	c.Flags().StringSliceVar(&scopes, "scopes", nil, "the most that its clients may ask for; else what the configuration allows")
	c.Flags().IntVar(&uses, "uses", 1, "how many clients it registers")
	c.Flags().DurationVar(&life, "expires-in", 24*time.Hour, "how long it is good, at most 366 days")
	return c
}

func initialList(o *operator) *cobra.Command {
	return leaf("list", "List them, without the tokens themselves", "gatehouse client registration-token list", func(ctx context.Context, _ []string) error {
		var found struct {
			Tokens []object `json:"registration_tokens"`
		}
		if err := o.call(ctx, http.MethodGet, "registration-tokens", nil, &found); err != nil {
			return err
		}
		return o.list(found.Tokens, "id", "name", "scopes", "uses", "created", "expires")
	})
}

func initialRemove(o *operator) *cobra.Command {
	return leaf("remove ID", "End one; the clients that it registered stay", "gatehouse client registration-token remove it_…", func(ctx context.Context, args []string) error {
		if err := o.call(ctx, http.MethodDelete, "registration-tokens/"+escaped(args[0]), nil, nil); err != nil {
			return err
		}
		return o.did("registration token %s is removed", args[0])
	})
}
