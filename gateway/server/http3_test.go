package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/gatehouse/gatehouse/plugins"
)

// http3 serves HTTP/3 beside r's listeners and returns a client of it.
func (r *h2rig) http3(t testing.TB) *http.Client {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := conn.LocalAddr().String()
	done := make(chan error, 1)
	go func() { done <- r.server.ServeHTTP3(conn, r.donor.TLS, oneCertificate{}.Covers) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := r.server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	tr := &http3.Transport{
		TLSClientConfig:    r.donor.Client().Transport.(*http.Transport).TLSClientConfig.Clone(),
		DisableCompression: true,
		Dial: func(ctx context.Context, _ string, cfg *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return quic.DialAddr(ctx, addr, cfg, q)
		},
	}
	t.Cleanup(func() { _ = tr.Close() })
	return &http.Client{Transport: tr}
}

func TestHTTP3PassesTheSameGate(t *testing.T) {
	r := startHTTP2(t, nil, func(x *plugins.Exchange) error {
		switch string(x.Path) {
		case "/refused":
			return &plugins.Error{Status: 401, Code: plugins.TokenMissing}
		case "/cut":
			if err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Length: -1}); err != nil {
				return err
			}
			_, _ = x.Client.Write([]byte("a part"))
			_ = x.Client.Flush()
			return &plugins.Error{Status: 502, Code: plugins.UpstreamReset}
		}
		if _, n := x.Field("x-auth-subject"); n != 0 {
			for _, f := range x.Fields {
				if strings.EqualFold(string(f.Name), "x-auth-subject") && !f.Drop {
					t.Error("an identity came from outside")
				}
			}
		}
		if !x.TLS || x.Peer.String() != "127.0.0.1" || string(x.Host) != "example.com" {
			t.Errorf("exchange: %v %v %s", x.TLS, x.Peer, x.Host)
		}
		if x.Body == nil {
			return answer(x, 200, "Content-Length: 5\r\n", "empty")
		}
		if err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Length: -1}); err != nil {
			return err
		}
		if err := x.Client.Flush(); err != nil {
			return err
		}
		buf := make([]byte, 32<<10)
		for {
			n, err := x.Body.Read(buf)
			if _, err := x.Client.Write(buf[:n]); err != nil {
				return err
			}
			if err := x.Client.Flush(); err != nil {
				return err
			}
			if err == io.EOF {
				x.Client.Trailer([]byte("X-Sum: 7\r\n"))
				return x.Client.Finish()
			}
			if err != nil {
				return err
			}
		}
	})
	c := r.http3(t)
	ask := func(method, host, path string, body io.Reader) *http.Response {
		t.Helper()
		req, err := http.NewRequest(method, "https://example.com"+path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("X-Auth-Subject", "mallory")
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	if body, _ := io.ReadAll(ask("GET", "example.com", "/", nil).Body); string(body) != "empty" {
		t.Errorf("GET: %q", body)
	}
	if body, _ := io.ReadAll(ask("POST", "example.com", "/", strings.NewReader("content")).Body); string(body) != "content" {
		t.Errorf("POST: %q", body)
	}

	in, out := io.Pipe()
	resp := ask("POST", "example.com", "/", in)
	piece := bytes.Repeat([]byte("x"), 50_000)
	back := make([]byte, len(piece))
	for range 10 {
		sent := make(chan struct{})
		go func() { defer close(sent); _, _ = out.Write(piece) }()
		if _, err := io.ReadFull(resp.Body, back); err != nil {
			t.Fatal(err)
		}
		<-sent
	}
	out.Close()
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil || resp.Trailer.Get("X-Sum") != "7" {
		t.Errorf("the end: %q %v, trailers %v", rest, err, resp.Trailer)
	}

	refused := func(resp *http.Response, status int, reason string) {
		t.Helper()
		var problem struct{ Reason string }
		if err := json.NewDecoder(resp.Body).Decode(&problem); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != status || problem.Reason != reason {
			t.Errorf("%d %v, want %d %s", resp.StatusCode, problem, status, reason)
		}
	}
	refused(ask("GET", "example.com", "/refused", nil), 401, plugins.TokenMissing)
	refused(ask("GET", "other.example.com", "/", nil), 421, plugins.Misdirected)
	refused(ask("GET", "example.com", "/a%00", nil), 400, plugins.BadRequest)
	if resp, err := c.Get("https://example.com/cut"); err == nil {
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("a part was taken for the whole: %q", body)
		}
	}
	if n := r.server.Status().Connections; n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestHTTP3ClientThatCancelsAndShutdown(t *testing.T) {
	entered, leave := make(chan struct{}, 2), make(chan struct{})
	gone := make(chan bool, 1)
	r := startHTTP2(t, nil, func(x *plugins.Exchange) error {
		if string(x.Path) == "/cancel" {
			w := waiter{make(chan struct{})}
			x.Client.Watch(w)
			defer x.Client.Watch(nil)
			entered <- struct{}{}
			<-w.aborted
			gone <- x.Client.Gone()
			return &plugins.Error{Status: 499, Code: plugins.ClientGone}
		}
		entered <- struct{}{}
		<-leave
		return answer(x, 200, "Content-Length: 4\r\n", "done")
	})
	c := r.http3(t)
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", "https://example.com/cancel", nil)
	failed := make(chan error, 1)
	go func() { _, err := c.Do(req); failed <- err }()
	<-entered
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if !<-gone {
		t.Error("the client is not known to have left")
	}

	got := make(chan string, 1)
	go func() {
		resp, err := c.Get("https://example.com/wait")
		if err != nil {
			got <- err.Error()
			return
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			got <- err.Error()
			return
		}
		got <- string(body)
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- r.server.Shutdown(t.Context()) }()
	select {
	case err := <-stopped:
		t.Fatalf("shutdown did not wait: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	close(leave)
	if s := <-got; s != "done" {
		t.Error(s)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestHTTP3IsAnnouncedOnlyWhereItIsServed(t *testing.T) {
	r := startHTTP2(t, nil, func(x *plugins.Exchange) error { return answer(x, 200, "Content-Length: 0\r\n", "") })
	if resp, err := r.client(t, true).Get("https://example.com/"); err != nil || resp.Header["Alt-Svc"] != nil {
		t.Error(resp, err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	offer := r.donor.TLS.Clone()
	offer.NextProtos = []string{"h2", "http/1.1"}
	done := make(chan error, 1)
	go func() {
		done <- r.server.Serve(tls.NewListener(ln, offer), Transport{Encrypted: true, Alternative: `h3=":8443"; ma=86400`})
	}()
	t.Cleanup(func() {
		_ = r.server.Shutdown(context.Background())
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	r.tls = ln.Addr().String()
	for _, version := range []int{1, 2} {
		c := r.client(t, true)
		if version == 1 {
			p := new(http.Protocols)
			p.SetHTTP1(true)
			c.Transport.(*http.Transport).Protocols = p
		}
		resp, err := c.Get("https://example.com/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Alt-Svc"); got != `h3=":8443"; ma=86400` || resp.ProtoMajor != version {
			t.Errorf("%s: %q", resp.Proto, got)
		}
	}
}
