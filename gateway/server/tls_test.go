package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
)

func TestEncryptedConnectionsAreServedAlike(t *testing.T) {
	// httptest has a certificate and a client that trusts it.
	donor := httptest.NewTLSServer(http.NotFoundHandler())
	defer donor.Close()
	s := New(Config{
		Limits: testLimits, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		Handler: func(x *plugins.Exchange) error {
			if !x.TLS || !strings.Contains(string(x.Forwarding), "X-Forwarded-Proto: https\r\n") {
				t.Error("the exchange does not know that it is encrypted")
			}
			n := 0
			if x.Body != nil {
				content, err := io.ReadAll(x.Body)
				if err != nil {
					return err
				}
				n = len(content)
			}
			body := fmt.Append(nil, n)
			if err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Fields: fmt.Appendf(nil, "Content-Length: %d\r\n", len(body)), Length: int64(len(body))}); err != nil {
				return err
			}
			if _, err := x.Client.Write(body); err != nil {
				return err
			}
			return x.Client.Finish()
		},
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(tls.NewListener(ln, donor.TLS), Transport{Encrypted: true}) }()
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	client := donor.Client()
	for _, content := range []string{"", "abc", strings.Repeat("x", 300_000)} {
		resp, err := client.Post("https://"+ln.Addr().String()+"/x", "text/plain", strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(got) != fmt.Sprint(len(content)) {
			t.Errorf("%d bytes: %s", len(content), got)
		}
	}
	client.CloseIdleConnections()
}
