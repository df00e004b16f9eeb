package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

// healthTimeout is shorter than what container engines wait for a check.
const healthTimeout = 2 * time.Second

// healthcheckCommand asks a running gatehouse whether it is ready: images
// without a shell and without curl have nothing else to ask with.
func healthcheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "healthcheck [URL]",
		Short: "Exit 0 if URL (default http://127.0.0.1:9901/readyz) answers 200, else 1",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			target := "http://127.0.0.1:9901/readyz"
			if len(args) == 1 {
				target = args[0]
			}
			return healthcheck(c.Context(), target)
		},
	}
}

func healthcheck(ctx context.Context, target string) error {
	if u, err := url.Parse(target); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return usageError{errors.New("healthcheck: want a URL such as http://127.0.0.1:9901/readyz")}
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return usageError{err}
	}
	// No proxy of the environment: what is asked is near.
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("healthcheck: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("healthcheck: %s answered %s", target, resp.Status)
	}
	return nil
}
