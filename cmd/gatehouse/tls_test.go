package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/gateway/certs/certstest"
)

// freePorts are loopback addresses that nobody listens on now.
func freePorts(t *testing.T, n int) (list []any) {
	t.Helper()
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		list = append(list, ln.Addr().(*net.TCPAddr).Port)
	}
	return list
}

// runProcess runs the configuration in dir/gatehouse.yaml until the test ends.
func runProcess(t *testing.T, dir, config string) *process {
	t.Helper()
	return runLogged(t, dir, config, io.Discard)
}

// runLogged is runProcess with the process log.
func runLogged(t *testing.T, dir, config string, log io.Writer) *process {
	t.Helper()
	path := filepath.Join(dir, "gatehouse.yaml")
	if err := os.WriteFile(path, []byte(config+"\nserver: {drain_delay: 0s}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := load(path, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkFile(file); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p, err := newProcess(ctx, file, false, slog.New(slog.NewJSONHandler(log, nil)))
	if err != nil {
		stop()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	eventually(t, "ready", p.ready.Load)
	return p
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// mtlsConfig has a listener with TLS, one behind a balancer that tells the
// client's certificate, and one behind a balancer that does not.
const mtlsConfig = `
listeners:
  - address: 127.0.0.1:%d
    tls:
      certificates: [{cert: api.crt, key: api.key}, {cert: shop.crt, key: shop.key}]
      client_ca: clients.pem
      client_auth: request
  - {address: "127.0.0.1:%d", tls: {terminated: true, client_cert_header: true}}
  - {address: "127.0.0.1:%d", tls: terminated}
trusted_proxies: [127.0.0.1/32]
store: sqlite:%s
authserver:
  issuer: https://localhost:%d
  key_encryption_key: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
  scopes: {"read:a": Read}
  clients:
    - {id: batch, secret: 0123456789012345678901234567890123456789, grants: [client_credentials], scopes: ["read:a"]}
    - {id: certified, token_endpoint_auth_method: tls_client_auth, tls_client_auth_subject_dn: CN=certified, tls_client_certificate_bound_access_tokens: true, grants: [client_credentials], scopes: ["read:a"]}
services:
  told: {targets: ["%s"], identity: {client_cert: true}}
  untold: {targets: ["%s"]}
routes:
  - {path: /bound, service: told, auth: {scopes: ["read:a"], mtls: required}}
  - {path: /unasked, service: told, auth: {scopes: ["read:a"]}}
  - {path: /open, service: told, public: true}
  - {path: /untold, service: untold, public: true}
tests:
  - {as: {client: batch}, request: "GET https://a.example/bound", expect: client_certificate_required}
  - {as: {client: batch, client_cert: true}, request: "GET https://a.example/bound", expect: allow}
`

// S40, OAUTH 51: the certificate of the handshake reaches the service, what a
// client says about one does not.
func TestS40ClientCertificateFromTheHandshakeToTheService(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			if strings.HasPrefix(strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(name)), "client-cert") {
				fmt.Fprint(w, name, "=", strings.Join(r.Header[name], "|"), " ")
			}
		}
	}))
	defer backend.Close()
	ca, partners, dir := certstest.NewCA(t, "CA"), certstest.NewCA(t, "Partners"), t.TempDir()
	for _, name := range []string{"api", "shop"} {
		ca.Issue(t, certstest.Wanted{Names: []string{"localhost", name + ".example"}}).Write(t, filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	}
	partners.Write(t, filepath.Join(dir, "clients.pem"))
	ports := freePorts(t, 3)
	runProcess(t, dir, fmt.Sprintf(mtlsConfig, ports[0], ports[1], ports[2], filepath.Join(dir, "x.db"), ports[0], backend.URL, backend.URL))

	cert := partners.Issue(t, certstest.Wanted{Names: []string{"batch"}})
	told := ":" + base64.StdEncoding.EncodeToString(cert.Cert.Raw) + ":"
	without := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}}
	with := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{cert.TLS()}}}}
	defer without.CloseIdleConnections()
	defer with.CloseIdleConnections()
	token := clientToken(t, without, fmt.Sprintf("https://localhost:%d", ports[0]))
	encrypted, behind, mute := fmt.Sprintf("https://localhost:%d", ports[0]), fmt.Sprintf("http://127.0.0.1:%d", ports[1]), fmt.Sprintf("http://127.0.0.1:%d", ports[2])
	f := func(name string, client *http.Client, target string, fields [][2]string, want string) {
		t.Helper()
		r, err := http.NewRequest("GET", target, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		for _, field := range fields {
			r.Header[field[0]] = append(r.Header[field[0]], field[1])
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(name, err)
		}
		defer resp.Body.Close()
		content, _ := io.ReadAll(resp.Body)
		got := strings.TrimSpace(string(content))
		if resp.StatusCode != http.StatusOK {
			var problem struct{ Reason string }
			_ = json.Unmarshal(content, &problem)
			got = fmt.Sprint(resp.StatusCode, " ", problem.Reason)
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	spoofed := [][2]string{{"Client-Cert", told}, {"client_cert", told}, {"CLIENT.CERT", told}, {"Client-Cert-Chain", told}, {"Connection", "client-cert"}}
	refused := "403 client_certificate_required"
	f("shown", with, encrypted+"/bound", nil, "Client-Cert="+told)
	f("shown, and another one told", with, encrypted+"/bound", [][2]string{{"Client-Cert", ":AAAA:"}, {"Client-Cert", ":AAAA:"}}, "Client-Cert="+told)
	f("absent", without, encrypted+"/bound", nil, refused)
	f("absent, but told by the client", without, encrypted+"/bound", spoofed, refused)
	f("told by the client on a public route", without, encrypted+"/open", spoofed, "")
	f("shown on a public route", with, encrypted+"/open", spoofed, "Client-Cert="+told)
	f("a service that does not want it", with, encrypted+"/untold", spoofed, "")
	f("told by the balancer", without, behind+"/bound", spoofed, "Client-Cert="+told)
	f("not told by the balancer", without, behind+"/bound", nil, refused)
	f("told twice by the balancer", without, behind+"/bound", [][2]string{{"Client-Cert", told}, {"Client-Cert", told}}, refused)
	f("told badly", without, behind+"/bound", [][2]string{{"Client-Cert", strings.Trim(told, ":")}}, refused)
	f("told, but no certificate", without, behind+"/bound", [][2]string{{"Client-Cert", ":AAAA:"}}, refused)
	f("a balancer that may not tell", without, mute+"/bound", spoofed, refused)
}

func clientToken(t *testing.T, client *http.Client, issuer string) string {
	t.Helper()
	token, err := accessToken(client, issuer, "batch", "0123456789012345678901234567890123456789", "")
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestRenewedCertificateIsServedWithoutARestart(t *testing.T) {
	ca, dir, ports := certstest.NewCA(t, "CA"), t.TempDir(), freePorts(t, 2)
	issue := func() *certstest.Leaf {
		leaf := ca.Issue(t, certstest.Wanted{Names: []string{"api.example"}})
		leaf.Write(t, filepath.Join(dir, "api.crt"), filepath.Join(dir, "api.key"))
		return leaf
	}
	first := issue()
	p := runProcess(t, dir, fmt.Sprintf(`
listeners: [{address: "127.0.0.1:%d", tls: {cert: api.crt, key: api.key}}]
admin: {address: "127.0.0.1:%d"}
services: {a: {targets: ["http://127.0.0.1:1"]}}
routes: [{path: /a, service: a, public: true}]
`, ports...))
	shown := func() string {
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0]), &tls.Config{RootCAs: ca.Pool(), ServerName: "api.example"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	if shown() != first.Cert.SerialNumber.String() {
		t.Error("another certificate is shown")
	}
	second := issue()
	eventually(t, "the new certificate is shown", func() bool { return shown() == second.Cert.SerialNumber.String() })
	metrics := func() string {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", ports[1]))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return string(text)
	}
	if text := metrics(); !strings.Contains(text, `gateway_tls_cert_expiry_timestamp_seconds{name="api.example"} 1.`) || !strings.Contains(text, `gateway_tls_cert_stale{name="api.example"} 0`) {
		t.Error("the metrics do not tell of the certificate")
	}
	if err := os.WriteFile(filepath.Join(dir, "api.key"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the metric tells of the broken file", func() bool { return strings.Contains(metrics(), `gateway_tls_cert_stale{name="api.example"} 1`) })
	if shown() != second.Cert.SerialNumber.String() {
		t.Error("the last good certificate is not shown")
	}
	// What never was good is refused with the whole file.
	broken := strings.Replace(mustRead(t, p.path), "cert: api.crt", "cert: api.key", 1)
	if err := os.WriteFile(p.path, []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reload is refused", func() bool { return strings.Contains(metrics(), "gateway_config_last_reload_successful 0") })
	if shown() != second.Cert.SerialNumber.String() {
		t.Error("a refused reload changed the certificate")
	}
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestClientsAddressOfThePROXYProtocolReachesTheService(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header["X-Forwarded-For"], r.Header["X-Forwarded-Proto"])
	}))
	defer backend.Close()
	ca, dir, ports := certstest.NewCA(t, "CA"), t.TempDir(), freePorts(t, 2)
	ca.Issue(t, certstest.Wanted{Names: []string{"localhost"}}).Write(t, filepath.Join(dir, "api.crt"), filepath.Join(dir, "api.key"))
	runProcess(t, dir, fmt.Sprintf(`
listeners:
  - {address: "127.0.0.1:%d", tls: {cert: api.crt, key: api.key}, proxy_protocol: {trusted: [127.0.0.0/8]}}
  - {address: "127.0.0.1:%d", proxy_protocol: {trusted: [127.0.0.0/8]}}
services: {a: {targets: ["%s"]}}
routes: [{path: /a, service: a, public: true}]
`, append(ports, backend.URL)...))
	for i, scheme := range []string{"https", "http"} {
		for _, protocols := range [][]string{{"http/1.1"}, {"h2"}} {
			if i == 1 && protocols[0] == "h2" {
				continue
			}
			dial := func(ctx context.Context, network, address string) (net.Conn, error) {
				var d net.Dialer
				c, err := d.DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", ports[i]))
				if err == nil {
					_, err = io.WriteString(c, "PROXY TCP4 192.0.2.7 10.0.0.1 1234 443\r\n")
				}
				return c, err
			}
			transport := &http.Transport{
				DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), NextProtos: protocols}, ForceAttemptHTTP2: protocols[0] == "h2",
			}
			client := &http.Client{Transport: transport}
			for range 2 {
				resp, err := client.Get(scheme + "://localhost/a")
				if err != nil {
					t.Fatal(scheme, protocols, err)
				}
				content, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if want := "[192.0.2.7] [" + scheme + "]"; string(content) != want {
					t.Errorf("%s %v: the service saw %s, want %s", scheme, protocols, content, want)
				}
			}
			client.CloseIdleConnections()
		}
	}
	// The balancer itself must not forget it.
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/a", ports[1]))
	if err == nil {
		resp.Body.Close()
		t.Error("a connection without a header was served:", resp.Status)
	}
}

func TestACMECertificateIsObtainedThroughTheGateway(t *testing.T) {
	const config = `
listeners:
  - address: 127.0.0.1:%d
    tls:
      acme: {domains: [api.example.com], email: ops@example.com, directory: "%s", storage: acme, ca: directory.pem}
      client_ca: directory.pem
%s
services: {a: {targets: ["http://127.0.0.1:1"]}}
routes: [{path: /**, service: a, auth: {}}]
issuers: [{issuer: "http://127.0.0.1:1", audiences: [a]}]
`
	f := func(name string, overHTTP bool) {
		t.Helper()
		dir, ports := t.TempDir(), freePorts(t, 2)
		tlsPort, httpPort, plain := ports[0].(int), 1, ""
		if overHTTP {
			tlsPort, httpPort = 1, ports[1].(int)
			plain = fmt.Sprintf("  - {address: 127.0.0.1:%d}", httpPort)
		}
		p := certstest.StartPebble(t, tlsPort, httpPort, time.Hour)
		p.CA.Write(t, filepath.Join(dir, "directory.pem"))
		runProcess(t, dir, fmt.Sprintf(config, ports[0], p.Directory, plain))
		eventually(t, name, func() bool {
			// The client has no certificate, so it learns only the gateway's.
			verify := func(s tls.ConnectionState) error {
				_, err := s.PeerCertificates[0].Verify(p.Verify("api.example.com"))
				return err
			}
			c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0]), &tls.Config{ServerName: "api.example.com", InsecureSkipVerify: true, VerifyConnection: verify})
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
	f("by TLS", false)
	f("over HTTP", true)
}
