package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// traffic makes calls of every kind that the board shows.
type traffic struct {
	topo   *topology
	client http.Client
	tokens [2]string // reader's and writer's
}

func newTraffic(ctx context.Context, topo *topology) (*traffic, error) {
	c := &traffic{topo: topo, client: http.Client{Timeout: 5 * time.Second}}
	var err error
	for n, who := range [2][2]string{{"demo-reader", topo.reader}, {"demo-writer", topo.writer}} {
		// The one gateway gives the token, the other takes it.
		if c.tokens[n], err = c.token(ctx, topo.gateways[n], who[0], who[1]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *traffic) token(ctx context.Context, gateway, id, secret string) (string, error) {
	status, body, err := c.form(ctx, gateway+"/oauth/token", id, secret, url.Values{"grant_type": {"client_credentials"}})
	if err != nil {
		return "", err
	}
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Token == "" {
		return "", fmt.Errorf("no token for %s: status %d", id, status)
	}
	return answer.Token, nil
}

func (c *traffic) form(ctx context.Context, target, id, secret string, form url.Values) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(id, secret)
	return c.do(req)
}

func (c *traffic) do(req *http.Request) (int, []byte, error) {
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, body, err
}

// call wants one of the statuses.
func (c *traffic) call(ctx context.Context, method, target, token string, want ...int) error {
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	status, body, err := c.do(req)
	if err != nil {
		return err
	}
	for _, w := range want {
		if status == w {
			return nil
		}
	}
	return fmt.Errorf("%s %s: status %d, want %v: %.300s", method, target, status, want, body)
}

// round calls everything once at both gateways.
func (c *traffic) round(ctx context.Context) error {
	reader, writer := c.tokens[0], c.tokens[1]
	for _, g := range c.topo.gateways {
		for _, one := range []struct {
			method, path, token string
			want                []int
		}{
			{"GET", "/orders/1", reader, []int{200}},
			{"GET", "/orders/2", writer, []int{200}},
			{"POST", "/orders", writer, []int{200}},
			{"POST", "/orders", reader, []int{403}},
			{"GET", "/orders/1", "", []int{401}},
			{"GET", "/orders/1", "x", []int{401}},
			{"GET", "/shadowed", reader, []int{200}},
			{"GET", "/status", "", []int{200}},
			{"GET", "/limited/x", reader, []int{200, 429}},
			{"GET", "/nowhere", "", []int{404}},
		} {
			if err := c.call(ctx, one.method, g+one.path, one.token, one.want...); err != nil {
				return err
			}
		}
		if status, _, err := c.form(ctx, g+"/oauth/token", "demo-reader", "wrong", url.Values{"grant_type": {"client_credentials"}}); err != nil || status != http.StatusUnauthorized {
			return fmt.Errorf("a wrong secret: status %d, %v", status, err)
		}
	}
	return c.revocation(ctx)
}

// revocation revokes a new token at the first gateway and wants the second to
// refuse it.
func (c *traffic) revocation(ctx context.Context) error {
	token, err := c.token(ctx, c.topo.gateways[0], "demo-writer", c.topo.writer)
	if err != nil {
		return err
	}
	if status, _, err := c.form(ctx, c.topo.gateways[0]+"/oauth/revoke", "demo-writer", c.topo.writer, url.Values{"token": {token}}); err != nil || status != http.StatusOK {
		return fmt.Errorf("revoke: status %d, %v", status, err)
	}
	for end := time.Now().Add(5 * time.Second); ; {
		if err = c.call(ctx, "GET", c.topo.gateways[1]+"/orders/1", token, 401); err == nil || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// registered waits until the gateways know both backends.
func (c *traffic) registered(ctx context.Context) error {
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		seen := map[string]bool{}
		for _, g := range c.topo.gateways {
			for range 20 {
				var req *http.Request
				if req, err = http.NewRequestWithContext(ctx, http.MethodGet, g+"/orders/1", nil); err != nil {
					return err
				}
				req.Header.Set("Authorization", "Bearer "+c.tokens[0])
				var seenBy struct{ Instance string }
				status, body, e := c.do(req)
				if err = e; err == nil && status == http.StatusOK && json.Unmarshal(body, &seenBy) == nil {
					seen[g+" "+seenBy.Instance] = true
				}
			}
		}
		if len(seen) == 4 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("both gateways do not reach both backends: %w", err)
}
