package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"
)

// selfCheck makes real calls over the real ports and prints what came of them.
type selfCheck struct {
	demo   *demo
	client *http.Client
	out    *tabwriter.Writer
	ran    int
	failed int
}

// outcome is one row: what was seen, and how long the decisive call took.
type outcome struct {
	want, got string
	took      time.Duration
	note      string
}

func runSelfCheck(ctx context.Context, d *demo, w io.Writer) (ok bool) {
	s := &selfCheck{
		demo:   d,
		client: &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		out:    tabwriter.NewWriter(w, 0, 0, 2, ' ', 0),
	}
	defer s.client.CloseIdleConnections()
	fmt.Fprintln(s.out, "self-check (real calls over the real ports)")
	reader, err := s.token(ctx, d.reader)
	if err != nil {
		fmt.Fprintln(w, "self-check: no token:", err)
		return false
	}
	writer, err := s.token(ctx, d.writer)
	if err != nil {
		fmt.Fprintln(w, "self-check: no token:", err)
		return false
	}
	s.row("no token", "GET /orders/1", s.expect(ctx, "401 token_missing", "GET", "/orders/1", ""))
	s.row("reader's token", "GET /orders/1", s.allowed(ctx, reader))
	s.row("reader's token", "POST /orders", s.expect(ctx, "403 scope_missing", "POST", "/orders", reader))
	s.row("over the limit", "GET /limited/x", s.limited(ctx, reader))
	s.row("an instance is lost", "GET /orders/1", s.lost(ctx, reader))
	s.row("the service fails", "GET /flaky/x", s.breaker(ctx, reader))
	s.row("token revoked", "GET /orders/1", s.revoked(ctx, d.writer, writer))
	_ = s.out.Flush()
	fmt.Fprintf(w, "%d of %d as expected\n", s.ran-s.failed, s.ran)
	return s.failed == 0
}

func (s *selfCheck) row(what, call string, o outcome) {
	s.ran++
	verdict := "ok"
	if o.got != o.want {
		s.failed++
		verdict = "FAILED, want " + o.want
	}
	fmt.Fprintf(s.out, "  %s\t%s\t%s\t%s\t%.1f ms\t%s\n", what, call, o.got, verdict, float64(o.took.Microseconds())/1000, o.note)
}

// call returns "STATUS reason" and the answer's body.
func (s *selfCheck) call(ctx context.Context, method, path, token string) (got, body string, took time.Duration) {
	req, err := http.NewRequestWithContext(ctx, method, s.demo.origin+path, nil)
	if err != nil {
		return err.Error(), "", 0
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	began := time.Now()
	resp, err := s.client.Do(req)
	if err != nil {
		return err.Error(), "", time.Since(began)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	took = time.Since(began)
	if err != nil {
		return err.Error(), "", took
	}
	var problem struct {
		Reason string `json:"reason"`
	}
	got = fmt.Sprint(resp.StatusCode)
	if resp.Header.Get("Content-Type") == "application/problem+json" && json.Unmarshal(content, &problem) == nil {
		got += " " + problem.Reason
	}
	return got, string(content), took
}

func (s *selfCheck) expect(ctx context.Context, want, method, path, token string) outcome {
	got, _, took := s.call(ctx, method, path, token)
	return outcome{want: want, got: got, took: took}
}

func (s *selfCheck) token(ctx context.Context, c demoClient) (string, error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	req, err := http.NewRequestWithContext(ctx, "POST", s.demo.origin+"/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(c.id, c.secret)
	resp, err := s.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var answer struct {
		AccessToken string `json:"access_token"`
		Error       string `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return "", err
	}
	if answer.AccessToken == "" {
		return "", fmt.Errorf("the token endpoint answered %d %s", resp.StatusCode, answer.Error)
	}
	return answer.AccessToken, nil
}

// allowed wants the backend to have seen who called.
func (s *selfCheck) allowed(ctx context.Context, token string) outcome {
	got, body, took := s.call(ctx, "GET", "/orders/1", token)
	if got == "200" && !strings.Contains(body, "client:"+s.demo.reader.id) {
		got = "200 without identity"
	}
	return outcome{want: "200", got: got, took: took, note: "the backend saw X-Auth-Subject client:" + s.demo.reader.id}
}

// limited calls until it is refused; the route's limit is 5 a minute.
func (s *selfCheck) limited(ctx context.Context, token string) outcome {
	allowed, refused := 0, 0
	var took time.Duration
	for range 7 {
		got, _, t := s.call(ctx, "GET", "/limited/x", token)
		switch got {
		case "200":
			allowed++
		case "429 rate_limited":
			refused++
		default:
			return outcome{want: "5×200 2×429", got: got, took: t}
		}
		took = t
	}
	return outcome{want: "5×200 2×429", got: fmt.Sprintf("%d×200 %d×429", allowed, refused), took: took}
}

// lost ends one instance abruptly, without deregistering it: no call may fail.
func (s *selfCheck) lost(ctx context.Context, token string) outcome {
	began := time.Now()
	s.demo.loseInstance()
	defer s.demo.restoreInstance(ctx)
	for range 30 {
		if got, _, took := s.call(ctx, "GET", "/orders/1", token); got != "200" {
			return outcome{want: "30×200", got: got, took: took}
		}
	}
	return outcome{want: "30×200", got: "30×200", took: time.Since(began), note: "served by the other instance"}
}

// breaker lets the service fail until the breaker opens, and heals it.
func (s *selfCheck) breaker(ctx context.Context, token string) outcome {
	const want = "503 breaker_open → 200"
	var got string
	for range 100 {
		if got, _, _ = s.call(ctx, "GET", "/flaky/x?status=500", token); got == "503 breaker_open" {
			break
		}
	}
	if got != "503 breaker_open" {
		return outcome{want: want, got: got}
	}
	began := time.Now()
	for time.Since(began) < 10*time.Second {
		if got, _, _ = s.call(ctx, "GET", "/flaky/x", token); got == "200" {
			return outcome{want: want, got: "503 breaker_open → 200", took: time.Since(began), note: "until it closed again"}
		}
		select {
		case <-ctx.Done():
			return outcome{want: want, got: ctx.Err().Error()}
		case <-time.After(50 * time.Millisecond):
		}
	}
	return outcome{want: want, got: got}
}

// revoked measures from the answer to the revocation to the first refusal.
func (s *selfCheck) revoked(ctx context.Context, c demoClient, token string) outcome {
	const want = "401 token_revoked"
	form := url.Values{"token": {token}}
	req, err := http.NewRequestWithContext(ctx, "POST", s.demo.origin+"/oauth/revoke", strings.NewReader(form.Encode()))
	if err != nil {
		return outcome{want: want, got: err.Error()}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(c.id, c.secret)
	resp, err := s.client.Do(req)
	if err != nil {
		return outcome{want: want, got: err.Error()}
	}
	resp.Body.Close()
	began := time.Now()
	got := ""
	for time.Since(began) < time.Second {
		if got, _, _ = s.call(ctx, "GET", "/orders/1", token); got == want {
			break
		}
	}
	return outcome{want: want, got: got, took: time.Since(began), note: "after the revocation was answered"}
}
