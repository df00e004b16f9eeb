package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
)

// reasons tells how exchanges ended.
type reasons chan string

func (r reasons) Record(x *plugins.Exchange, _ time.Duration) { r <- x.Record.Reason }

// A client that takes a long piece slowly, but takes it, is not cut off when
// the time for a piece has passed.
func TestAPieceMayTakeLongerThanTheIdleTimeAsLongAsItMoves(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	ended := make(reasons, 1)
	addr := start(t, func(c *Config) {
		c.Limits.WriteIdleTimeout, c.Recorders = 3*time.Second, []Recorder{ended}
	}, func(x *plugins.Exchange) error {
		if err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Fields: []byte("Content-Length: 16777216\r\n"), Length: size}); err != nil {
			return err
		}
		if _, err := x.Client.Write(make([]byte, size)); err != nil {
			return &plugins.Error{Status: statusClientGone, Code: plugins.ClientGone, Err: err}
		}
		return x.Client.Finish()
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.(*net.TCPConn).SetReadBuffer(32 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	began, got, p := time.Now(), 0, make([]byte, 64<<10)
	for err == nil {
		n, e := c.Read(p)
		got, err = got+n, e
		if time.Since(began) < 7*time.Second {
			time.Sleep(20 * time.Millisecond)
		}
	}
	if reason := <-ended; reason != "" || got < size || err != io.EOF {
		t.Errorf("%d bytes, %v, reason %q", got, err, reason)
	}
}

func TestMinimumRatesOverHTTP2(t *testing.T) {
	t.Parallel()
	ended := make(reasons, 10)
	r := startHTTP2(t, func(c *Config) {
		c.Limits.MinRequestRate, c.Limits.MinResponseRate, c.Limits.RateGrace = 1<<20, 1<<20, time.Second
		c.Limits.BodyIdleTimeout, c.Limits.WriteIdleTimeout = 20*time.Second, 20*time.Second
		c.Recorders = []Recorder{ended}
	}, func(x *plugins.Exchange) error {
		if x.Body != nil {
			if _, err := io.Copy(io.Discard, x.Body); err != nil {
				return err
			}
		}
		if err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Length: -1}); err != nil {
			return err
		}
		for range 1000 {
			if _, err := x.Client.Write(make([]byte, 64<<10)); err != nil {
				return &plugins.Error{Status: statusClientGone, Code: plugins.ClientGone, Err: err}
			}
		}
		return x.Client.Finish()
	})
	client := r.client(t, false)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	body, drops := io.Pipe()
	go func() {
		for {
			if _, err := drops.Write([]byte("a")); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://example.com/", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil || resp.StatusCode != http.StatusRequestTimeout {
		t.Fatalf("content that drips: %v %v", resp, err)
	}
	resp.Body.Close()
	body.CloseWithError(errors.New("over"))
	if got := <-ended; got != plugins.RequestTooSlow {
		t.Errorf("content that drips: reason %q", got)
	}
	// Nothing is read of the answer, so its window stays closed.
	if req, err = http.NewRequestWithContext(ctx, http.MethodGet, "http://example.com/", nil); err != nil {
		t.Fatal(err)
	}
	if resp, err = client.Do(req); err == nil { // else the stream ended before its head was read
		defer resp.Body.Close()
	}
	if got := <-ended; got != plugins.ResponseTooSlow {
		t.Errorf("an answer that is not read: reason %q", got)
	}
}

// What the service is waited for, or what it takes its time for, is not the
// client's to answer for.
func TestHTTP2ClientsHaveTimeWhileOthersAreWaitedFor(t *testing.T) {
	t.Parallel()
	const pause, patience = 2 * time.Second, 1500 * time.Millisecond
	r := startHTTP2(t, func(c *Config) {
		c.Limits.BodyIdleTimeout, c.Limits.WriteIdleTimeout = patience, patience
	}, func(x *plugins.Exchange) error {
		if _, err := x.Body.Read(make([]byte, 1)); err != nil {
			return err
		}
		time.Sleep(pause)
		if _, err := io.Copy(io.Discard, x.Body); err != nil {
			return err
		}
		err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Length: -1})
		for range 2 {
			if err == nil {
				err = x.Client.Flush()
			}
			time.Sleep(pause)
			if err == nil {
				_, err = x.Client.Write([]byte("a"))
			}
		}
		if err != nil {
			return err
		}
		return x.Client.Finish()
	})
	resp, err := r.client(t, false).Post("http://example.com/", "text/plain", strings.NewReader("content"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(got) != "aa" || err != nil {
		t.Errorf("%d %q %v", resp.StatusCode, got, err)
	}
}
