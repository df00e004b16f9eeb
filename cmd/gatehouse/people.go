package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// maxInput bounds what is read from a file or standard input into memory.
const maxInput = 1 << 20

func readAll(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err == nil && len(raw) > maxInput {
		err = errors.New("the input is larger than 1 MiB")
	}
	return raw, err
}

func userCommand() *cobra.Command {
	return operating("user", "Users of the authorization server; named by name or subject",
		userList, userGet, userAdd, userUpdate, userPassword, userResetFactors, userDisable, userEnable, userRemove, userRevoke, userResetPassword, userConsents, userWithdraw)
}

func userList(o *operator) *cobra.Command {
	return leaf("list", "List declared and stored users", "gatehouse user list", func(ctx context.Context, _ []string) error {
		var found struct{ Users []object }
		if err := o.call(ctx, http.MethodGet, "users", nil, &found); err != nil {
			return err
		}
		return o.list(found.Users, "name", "subject", "email", "email_verified", "display_name", "declared", "disabled")
	})
}

// ofUser makes a command about one user, who is an argument.
func (o *operator) ofUser(use, short, example string, run func(ctx context.Context, path string, args []string) error) *cobra.Command {
	return o.completeIDs(leaf(use, short, example, func(ctx context.Context, args []string) error {
		subject, err := o.subject(ctx, args[0])
		if err != nil {
			return err
		}
		return run(ctx, "users/"+escaped(subject), args)
	}), "users", "name")
}

func userGet(o *operator) *cobra.Command {
	return o.ofUser("get NAME", "Show a user", "gatehouse user get alice", func(ctx context.Context, path string, _ []string) error {
		var v object
		if err := o.call(ctx, http.MethodGet, path, nil, &v); err != nil {
			return err
		}
		return o.one(v, "name", "subject")
	})
}

// passwordFlags are how a password is given. None of them shows it to who can
// list processes.
type passwordFlags struct {
	file     string
	generate bool
}

func (f *passwordFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.file, "password-file", "", "file with the password, - for standard input")
	c.Flags().BoolVar(&f.generate, "generate", false, "make a password, shown this once")
}

// password returns what was given; empty for nothing. made tells that it has
// to be shown.
func (f *passwordFlags) password(c *cobra.Command) (password string, made bool, err error) {
	switch {
	case f.generate && f.file != "":
		return "", false, usageError{errors.New("give --generate or --password-file, not both")}
	case f.generate:
		return rand.Text(), true, nil
	case f.file == "":
		return "", false, nil
	}
	raw, err := readInput(c, f.file)
	if err != nil {
		return "", false, usageError{err}
	}
	password = strings.TrimRight(string(raw), "\r\n")
	if password == "" {
		return "", false, usageError{fmt.Errorf("--password-file %s holds no password", f.file)}
	}
	return password, false, nil
}

// profileFlags are what is known about a user.
type profileFlags struct {
	email, display string
	verified       bool
	roles          []string
}

func (f *profileFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.email, "email", "", "e-mail address")
	c.Flags().StringVar(&f.display, "display-name", "", "name for people")
	c.Flags().StringSliceVar(&f.roles, "roles", nil, "roles, for claims and permissions")
}

func (f *profileFlags) into(c *cobra.Command, v object) {
	if c.Flags().Changed("email") {
		v["email"] = f.email
	}
	if c.Flags().Changed("email-verified") {
		v["email_verified"] = f.verified
	}
	if c.Flags().Changed("display-name") {
		v["display_name"] = f.display
	}
	if c.Flags().Changed("roles") {
		v["roles"] = f.roles
	}
}

func userAdd(o *operator) *cobra.Command {
	var p passwordFlags
	var f profileFlags
	var c *cobra.Command
	c = leaf("add NAME", "Add a user; without a password nobody can sign in as it yet",
		"gatehouse user add alice --email alice@example.com --generate\ngatehouse user add bob --password-file - < password", func(ctx context.Context, args []string) error {
			password, made, err := p.password(c)
			if err != nil {
				return err
			}
			v := object{"name": args[0]}
			f.into(c, v)
			if password != "" {
				v["password"] = password
			}
			var added object
			if err := o.call(ctx, http.MethodPost, "users", v, &added); err != nil {
				return err
			}
			if made {
				added["password"] = password
			}
			return o.one(added, "name", "subject", "password")
		})
	p.add(c)
	f.add(c)
	return c
}

func userUpdate(o *operator) *cobra.Command {
	var f profileFlags
	var c *cobra.Command
	c = o.ofUser("update NAME", "Change what is given of a stored user", "gatehouse user update alice --email alice@example.org", func(ctx context.Context, path string, _ []string) error {
		v := object{}
		f.into(c, v)
		if len(v) == 0 {
			return usageError{errors.New("update: nothing is given to change")}
		}
		return o.patchUser(ctx, path, v)
	})
	f.add(c)
	c.Flags().BoolVar(&f.verified, "email-verified", false, "the address is the user's")
	return c
}

func (o *operator) patchUser(ctx context.Context, path string, change object) error {
	var v object
	if err := o.call(ctx, http.MethodPatch, path, change, &v); err != nil {
		return err
	}
	return o.one(v, "name", "subject")
}

func userPassword(o *operator) *cobra.Command {
	var p passwordFlags
	var c *cobra.Command
	c = o.ofUser("password NAME", "Set a password; all sessions and tokens of the user end",
		"gatehouse user password alice --generate\ngatehouse user password alice --password-file - < password", func(ctx context.Context, path string, args []string) error {
			password, made, err := p.password(c)
			if err != nil {
				return err
			}
			if password == "" {
				return usageError{errors.New("give --password-file or --generate")}
			}
			var v object
			if err := o.call(ctx, http.MethodPatch, path, object{"password": password}, &v); err != nil {
				return err
			}
			if made {
				v["password"] = password
			}
			return o.one(v, "name", "subject", "password")
		})
	p.add(c)
	return c
}

func userResetFactors(o *operator) *cobra.Command {
	return o.ofUser("reset-factors NAME", "Remove the authenticator app, recovery codes and passkeys of a user; all its sessions and tokens end",
		"gatehouse user reset-factors alice", func(ctx context.Context, path string, _ []string) error {
			var entry object
			if err := o.call(ctx, http.MethodDelete, path+"/factors", nil, &entry); err != nil {
				return err
			}
			return o.one(entry, "seq", "level", "id")
		})
}

func userDisable(o *operator) *cobra.Command {
	return o.ofUser("disable NAME", "Keep a user out and end everything it has", "gatehouse user disable alice", func(ctx context.Context, path string, _ []string) error {
		return o.patchUser(ctx, path, object{"disabled": true})
	})
}

func userEnable(o *operator) *cobra.Command {
	return o.ofUser("enable NAME", "Let a disabled user in again", "gatehouse user enable alice", func(ctx context.Context, path string, _ []string) error {
		return o.patchUser(ctx, path, object{"disabled": false})
	})
}

func userRemove(o *operator) *cobra.Command {
	return o.ofUser("remove NAME", "Remove a stored user with everything it has", "gatehouse user remove alice", func(ctx context.Context, path string, args []string) error {
		if err := o.call(ctx, http.MethodDelete, path, nil, nil); err != nil {
			return err
		}
		return o.did("user %s is removed", args[0])
	})
}

func userResetPassword(o *operator) *cobra.Command {
	return o.ofUser("reset-password NAME", "Mail a stored user a link for a new password", "gatehouse user reset-password alice", func(ctx context.Context, path string, args []string) error {
		if err := o.call(ctx, http.MethodPost, path+"/reset-password", nil, nil); err != nil {
			return err
		}
		return o.did("a mail to %s is on its way", args[0])
	})
}

func userRevoke(o *operator) *cobra.Command {
	return o.ofUser("revoke NAME", "End all sessions and tokens of a user, declared ones too", "gatehouse user revoke alice", func(ctx context.Context, path string, _ []string) error {
		var entry object
		if err := o.call(ctx, http.MethodPost, path+"/revoke", nil, &entry); err != nil {
			return err
		}
		return o.one(entry, "seq", "level", "id")
	})
}

func userConsents(o *operator) *cobra.Command {
	return o.ofUser("consents NAME", "List what a user allowed to clients", "gatehouse user consents alice", func(ctx context.Context, path string, _ []string) error {
		var found struct{ Consents []object }
		if err := o.call(ctx, http.MethodGet, path+"/consents", nil, &found); err != nil {
			return err
		}
		return o.list(found.Consents, "client", "scopes", "granted")
	})
}

func userWithdraw(o *operator) *cobra.Command {
	return o.ofUser("withdraw NAME CLIENT", "Withdraw a user's consent, with the grants that rest on it", "gatehouse user withdraw alice shop", func(ctx context.Context, path string, args []string) error {
		if err := o.call(ctx, http.MethodDelete, path+"/consents/"+escaped(args[1]), nil, nil); err != nil {
			return err
		}
		return o.did("%s allows nothing to %s any more", args[0], args[1])
	})
}

func sessionCommand() *cobra.Command {
	return operating("session", "Login sessions", sessionList, sessionRevoke)
}

func sessionList(o *operator) *cobra.Command {
	var user string
	c := leaf("list", "List live sessions", "gatehouse session list\ngatehouse session list --user alice", func(ctx context.Context, _ []string) error {
		if user != "" {
			subject, err := o.subject(ctx, user)
			if err != nil {
				return err
			}
			var found struct{ Sessions []object }
			if err := o.call(ctx, http.MethodGet, "users/"+escaped(subject)+"/sessions", nil, &found); err != nil {
				return err
			}
			return o.sessions(found.Sessions)
		}
		var all []object
		for after := ""; ; {
			var page struct{ Sessions []object }
			if err := o.call(ctx, http.MethodGet, "sessions?limit=1000&after="+url.QueryEscape(after), nil, &page); err != nil {
				return err
			}
			if len(page.Sessions) == 0 {
				return o.sessions(all)
			}
			all = append(all, page.Sessions...)
			after, _ = all[len(all)-1]["id"].(string)
		}
	})
	c.Flags().StringVar(&user, "user", "", "of this user only")
	return c
}

func (o *operator) sessions(list []object) error {
	return o.list(list, "id", "subject", "created", "expires", "agent")
}

func sessionRevoke(o *operator) *cobra.Command {
	return o.completeIDs(leaf("revoke ID", "End a session and what was granted in it", "gatehouse session revoke ses_…", func(ctx context.Context, args []string) error {
		var entry object
		if err := o.call(ctx, http.MethodDelete, "sessions/"+escaped(args[0]), nil, &entry); err != nil {
			return err
		}
		return o.one(entry, "seq", "level", "id")
	}), "sessions", "id")
}
