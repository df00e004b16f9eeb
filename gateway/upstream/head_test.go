package upstream

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestAnswerBeforeTheRequestIsNoAnswer(t *testing.T) {
	for _, early := range []string{"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", ""} {
		s := startScript(t, func(_ int, c net.Conn) {
			io.WriteString(c, early)
			if early != "" {
				io.Copy(io.Discard, c)
			}
		})
		svc := newTestService(t, Config{}, s.addr)
		for _, roundTrip := range []bool{true, false} {
			c := lend(t, svc)
			waitReadable(t, c.sock)
			c.Out = append(c.Out, request("/")...)
			if roundTrip {
				_, err := c.RoundTrip(soon())
				wantKind(t, err, ErrReset, PhaseSend)
			} else {
				wantKind(t, c.Send(soon()), ErrReset, PhaseSend)
			}
			if c.Sent() || c.Reused() {
				t.Errorf("sent %v, reused %v", c.Sent(), c.Reused())
			}
			c.Release(true)
		}
	}
}

func TestHeadArrivesByteByByte(t *testing.T) {
	s := startScript(t, func(_ int, c net.Conn) {
		readRequest(bufio.NewReader(c))
		for _, b := range []byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello") {
			c.Write([]byte{b})
		}
		io.Copy(io.Discard, c)
	})
	if body, _ := get(t, newTestService(t, Config{}, s.addr), "/"); body != "hello" {
		t.Errorf("body %q", body)
	}
}

func TestInterimHeadsAreReadOneByOne(t *testing.T) {
	s := startScript(t, func(_ int, c net.Conn) {
		readRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n")
		io.WriteString(c, "Content-Length: 0\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	svc := newTestService(t, Config{}, s.addr)
	c := lend(t, svc)
	c.Out = append(c.Out, request("/")...)
	head, err := c.RoundTrip(soon())
	for _, want := range []string{"100", "103", "200"} {
		if err != nil || string(head[9:12]) != want {
			t.Fatalf("head %q, %v, want %s", head, err, want)
		}
		if want != "200" {
			head, err = c.ReadHead(soon())
		}
	}
	c.BodyLength(0)
	c.Release(true)
	if idle(svc) != 1 {
		t.Error("not reused")
	}
}

func TestHeadIsBoundedAndStrict(t *testing.T) {
	tests := map[string]struct {
		answer string
		max    int
		kind   error
	}{
		"large enough":        {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 20_000) + "\r\n\r\n", 0, nil},
		"too large":           {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 70_000) + "\r\n\r\n", 0, ErrHeadTooLarge},
		"never ends":          {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 66_000), 0, ErrHeadTooLarge},
		"too large, buffered": {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 200) + "\r\n\r\n", 100, ErrHeadTooLarge},
		"bare line feeds":     {"HTTP/1.1 200 OK\nContent-Length: 0\n\n", 0, ErrMalformed},
		"one bare line feed":  {"HTTP/1.1 200 OK\r\nA: b\nB: c\r\n", 0, ErrMalformed},
		"line feed first":     {"\n", 0, ErrMalformed},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := startScript(t, func(_ int, c net.Conn) {
				readRequest(bufio.NewReader(c))
				io.WriteString(c, tc.answer)
				io.Copy(io.Discard, c)
			})
			svc := newTestService(t, Config{MaxHead: tc.max}, s.addr)
			c := lend(t, svc)
			defer c.Release(false)
			c.Out = append(c.Out, request("/")...)
			head, err := c.RoundTrip(soon())
			if tc.kind != nil {
				wantKind(t, err, tc.kind, PhaseHead)
			} else if err != nil || string(head) != tc.answer {
				t.Errorf("%d bytes, %v", len(head), err)
			}
		})
	}
}

func TestDeadlines(t *testing.T) {
	mute := func(_ int, c net.Conn) { io.Copy(io.Discard, c) }
	t.Run("no answer", func(t *testing.T) {
		svc := newTestService(t, Config{}, startScript(t, mute).addr)
		c := lend(t, svc)
		defer c.Release(false)
		c.Out = append(c.Out, request("/")...)
		begin := time.Now()
		_, err := c.RoundTrip(begin.Add(50 * time.Millisecond))
		wantKind(t, err, ErrTimeout, PhaseHead)
		if d := time.Since(begin); d < 50*time.Millisecond || d > 2*time.Second {
			t.Errorf("after %v", d)
		}
	})
	t.Run("content does not come", func(t *testing.T) {
		svc := newTestService(t, Config{}, startScript(t, func(_ int, c net.Conn) {
			readRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			io.Copy(io.Discard, c)
		}).addr)
		c := lend(t, svc)
		defer c.Release(false)
		c.Out = append(c.Out, request("/")...)
		if _, err := c.RoundTrip(soon()); err != nil {
			t.Fatal(err)
		}
		c.BodyLength(1)
		_, err := c.Next(time.Now().Add(20 * time.Millisecond)) // earlier than the one that is armed
		wantKind(t, err, ErrTimeout, PhaseBody)
	})
	t.Run("instance does not read", func(t *testing.T) {
		done := make(chan struct{})
		svc := newTestService(t, Config{}, startScript(t, func(_ int, c net.Conn) { <-done }).addr)
		defer close(done)
		c := lend(t, svc)
		defer c.Release(false)
		c.Out = make([]byte, 20_000_000)
		_, err := c.RoundTrip(time.Now().Add(300 * time.Millisecond))
		wantKind(t, err, ErrTimeout, PhaseSend)
	})
	t.Run("an earlier deadline of the connection is none of this exchange", func(t *testing.T) {
		svc := newTestService(t, Config{}, startScript(t, func(_ int, c net.Conn) {
			br := bufio.NewReader(c)
			for {
				target, err := readRequest(br)
				if err != nil {
					return
				}
				if target == "/slow" {
					time.Sleep(600 * time.Millisecond)
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		}).addr)
		for _, ex := range []struct {
			target string
			limit  time.Duration
		}{{"/quick", 500 * time.Millisecond}, {"/slow", 10 * time.Second}, {"/quick", 500 * time.Millisecond}, {"/slow", 5 * time.Second}} {
			c := lend(t, svc)
			c.Out = append(c.Out, request(ex.target)...)
			if _, err := c.RoundTrip(time.Now().Add(ex.limit)); err != nil {
				t.Fatalf("%s: %v", ex.target, err)
			}
			c.BodyLength(0)
			c.Release(true)
		}
	})
}
