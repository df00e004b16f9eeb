package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// operator talks to the admin API of a running gateway for one command.
type operator struct {
	base, token, ca string // of the flags
	format          string
	out             io.Writer
}

// operating makes a command with subcommands that talk to the admin API.
func operating(use, short string, subcommands ...func(*operator) *cobra.Command) *cobra.Command {
	o := &operator{}
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			o.out = c.OutOrStdout()
			if o.format != "table" && o.format != "json" {
				return usageError{fmt.Errorf("-o %s: want table or json", o.format)}
			}
			return nil
		},
	}
	f := c.PersistentFlags()
	f.StringVar(&o.base, "admin", "", "URL of the admin API; else GATEHOUSE_ADMIN, else the running `gatehouse dev`")
	f.StringVar(&o.token, "token", "", "token of the admin API; else GATEHOUSE_ADMIN_TOKEN (safer: arguments are visible to others)")
	f.StringVar(&o.ca, "ca", "", "file with the certificate authority of the admin API; else the system's")
	f.StringVarP(&o.format, "output", "o", "table", "table or json")
	for _, sub := range subcommands {
		c.AddCommand(sub(o))
	}
	return c
}

// connect finds out where the admin API is and what admits to it.
func (o *operator) connect() error {
	if o.base == "" {
		o.base = os.Getenv("GATEHOUSE_ADMIN")
	}
	if o.token == "" {
		o.token = os.Getenv("GATEHOUSE_ADMIN_TOKEN")
	}
	if o.base == "" || o.token == "" {
		dev := devEnvironment()
		if o.base == "" {
			o.base = dev["GATEHOUSE_ADMIN"]
		}
		if o.token == "" && o.base == dev["GATEHOUSE_ADMIN"] {
			o.token = dev["GATEHOUSE_ADMIN_TOKEN"]
		}
	}
	switch {
	case o.base == "":
		return usageError{errors.New("which gateway? give --admin URL or GATEHOUSE_ADMIN, or start `gatehouse dev`")}
	case o.token == "":
		return usageError{errors.New("give --token or GATEHOUSE_ADMIN_TOKEN, the token of admin.token")}
	}
	u, err := url.Parse(o.base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return usageError{fmt.Errorf("--admin %q is not a URL such as https://gateway.example.com:9901", o.base)}
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) {
		return usageError{fmt.Errorf("--admin %s: the token would travel in the open; use https outside loopback", u.Redacted())}
	}
	o.base = strings.TrimSuffix(o.base, "/")
	return nil
}

// devEnvironment is what the running `gatehouse dev` left behind, if there is
// one.
func devEnvironment() map[string]string {
	values := map[string]string{}
	folder, err := os.UserConfigDir()
	if err != nil {
		return values
	}
	text, err := os.ReadFile(filepath.Join(folder, "gatehouse", "dev.env"))
	if err != nil {
		return values
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[name] = value
		}
	}
	return values
}

func (o *operator) client() (*http.Client, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: 30 * time.Second}
	if o.ca != "" {
		text, err := os.ReadFile(o.ca)
		if err != nil {
			return nil, usageError{err}
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, usageError{fmt.Errorf("%s holds no certificate", o.ca)}
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{
		Transport: transport, Timeout: time.Minute,
		// A redirect would take the token to who knows where.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// call sends a request below /api/v1/ and decodes the answer into into, unless
// that is nil. path has its parameters escaped.
func (o *operator) call(ctx context.Context, method, path string, body, into any) error {
	if err := o.connect(); err != nil {
		return err
	}
	client, err := o.client()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	var content io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		content = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, o.base+"/api/v1/"+path, content)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+o.token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the admin API: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return problemOf(resp)
	}
	if into == nil || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("read the admin API's answer: %w", err)
	}
	return nil
}

// problemOf is what an answer that is not a success says.
func problemOf(resp *http.Response) error {
	var p struct{ Title, Detail string }
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || json.Unmarshal(raw, &p) != nil || p.Title == "" {
		return fmt.Errorf("the admin API answers %s", resp.Status)
	}
	if p.Detail == "" {
		return errors.New(strings.ToLower(p.Title))
	}
	return fmt.Errorf("%s: %s", strings.ToLower(p.Title), p.Detail)
}

// object is what the admin API shows of one thing. It is kept whole, so that a
// change by a command keeps what the command knows nothing of.
type object = map[string]any

// escaped is a part of a path.
func escaped(s string) string { return url.PathEscape(s) }

// leaf makes a command that does something. args are how it is called, for the
// usage; the number of words in capitals is the number of arguments.
func leaf(use, short, example string, run func(ctx context.Context, args []string) error) *cobra.Command {
	n := 0
	for _, word := range strings.Fields(use)[1:] {
		if word == strings.ToUpper(word) && !strings.HasPrefix(word, "[") {
			n++
		}
	}
	return &cobra.Command{
		Use: use, Short: short, Example: "  " + strings.ReplaceAll(example, "\n", "\n  "), Args: cobra.ExactArgs(n),
		RunE: func(c *cobra.Command, args []string) error { return run(c.Context(), args) },
	}
}

// subject is the subject of a user who is named by name or subject.
func (o *operator) subject(ctx context.Context, nameOrSubject string) (string, error) {
	var found struct{ Users []object }
	if err := o.call(ctx, http.MethodGet, "users?name="+url.QueryEscape(nameOrSubject), nil, &found); err != nil {
		return "", err
	}
	if len(found.Users) == 0 {
		return nameOrSubject, nil // the API says if it is none
	}
	subject, _ := found.Users[0]["subject"].(string)
	if subject == "" {
		return "", fmt.Errorf("user %q is declared and never signed in: there is nothing of it yet", nameOrSubject)
	}
	return subject, nil
}

// completeIDs completes an argument from a list of the admin API.
func (o *operator) completeIDs(c *cobra.Command, list, field string) *cobra.Command {
	c.ValidArgsFunction = func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), 2*time.Second)
		defer cancel()
		var found map[string][]object
		if err := o.call(ctx, http.MethodGet, list, nil, &found); err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var ids []string
		for _, entry := range found[list] {
			if id, ok := entry[field].(string); ok {
				ids = append(ids, id)
			}
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}
