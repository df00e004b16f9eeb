package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func mkdir(t testing.TB, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

// request is one call of an API.
type request struct {
	method, path, token string
}

// answer is what came of a request.
type answer struct {
	request
	gateway    string // host:port
	sent, done time.Time
	status     int    // 0: none came
	reason     string // of a refusal
	instance   string
	body       string
	header     http.Header
	err        error
}

func (a answer) took() time.Duration { return a.done.Sub(a.sent) }

// line is a client's keep-alive connection. Unlike net/http's client it never
// sends a request again by itself, so it shows every failure.
type line struct {
	addr string
	conn net.Conn
	in   *bufio.Reader
}

const callTimeout = time.Minute

func (l *line) close() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

// call sends r, with more header lines as they stand, and reads the answer.
func (l *line) call(r request, more ...string) answer {
	a := answer{request: r, gateway: l.addr}
	if a.err = l.connect(); a.err != nil {
		a.sent = time.Now()
		a.done = a.sent
		return a
	}
	a.sent = time.Now()
	a.err = l.exchange(r, more, &a)
	a.done = time.Now()
	if a.err != nil {
		l.close()
	}
	return a
}

func (l *line) connect() (err error) {
	if l.conn != nil {
		return nil
	}
	if l.conn, err = net.DialTimeout("tcp", l.addr, callTimeout); err != nil {
		l.conn = nil
		return err
	}
	l.in = bufio.NewReader(l.conn)
	return nil
}

func (l *line) exchange(r request, more []string, a *answer) error {
	if err := l.conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString(r.method + " " + r.path + " HTTP/1.1\r\nHost: " + l.addr + "\r\n")
	if r.token != "" {
		b.WriteString("Authorization: Bearer " + r.token + "\r\n")
	}
	content := ""
	if r.method == http.MethodPost {
		content = `{"item":1}`
		b.WriteString("Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(content)) + "\r\n")
	}
	for _, field := range more {
		b.WriteString(field + "\r\n")
	}
	b.WriteString("\r\n" + content)
	if _, err := io.WriteString(l.conn, b.String()); err != nil {
		return err
	}
	resp, err := http.ReadResponse(l.in, &http.Request{Method: r.method})
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	a.status, a.header, a.body, a.instance = resp.StatusCode, resp.Header, string(body), resp.Header.Get("X-Instance")
	if resp.Header.Get("Content-Type") == "application/problem+json" {
		var problem struct{ Reason string }
		if err := json.Unmarshal(body, &problem); err != nil {
			return err
		}
		a.reason = problem.Reason
	}
	if resp.Close {
		l.close()
	}
	return nil
}

// call is one request on a connection of its own.
func (g *gateway) call(method, path, token string) answer {
	l := line{addr: g.addr}
	defer l.close()
	return l.call(request{method, path, token})
}

// want fails the test unless the answer has this status and, for a refusal,
// this reason.
func (a answer) want(t testing.TB, status int, reason string) answer {
	t.Helper()
	if a.err != nil || a.status != status || a.reason != reason {
		t.Fatalf("%s %s: answer %d %q %v, want %d %q: %s", a.method, a.path, a.status, a.reason, a.err, status, reason, a.body)
	}
	return a
}

// tokens is an answer of the token endpoint.
type tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	ID      string `json:"id_token"`
	Error   string `json:"error"`
}

// postForm sends a form to an endpoint of the authorization server.
func (g *gateway) postForm(path, client, secret string, form url.Values) (status int, body []byte, err error) {
	req, err := http.NewRequest(http.MethodPost, g.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if client != "" {
		req.SetBasicAuth(url.QueryEscape(client), url.QueryEscape(secret))
	}
	resp, err := plainClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// tokenEndpoint asks for tokens.
func (g *gateway) tokenEndpoint(t testing.TB, client, secret string, form url.Values) (int, tokens) {
	t.Helper()
	status, body, err := g.postForm("/oauth/token", client, secret, form)
	var answered tokens
	if err == nil {
		err = json.Unmarshal(body, &answered)
	}
	if err != nil {
		t.Fatalf("token endpoint: %d %v", status, err)
	}
	return status, answered
}

// token is a fresh access token of a confidential client.
func (g *gateway) token(t testing.TB, client string) string {
	t.Helper()
	status, answered := g.tokenEndpoint(t, client, batchSecret, url.Values{"grant_type": {"client_credentials"}})
	if status != http.StatusOK || answered.Access == "" {
		t.Fatalf("no token for %s: %d %s", client, status, answered.Error)
	}
	return answered.Access
}

// revoke revokes a token and returns when the answer was there. Like a client
// it comes back after a 503, which a busy database gives.
func (g *gateway) revoke(t testing.TB, client, secret, token string) time.Time {
	t.Helper()
	for attempt := 1; ; attempt++ {
		status, _, err := g.postForm("/oauth/revoke", client, secret, url.Values{"token": {token}})
		replied := time.Now()
		if err == nil && status == http.StatusServiceUnavailable && attempt < 5 {
			t.Logf("revocation: 503 at attempt %d", attempt)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if err != nil || status != http.StatusOK {
			t.Errorf("revocation: %d %v", status, err)
		}
		return replied
	}
}

// administer calls the admin API with the static token.
func (g *gateway) administer(t testing.TB, method, path string, body any) {
	t.Helper()
	content, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(method, g.admin+path, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+adminToken)
	resp, err := plainClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		answered, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s %s: %s %s", method, path, resp.Status, answered)
	}
}

// claimsOf reads a JWT without verifying it.
func claimsOf(t testing.TB, token string) (claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatal("not a JWT")
	}
	raw, err := b64.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(raw, &claims)
	}
	if err != nil {
		t.Fatal(err)
	}
	return claims
}
