package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	plaintext "google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/gatehouse/gatehouse/gateway/certs/certstest"
)

// secureConfig has a service for each way in which TLS to one may go.
const secureConfig = `
listeners:
  - {address: "127.0.0.1:%[1]d"}
  - {address: "127.0.0.1:%[2]d", protocol: h2c}
store: sqlite:%[3]s
authserver:
  issuer: http://127.0.0.1:%[1]d
  key_encryption_key: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
  scopes: {"call": Call}
  clients: [{id: batch, secret: 0123456789012345678901234567890123456789, grants: [client_credentials], scopes: [call]}]
defaults: {services: {protocol: grpc, retries: {attempts: 1}, breaker: off, timeouts: {connect: 20s}}}
services:
  good: {targets: ["%[4]s"], tls: {ca: ca.pem, server_name: greeter.internal, cert: gateway.crt, key: gateway.key}}
  address: {targets: ["%[4]s"], tls: {ca: ca.pem, cert: gateway.crt, key: gateway.key}}
  misnamed: {targets: ["%[4]s"], tls: {ca: ca.pem, server_name: other.internal, cert: gateway.crt, key: gateway.key}}
  stranger: {targets: ["%[4]s"], tls: {ca: other.pem, server_name: greeter.internal, cert: gateway.crt, key: gateway.key}}
  unshown: {targets: ["%[4]s"], tls: {ca: ca.pem, server_name: greeter.internal}}
  wrong: {targets: ["%[4]s"], tls: {ca: ca.pem, server_name: greeter.internal, cert: other.crt, key: other.key}}
  old: {targets: ["%[5]s"], tls: {ca: ca.pem, server_name: greeter.internal}}
  plain: {targets: ["%[6]s"], tls: {ca: ca.pem, server_name: greeter.internal}}
routes:
  - {name: good, hosts: [good.test], path: /**, service: good, auth: {scopes: [call]}}
  - {name: short, hosts: [short.test], path: /**, service: good, auth: {scopes: [call]}, streams: {max_lifetime: 1s}}
  - {name: address, hosts: [address.test], path: /**, service: address, public: true}
  - {name: misnamed, hosts: [misnamed.test], path: /**, service: misnamed, public: true}
  - {name: stranger, hosts: [stranger.test], path: /**, service: stranger, public: true}
  - {name: unshown, hosts: [unshown.test], path: /**, service: unshown, public: true}
  - {name: wrong, hosts: [wrong.test], path: /**, service: wrong, public: true}
  - {name: old, hosts: [old.test], path: /**, service: old, public: true}
  - {name: plain, hosts: [plain.test], path: /**, service: plain, public: true}
`

// serveCalls serves the interop service.
func serveCalls(t *testing.T, options ...grpc.ServerOption) net.Addr {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(options...)
	testgrpc.RegisterTestServiceServer(s, interop.NewTestServer())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ln) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return ln.Addr()
}

// secureGRPC is a process in front of services that want TLS. calls dials it
// for a host, api is where tokens are made.
func secureGRPC(t *testing.T) (calls func(host, token string) testgrpc.TestServiceClient, api string) {
	t.Helper()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	ca, other, gateways := certstest.NewCA(t, "Internal"), certstest.NewCA(t, "Other"), certstest.NewCA(t, "Gateways")
	ca.Write(t, path("ca.pem"))
	other.Write(t, path("other.pem"))
	gateways.Issue(t, certstest.Wanted{Subject: "gateway"}).Write(t, path("gateway.crt"), path("gateway.key"))
	other.Issue(t, certstest.Wanted{Subject: "gateway"}).Write(t, path("other.crt"), path("other.key"))
	leaf := ca.Issue(t, certstest.Wanted{Names: []string{"greeter.internal"}, IPs: []string{"127.0.0.1"}}).TLS()
	mutual := serveCalls(t, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{leaf}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: gateways.Pool(),
	})))
	old, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{leaf}, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	oldServer := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() { defer close(done); _ = oldServer.Serve(old) }()
	t.Cleanup(func() { oldServer.Close(); <-done })
	ports := freePorts(t, 2)
	runProcess(t, dir, fmt.Sprintf(secureConfig, ports[0], ports[1], path("x.db"), "https://"+mutual.String(), "https://"+old.Addr().String(), "https://"+serveCalls(t).String()))
	calls = func(host, token string) testgrpc.TestServiceClient {
		t.Helper()
		options := []grpc.DialOption{grpc.WithTransportCredentials(plaintext.NewCredentials()), grpc.WithAuthority(host)}
		if token != "" {
			options = append(options, grpc.WithPerRPCCredentials(bearer(token)))
		}
		cc, err := grpc.NewClient(fmt.Sprintf("passthrough:///127.0.0.1:%d", ports[1]), options...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cc.Close() })
		return testgrpc.NewTestServiceClient(cc)
	}
	return calls, fmt.Sprintf("http://127.0.0.1:%d", ports[0])
}

// TestGRPCOverTLSToTheService: ALPN, the CA, the name and the certificate of
// the gateway are what HTTP/1.1 has, and a stream of messages passes.
func TestGRPCOverTLSToTheService(t *testing.T) {
	calls, api := secureGRPC(t)
	token := clientToken(t, http.DefaultClient, api)
	f := func(host, reason string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		bearer := ""
		if host == "good.test" {
			bearer = token
		}
		_, err := calls(host, bearer).EmptyCall(ctx, &testgrpc.Empty{}, grpc.WaitForReady(true))
		s := status.Convert(err)
		if reason == "" && err != nil || reason != "" && (s.Code() != codes.Unavailable || !strings.HasPrefix(s.Message(), reason)) {
			t.Errorf("%s: got %v, want %s", host, err, reason)
		}
	}
	f("good.test", "")
	f("address.test", "")
	f("misnamed.test", "upstream_connect")
	f("stranger.test", "upstream_connect")
	f("old.test", "upstream_connect")   // no HTTP/2 by ALPN
	f("plain.test", "upstream_connect") // no TLS at all
	// In TLS 1.3 a client learns only later that it was turned away.
	f("unshown.test", "upstream_")
	f("wrong.test", "upstream_")
}

// A call that goes on ends with what allowed it, and says so.
func TestGRPCCallsEndWithTheirToken(t *testing.T) {
	calls, api := secureGRPC(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// begin opens a call and has one message go there and back.
	begin := func(host, token string) testgrpc.TestService_FullDuplexCallClient {
		t.Helper()
		stream, err := calls(host, token).FullDuplexCall(ctx, grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 10}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		return stream
	}
	ends := func(stream testgrpc.TestService_FullDuplexCallClient, code codes.Code, reason string) {
		t.Helper()
		_, err := stream.Recv()
		if s := status.Convert(err); s.Code() != code || !strings.HasPrefix(s.Message(), reason+":") {
			t.Errorf("got %v, want %v %s", err, code, reason)
		}
	}
	first, second := clientToken(t, http.DefaultClient, api), clientToken(t, http.DefaultClient, api)
	revoked, kept := begin("good.test", first), begin("good.test", second)
	resp, err := http.PostForm(api+"/oauth/revoke", url.Values{"token": {first}, "client_id": {"batch"}, "client_secret": {"0123456789012345678901234567890123456789"}})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	ends(revoked, codes.Unauthenticated, "token_revoked")
	if err := kept.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 10}}}); err != nil {
		t.Error(err)
	}
	if _, err := kept.Recv(); err != nil {
		t.Errorf("a call with another token: %v", err)
	}
	ends(begin("short.test", second), codes.Unavailable, "stream_expired")
}
