package server

import (
	"io"
	"net/http"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/gatehouse/gatehouse/plugins"
)

// TestHTTP2FloodsEndTheConnection sends frames that cost us more than the
// client, and asks an honest client at the same time.
func TestHTTP2FloodsEndTheConnection(t *testing.T) {
	r := startHTTP2(t, nil, func(x *plugins.Exchange) error {
		if x.Body != nil {
			if _, err := io.Copy(io.Discard, x.Body); err != nil {
				return err
			}
		}
		return answer(x, 200, "Content-Length: 2\r\n", "ok")
	})
	honest := r.client(t, false)
	basic := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}
	f := func(name string, send func(w *raw, i uint32) error) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			w := r.raw(t)
			drained := make(chan struct{})
			go func() { // else the server's answers would hold it up
				defer close(drained)
				_, _ = io.Copy(io.Discard, w.Conn)
			}()
			defer func() { w.Close(); <-drained }()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			cut := false
			// The frame layer may take a second to close, in which a fast client
			// gets rid of much.
			deadline := time.Now().Add(time.Minute)
			for i := uint32(0); !cut && (i < 300_000 || time.Now().Before(deadline)); i++ {
				cut = send(w, i) != nil
				if i%500 == 0 {
					resp, err := honest.Get("http://example.com/")
					if err != nil {
						t.Fatalf("the honest client: %v", err)
					}
					resp.Body.Close()
				}
			}
			if !cut {
				t.Error("the flood never ended")
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 {
				t.Errorf("%d bytes are held", grown)
			}
		})
	}
	f("rapid reset", func(w *raw, i uint32) error {
		id := 2*i + 1
		if err := w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: w.head(basic...), EndHeaders: true, EndStream: true}); err != nil {
			return err
		}
		return w.WriteRSTStream(id, http2.ErrCodeCancel)
	})
	f("pings", func(w *raw, _ uint32) error { return w.WritePing(false, [8]byte{}) })
	f("settings", func(w *raw, _ uint32) error { return w.WriteSettings() })
	f("priorities", func(w *raw, i uint32) error {
		return w.WritePriority(2*i+1, http2.PriorityParam{Weight: 1})
	})
	f("empty frames", func(w *raw, i uint32) error {
		if i == 0 {
			return w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true,
				BlockFragment: w.head(":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/")})
		}
		return w.WriteData(1, false, nil)
	})
	f("continuations", func(w *raw, i uint32) error {
		if i == 0 {
			return w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: w.head(basic...)})
		}
		return w.WriteContinuation(1, false, w.head("x-a", "1"))
	})
	f("unknown frames", func(w *raw, _ uint32) error { return w.WriteRawFrame(0xfa, 0, 0, nil) })
	if n := r.server.Status().Floods; n < 4 {
		t.Errorf("%d floods were counted", n)
	}
	deadline := time.Now().Add(time.Minute)
	for r.server.Status().Streams > 0 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if n := r.server.Status().Streams; n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

// TestHTTP2ClientsThatCancelMuchAreNotFloods is the other side of the bound.
func TestHTTP2ClientsThatCancelMuchAreNotFloods(t *testing.T) {
	r := startHTTP2(t, nil, func(x *plugins.Exchange) error { return answer(x, 200, "Content-Length: 2\r\n", "ok") })
	w := r.raw(t)
	basic := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}
	for i := range uint32(4000) {
		id := 2*i + 1
		if err := w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: w.head(basic...), EndHeaders: true, EndStream: true}); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := w.WriteRSTStream(id, http2.ErrCodeCancel); err != nil {
				t.Fatal(err)
			}
		} else if got := w.outcomeOf(t, id); got != "200" {
			t.Fatalf("request %d: %s", i, got)
		}
	}
	if n := r.server.Status().Floods; n != 0 {
		t.Error("taken for a flood")
	}
}

func TestHTTP2UnfinishedHeadTimesOut(t *testing.T) {
	r := startHTTP2(t, func(c *Config) { c.Limits.HeaderTimeout = 300 * time.Millisecond }, func(x *plugins.Exchange) error {
		return answer(x, 200, "Content-Length: 2\r\n", "ok")
	})
	w := r.raw(t)
	if err := w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: w.head(":method", "GET")}); err != nil {
		t.Fatal(err)
	}
	if got := w.outcome(t); got != "closed" {
		t.Errorf("got %s", got)
	}
	// The connection that keeps silent after its preface is idle, not late.
	other := r.raw(t)
	time.Sleep(600 * time.Millisecond)
	if err := other.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true,
		BlockFragment: other.head(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/")}); err != nil {
		t.Fatal(err)
	}
	if got := other.outcome(t); got != "200" {
		t.Errorf("got %s", got)
	}
}

func TestHTTP2SlowClientsHoldOnlyTheirStream(t *testing.T) {
	r := startHTTP2(t, func(c *Config) { c.Limits.WriteIdleTimeout = 500 * time.Millisecond }, func(x *plugins.Exchange) error {
		if string(x.Path) != "/large" {
			return answer(x, 200, "Content-Length: 2\r\n", "ok")
		}
		if err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Length: -1}); err != nil {
			return err
		}
		piece := make([]byte, 64<<10)
		for {
			if _, err := x.Client.Write(piece); err != nil {
				return &plugins.Error{Status: 499, Code: plugins.ClientGone, Err: err}
			}
		}
	})
	c := r.client(t, false)
	resp, err := c.Get("http://example.com/large") // and nobody reads it
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	deadline := time.Now().Add(time.Minute)
	for r.server.Status().Streams > 0 && time.Now().Before(deadline) {
		other, err := c.Get("http://example.com/")
		if err != nil || other.StatusCode != http.StatusOK {
			t.Fatal(other, err)
		}
		other.Body.Close()
		time.Sleep(20 * time.Millisecond)
	}
	if n := r.server.Status().Streams; n != 0 {
		t.Errorf("%d streams are left", n)
	}
}
