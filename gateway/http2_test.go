package gateway_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/discovery"
	"github.com/gatehouse/gatehouse/gateway"
	"github.com/gatehouse/gatehouse/gateway/server"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// statuses keeps what is recorded of exchanges.
type statuses chan plugins.Record

func (s statuses) Record(x *plugins.Exchange, _ time.Duration) { s <- x.Record }

// h2rig is a gateway between clients of both versions and an h2c service.
type h2rig struct {
	gw      *gateway.Gateway
	one     string // address for HTTP/1.1
	two     *http.Client
	records statuses
}

func serveHTTP2(t *testing.T, change func(*routes.Route), handler http.HandlerFunc) (*h2rig, *httptest.Server) {
	t.Helper()
	origin := httptest.NewUnstartedServer(handler)
	origin.Config.Protocols = new(http.Protocols)
	origin.Config.Protocols.SetUnencryptedHTTP2(true)
	origin.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	origin.Start()
	t.Cleanup(origin.Close)
	at := origin.Listener.Addr().(*net.TCPAddr).AddrPort()

	r := &h2rig{records: make(statuses, 1000)}
	r.gw = gateway.New(gateway.Config{
		Discover: func(_ *routes.Service, found func([]discovery.Endpoint)) (func(), error) {
			found([]discovery.Endpoint{{ID: "0", Addr: netip.AddrPortFrom(at.Addr(), at.Port()), Weight: 1}})
			return func() {}, nil
		},
		Settle: time.Second, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	all := route("everything", "/**")
	all.Upstream.Protocol = "h2c"
	all.Streams = routes.Streams{IdleTimeout: time.Minute, MaxLifetime: time.Hour}
	if change != nil {
		change(all)
	}
	if err := r.gw.Load(context.Background(), &routes.File{Routes: []*routes.Route{all}}); err != nil {
		t.Fatal(err)
	}
	patient := limits // with clients that send slowly
	patient.BodyIdleTimeout = time.Minute
	s := server.New(server.Config{
		Handler: r.gw.Serve, Limits: patient, Recorders: []server.Recorder{r.records},
		Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	one, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	two, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() { done <- s.Serve(one, server.Transport{}) }()
	go func() { done <- s.ServeHTTP2(two, server.Transport{}) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		<-done
		<-done
		r.gw.Close()
	})
	r.one = "http://" + one.Addr().String()
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, two.Addr().String())
	}
	t.Cleanup(tr.CloseIdleConnections)
	r.two = &http.Client{Transport: tr}
	return r, origin
}

// both runs test for a client of each version of HTTP.
func (r *h2rig) both(t *testing.T, test func(t *testing.T, c *http.Client, base string)) {
	t.Helper()
	old := &http.Transport{}
	t.Cleanup(old.CloseIdleConnections)
	t.Run("HTTP/1.1", func(t *testing.T) { t.Helper(); test(t, &http.Client{Transport: old}, r.one) })
	t.Run("HTTP/2", func(t *testing.T) { t.Helper(); test(t, r.two, "http://example.com") })
}

func TestServiceOverHTTP2GetsTheRequestAsItIs(t *testing.T) {
	r, _ := serveHTTP2(t, nil, func(w http.ResponseWriter, q *http.Request) {
		if q.ProtoMajor != 2 || q.URL.EscapedPath() != "/a%20b" || q.URL.RawQuery != "x=1&y" || q.Header.Get("Te") != "trailers" {
			t.Errorf("%s %s ?%s %v", q.Proto, q.URL.EscapedPath(), q.URL.RawQuery, q.Header)
		}
		if q.Header.Get("X-Auth-Subject") != "" || q.Header.Get("X-Forwarded-For") != "127.0.0.1" || q.Header["User-Agent"] != nil {
			t.Errorf("fields: %v", q.Header)
		}
		content, _ := io.ReadAll(q.Body)
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Auth-Subject", "a lie")
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write(content)
		w.Header().Set("X-Sum", "7")
	})
	r.both(t, func(t *testing.T, c *http.Client, base string) {
		for _, content := range []string{"", "abc", string(bytes.Repeat([]byte("x"), 300_000))} {
			for _, length := range []int64{int64(len(content)), -1} {
				req, _ := http.NewRequest("POST", base+"/a%20b?x=1&y", io.NopCloser(bytes.NewReader([]byte(content))))
				req.ContentLength = length
				req.Header = http.Header{"X-Auth-Subject": {"mallory"}, "User-Agent": {""}, "Te": {"trailers"}}
				resp, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(resp.Body)
				if err != nil || string(got) != content || resp.StatusCode != http.StatusAccepted || resp.Header.Get("X-Auth-Subject") != "" {
					t.Errorf("%d bytes, length %d: %s %d bytes %v", len(content), length, resp.Status, len(got), err)
				}
				if resp.ProtoMajor == 2 && resp.Trailer.Get("X-Sum") != "7" {
					t.Errorf("trailers: %v", resp.Trailer)
				}
			}
		}
	})
}

func TestClientThatLeavesEndsTheCallOverHTTP2(t *testing.T) {
	entered, ended := make(chan struct{}, 4), make(chan struct{}, 4)
	r, _ := serveHTTP2(t, func(all *routes.Route) { all.Upstream.Timeouts.Request = time.Minute }, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/answered" {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
		}
		entered <- struct{}{}
		<-q.Context().Done()
		ended <- struct{}{}
	})
	r.both(t, func(t *testing.T, c *http.Client, base string) {
		for _, path := range []string{"/waiting", "/answered"} {
			ctx, cancel := context.WithCancel(t.Context())
			req, _ := http.NewRequestWithContext(ctx, "GET", base+path, nil)
			over := make(chan struct{})
			go func() {
				defer close(over)
				if resp, err := c.Do(req); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}()
			<-entered
			cancel()
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				t.Fatal("the service was never told")
			}
			<-over
			if record := <-r.records; record.Reason != plugins.ClientGone || path == "/waiting" && record.Status != 499 {
				t.Errorf("%s: recorded %d %s", path, record.Status, record.Reason)
			}
		}
	})
}

func TestAnswerOverHTTP2ThatIsCutOffIsNotCompleted(t *testing.T) {
	r, _ := serveHTTP2(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "a part")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	r.both(t, func(t *testing.T, c *http.Client, base string) {
		resp, err := c.Get(base)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("a part was taken for the whole: %q", body)
		}
	})
}

func TestServiceOverHTTP2ThatIsSilentTimesOut(t *testing.T) {
	release := make(chan struct{})
	r, _ := serveHTTP2(t, func(all *routes.Route) { all.Upstream.Timeouts.Request = 300 * time.Millisecond }, func(_ http.ResponseWriter, q *http.Request) {
		select {
		case <-release:
		case <-q.Context().Done():
		}
	})
	defer close(release)
	r.both(t, func(t *testing.T, c *http.Client, base string) {
		resp, err := c.Get(base)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusGatewayTimeout {
			t.Error(resp.Status)
		}
	})
}

// A client that may still send content does not hold up the end of its exchange.
func TestServiceOverHTTP2ThatFallsSilentTimesOutWhileContentMayCome(t *testing.T) {
	r, _ := serveHTTP2(t, func(all *routes.Route) { all.Upstream.Timeouts.Idle = 200 * time.Millisecond }, func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.WriteString(w, "a part")
		_ = http.NewResponseController(w).Flush()
		<-q.Context().Done()
	})
	r.both(t, func(t *testing.T, c *http.Client, base string) {
		content, more := io.Pipe()
		defer more.Close()
		go func() { _, _ = io.WriteString(more, "a beginning") }()
		resp, err := c.Post(base, "text/plain", content)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		began := time.Now()
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("a part was taken for the whole: %q", body)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("took %v, as if the client's content were waited for", took)
		}
		if record := <-r.records; record.Reason != plugins.UpstreamTimeout {
			t.Errorf("recorded as %q", record.Reason)
		}
	})
}

func TestSlowClientHoldsBackAServiceOverHTTP2(t *testing.T) {
	var written atomic.Int64
	r, _ := serveHTTP2(t, func(all *routes.Route) { all.Upstream.Timeouts.Idle = time.Minute }, func(w http.ResponseWriter, q *http.Request) {
		piece := make([]byte, 64<<10)
		for q.Context().Err() == nil {
			n, err := w.Write(piece)
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	resp, err := r.two.Get("http://example.com/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	// Nobody reads: after a while nothing moves any more.
	last := int64(-1)
	deadline := time.Now().Add(time.Minute)
	for now := written.Load(); now != last && time.Now().Before(deadline); now = written.Load() {
		last = now
		time.Sleep(300 * time.Millisecond)
	}
	if last > 16<<20 {
		t.Errorf("%d bytes were taken for a client that does not read", last)
	}
}

func TestInstanceOverHTTP2ThatComesBackIsUsedAgain(t *testing.T) {
	r, origin := serveHTTP2(t, nil, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	ask := func() int {
		resp, err := r.two.Get("http://example.com/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := ask(); got != http.StatusOK {
		t.Fatal(got)
	}
	if st := r.gw.Services()[0].Instances[0]; st.Open != 1 || st.Idle != 1 {
		t.Errorf("connections: %+v", st)
	}
	origin.CloseClientConnections()
	deadline := time.Now().Add(time.Minute)
	for ask() != http.StatusOK {
		if time.Now().After(deadline) {
			t.Fatal("never again")
		}
	}
}
