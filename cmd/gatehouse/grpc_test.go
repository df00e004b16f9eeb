package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/quic-go/quic-go/http3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	plaintext "google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// failing makes the interop client's Fatal end the case instead of the process.
type failing struct {
	grpclog.LoggerV2
	why atomic.Pointer[string]
}

func (f *failing) end(why string) {
	f.why.Store(&why)
	runtime.Goexit()
}

// run returns why do failed; nil if it did not.
func (f *failing) run(do func()) (why *string) {
	f.why.Store(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	<-done
	return f.why.Load()
}

func (f *failing) FatalDepth(_ int, args ...any)     { f.end(fmt.Sprint(args...)) }
func (f *failing) Fatal(args ...any)                 { f.end(fmt.Sprint(args...)) }
func (f *failing) Fatalln(args ...any)               { f.end(fmt.Sprint(args...)) }
func (f *failing) Fatalf(format string, args ...any) { f.end(fmt.Sprintf(format, args...)) }
func (f *failing) InfoDepth(int, ...any)             {}
func (f *failing) WarningDepth(int, ...any)          {}
func (f *failing) ErrorDepth(int, ...any)            {}

// grpcRig is a whole process between the interop client and server.
type grpcRig struct {
	clear, tls string
	roots      *x509.CertPool
	key        *ecdsa.PrivateKey
}

func startGRPC(t *testing.T) *grpcRig {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	jwks, err := json.Marshal(map[string]any{"keys": []any{map[string]any{
		"kty": "EC", "crv": "P-256", "kid": "k1", "alg": "ES256", "use": "sig", "x": b64(point[1:33]), "y": b64(point[33:]),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(jwks) }))
	t.Cleanup(keys.Close)

	r := &grpcRig{key: key, roots: x509.NewCertPool()}
	folder := t.TempDir()
	certificate(t, folder, key, r.roots)
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	go func() { _ = server.Serve(backend) }()
	t.Cleanup(server.Stop)

	base := 12000 + os.Getpid()%8000
	if err := freeAddress(base, &r.clear); err != nil {
		t.Fatal(err)
	}
	if err := freeAddress(base+100, &r.tls); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(folder, "gatehouse.yaml")
	content := fmt.Sprintf(`
listeners:
  - {address: %[1]s, protocol: h2c}
  - {address: %[2]s, tls: {cert: cert.pem, key: key.pem}, http3: true}
issuers:
  - {issuer: "https://idp.test", jwks_uri: "%[3]s", audiences: ["https://api.test"], algorithms: [ES256]}
services:
  test: {targets: ["http://%[4]s"], protocol: grpc}
  nobody: {targets: ["http://127.0.0.1:1"], protocol: grpc, retries: {attempts: 1}}
defaults:
  routes: {auth: {audience: "https://api.test"}}
routes:
  - {name: empty, path: /grpc.testing.TestService/EmptyCall, service: test, auth: {scopes: [empty]}}
  - {name: unary, path: /grpc.testing.TestService/UnaryCall, service: test, auth: {scopes: [unary]}}
  - {name: stream, path: "/grpc.testing.TestService/*", service: test, auth: {scopes: [stream]}}
  - {name: missing, path: "/grpc.testing.UnimplementedService/**", service: test, auth: {scopes: [stream]}}
  - {name: nobody, path: /nobody/Call, service: nobody, auth: {scopes: [empty]}}
  - {name: few, path: /few/Call, service: test, auth: {scopes: [empty]}, rate_limit: {limit: 1, per: 1h, by: client}}
`, r.clear, r.tls, keys.URL, backend.Addr())
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := load(config, false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p, err := newProcess(ctx, file, true, slog.New(slog.DiscardHandler))
	if err != nil {
		stop()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("the process ended with %v", err)
		}
	})
	return r
}

// certificate writes a self-signed one for localhost.
func certificate(t *testing.T, folder string, key *ecdsa.PrivateKey, roots *x509.CertPool) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	roots.AppendCertsFromPEM(public)
	for name, content := range map[string][]byte{
		"cert.pem": public, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// bearer is a token with scopes, on every call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}
func (bearer) RequireTransportSecurity() bool { return false }

func (r *grpcRig) dial(t *testing.T, secure bool, scopes ...string) *grpc.ClientConn {
	t.Helper()
	var options []grpc.DialOption
	addr := r.clear
	if secure {
		addr = "localhost" + r.tls[strings.LastIndexByte(r.tls, ':'):]
		options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: r.roots})))
	} else {
		options = append(options, grpc.WithTransportCredentials(plaintext.NewCredentials()))
	}
	if len(scopes) > 0 {
		now := time.Now()
		token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
			"iss": "https://idp.test", "sub": "user-1", "aud": "https://api.test", "client_id": "app-1", "jti": "j1",
			"scope": strings.Join(scopes, " "), "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		})
		token.Header["kid"], token.Header["typ"] = "k1", "at+jwt"
		signed, err := token.SignedString(r.key)
		if err != nil {
			t.Fatal(err)
		}
		options = append(options, grpc.WithPerRPCCredentials(bearer(signed)))
	}
	cc, err := grpc.NewClient("passthrough:///"+addr, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

func TestGRPCInteroperates(t *testing.T) {
	logger := &failing{LoggerV2: grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)}
	grpclog.SetLoggerV2(logger)
	r := startGRPC(t)
	tries := map[string]int{"cancel_after_begin": 5} // beyond the first
	for name, secure := range map[string]bool{"h2c": false, "tls": true} {
		cc := r.dial(t, secure, "empty", "unary", "stream")
		tc := testgrpc.NewTestServiceClient(cc)
		f := func(test string, do func(ctx context.Context)) {
			t.Helper()
			t.Run(name+"/"+test, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				// The client ends a call that it cancels and asks for the answer at
				// once: a goroutine of its own, which a busy machine may keep waiting,
				// has to notice first. What a gateway does wrong it does each time.
				var why *string
				for range tries[test] + 1 {
					if why = logger.run(func() { do(ctx) }); why == nil {
						return
					}
				}
				t.Fatal(*why)
			})
		}
		wait := grpc.WaitForReady(true)
		f("empty_unary", func(ctx context.Context) { interop.DoEmptyUnaryCall(ctx, tc, wait) })
		f("large_unary", func(ctx context.Context) { interop.DoLargeUnaryCall(ctx, tc) })
		f("client_streaming", func(ctx context.Context) { interop.DoClientStreaming(ctx, tc) })
		f("server_streaming", func(ctx context.Context) { interop.DoServerStreaming(ctx, tc) })
		f("ping_pong", func(ctx context.Context) { interop.DoPingPong(ctx, tc) })
		f("empty_stream", func(ctx context.Context) { interop.DoEmptyStream(ctx, tc) })
		f("timeout_on_sleeping_server", func(ctx context.Context) { interop.DoTimeoutOnSleepingServer(ctx, tc) })
		f("cancel_after_begin", func(ctx context.Context) { interop.DoCancelAfterBegin(ctx, tc) })
		f("cancel_after_first_response", func(ctx context.Context) { interop.DoCancelAfterFirstResponse(ctx, tc) })
		f("status_code_and_message", func(ctx context.Context) { interop.DoStatusCodeAndMessage(ctx, tc) })
		f("special_status_message", func(ctx context.Context) { interop.DoSpecialStatusMessage(ctx, tc) })
		f("custom_metadata", func(ctx context.Context) { interop.DoCustomMetadata(ctx, tc) })
		f("unimplemented_method", func(ctx context.Context) { interop.DoUnimplementedMethod(ctx, cc) })
		f("unimplemented_service", func(ctx context.Context) {
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(cc))
		})
	}
}

func TestHTTP3IsServedBesideTheTLSListenerAndAnnounced(t *testing.T) {
	r := startGRPC(t)
	port := r.tls[strings.LastIndexByte(r.tls, ':'):]
	secure := &tls.Config{RootCAs: r.roots}
	over3 := &http3.Transport{TLSClientConfig: secure}
	defer over3.Close()
	over2 := &http.Transport{TLSClientConfig: secure.Clone(), ForceAttemptHTTP2: true}
	defer over2.CloseIdleConnections()
	for proto, tr := range map[string]http.RoundTripper{"HTTP/3.0": over3, "HTTP/2.0": over2} {
		var resp *http.Response
		var err error
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			req, _ := http.NewRequest("GET", "https://localhost"+port+"/grpc.testing.TestService/EmptyCall", nil)
			if resp, err = tr.RoundTrip(req); err == nil || time.Now().After(deadline) {
				break
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.Proto != proto || resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %s %s", proto, resp.Proto, resp.Status)
		}
		if got := resp.Header.Get("Alt-Svc"); proto == "HTTP/2.0" && got != `h3="`+port+`"; ma=86400` {
			t.Errorf("Alt-Svc: %q", got)
		}
	}
}

func TestGRPCRefusalsAreStatuses(t *testing.T) {
	r := startGRPC(t)
	f := func(name, method string, want codes.Code, reason string, scopes ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := r.dial(t, false, scopes...).Invoke(ctx, method, &testgrpc.Empty{}, &testgrpc.Empty{}, grpc.WaitForReady(true))
			if s := status.Convert(err); s.Code() != want || !strings.HasPrefix(s.Message(), reason) {
				t.Errorf("got %v, want %v %s", s, want, reason)
			}
		})
	}
	f("no token", "/grpc.testing.TestService/EmptyCall", codes.Unauthenticated, "token_missing: ")
	f("scope of another method", "/grpc.testing.TestService/EmptyCall", codes.PermissionDenied, "scope_missing: ", "unary", "stream")
	f("no route", "/grpc.testing.Other/Call", codes.Unimplemented, "no_route: ", "empty")
	f("nobody there", "/nobody/Call", codes.Unavailable, "upstream_connect: ", "empty")
	f("within the limit", "/few/Call", codes.Unimplemented, "unknown service few", "empty")
	f("over the limit", "/few/Call", codes.ResourceExhausted, "rate_limited: ", "empty")
}
