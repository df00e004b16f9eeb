package upstream

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestConnectionIsReused(t *testing.T) {
	s := startScript(t, echo)
	svc := newTestService(t, Config{}, s.addr)
	for i, want := range []bool{false, true, true} {
		body, reused := get(t, svc, "/a")
		if body != "/a" || reused != want {
			t.Errorf("exchange %d: body %q, reused %v", i, body, reused)
		}
	}
	if n := s.accepted(); n != 1 {
		t.Errorf("%d connections for one client", n)
	}
}

// The script of EDGE P1: an extra response arrives on an idle connection.
func TestP1LateExtraResponseNeverReachesAnotherExchange(t *testing.T) {
	poison, poisoned := make(chan struct{}), make(chan struct{})
	defer close(poison)
	s := startScript(t, func(n int, c net.Conn) {
		br := bufio.NewReader(c)
		for {
			target, err := readRequest(br)
			if err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"+target)
			if target != "/a" {
				continue
			}
			if _, more := <-poison; more {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")
				poisoned <- struct{}{}
			}
		}
	})
	for _, send := range []string{"RoundTrip", "Send"} {
		svc := newTestService(t, Config{}, s.addr)
		c := lend(t, svc)
		c.Out = append(c.Out, request("/a")...)
		if _, err := c.RoundTrip(soon()); err != nil {
			t.Fatal(err)
		}
		c.BodyLength(2)
		if _, err := readAll(c); err != nil {
			t.Fatal(err)
		}
		sock := c.sock
		c.Release(true)
		poison <- struct{}{}
		<-poisoned
		waitReadable(t, sock)
		for _, target := range []string{"/b", "/c"} {
			c := lend(t, svc)
			c.Out = append(c.Out, request(target)...)
			var err error
			if send == "Send" {
				err = c.Send(soon())
			}
			if err == nil && send == "Send" {
				_, err = c.ReadHead(soon())
			} else if err == nil {
				_, err = c.RoundTrip(soon())
			}
			if err != nil {
				t.Fatal(err)
			}
			c.BodyLength(2)
			if body, err := readAll(c); body != target {
				t.Fatalf("%s: the answer to %s is %q, %v", send, target, body, err)
			}
			c.Release(true)
		}
	}
}

func TestP1ExtraBytesWithTheAnswerEndTheConnection(t *testing.T) {
	s := startScript(t, func(_ int, c net.Conn) {
		if _, err := readRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")
			io.Copy(io.Discard, c)
		}
	})
	svc := newTestService(t, Config{}, s.addr)
	get(t, svc, "/a")
	if n := idle(svc); n != 0 {
		t.Errorf("%d poisoned connections in the pool", n)
	}
	if body, reused := get(t, svc, "/b"); body != "ok" || reused {
		t.Errorf("second exchange: %q, reused %v", body, reused)
	}
}

func TestP2OnlyCompleteExchangesAreReused(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n\r\n"
	tests := map[string]struct {
		answer string
		use    func(c *Conn)
		reuse  bool
	}{
		"switching protocols":      {"HTTP/1.1 101 Switching Protocols\r\n\r\n", func(*Conn) {}, false},
		"no content":               {ok, func(c *Conn) { c.BodyLength(0) }, true},
		"head says close":          {ok, func(c *Conn) { c.BodyLength(0); c.Release(false) }, false},
		"length, not read":         {ok + "abc", func(c *Conn) { c.BodyLength(3) }, false},
		"length, read":             {ok + "abc", func(c *Conn) { c.BodyLength(3); readAll(c) }, true},
		"length, last piece taken": {ok + "abc", func(c *Conn) { c.BodyLength(3); c.Next(soon()) }, true},
		"length, more than that":   {ok + "abcd", func(c *Conn) { c.BodyLength(3); readAll(c) }, false},
		"chunked":                  {ok + "3\r\nabc\r\n0\r\n\r\n", func(c *Conn) { c.BodyChunked(); readAll(c) }, true},
		"chunked, last is missing": {ok + "3\r\nabc\r\n", func(c *Conn) { c.BodyChunked(); c.Next(soon()) }, false},
		"chunked, malformed":       {ok + "3\nabc\r\n0\r\n\r\n", func(c *Conn) { c.BodyChunked(); readAll(c) }, false},
		"interim head only":        {"HTTP/1.1 103 Early Hints\r\n\r\n", func(*Conn) {}, false},
		"request half written":     {ok, func(c *Conn) { c.BodyLength(0); c.Out = append(c.Out, 'x') }, false},
		"request aborted":          {ok, func(c *Conn) { c.BodyLength(0); c.AbortWrite() }, false},
		"aborted":                  {ok, func(c *Conn) { c.BodyLength(0); c.Abort() }, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := startScript(t, func(_ int, c net.Conn) {
				readRequest(bufio.NewReader(c))
				io.WriteString(c, tc.answer)
				io.Copy(io.Discard, c)
			})
			svc := newTestService(t, Config{}, s.addr)
			c := lend(t, svc)
			c.Out = append(c.Out, request("/")...)
			if _, err := c.RoundTrip(soon()); err != nil {
				t.Fatal(err)
			}
			tc.use(c)
			c.Release(true)
			c.Release(true)
			st := svc.Status().Instances[0]
			if got := st.Idle == 1; got != tc.reuse || st.Open != st.Idle {
				t.Errorf("idle %d, open %d, want reuse: %v", st.Idle, st.Open, tc.reuse)
			}
		})
	}
}

// An instance that refuses a request may answer and close before it has read
// the content.
func TestP4EarlyResponseIsReadWhileSending(t *testing.T) {
	refuse := func(_ int, c net.Conn) {
		br := bufio.NewReader(c)
		if _, err := readRequest(br); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
		// Closing with unread data resets the connection.
	}
	check := func(t *testing.T, c *Conn, head []byte, err error) {
		t.Helper()
		if err != nil || !strings.HasPrefix(string(head), "HTTP/1.1 413 ") {
			t.Fatalf("head %q, error %v", head, err)
		}
		c.BodyLength(contentLength(t, head))
		if body, err := readAll(c); body != "big" || err != nil {
			t.Errorf("body %q, error %v", body, err)
		}
	}
	head := "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n"
	t.Run("content in one piece", func(t *testing.T) {
		svc := newTestService(t, Config{}, startScript(t, refuse).addr)
		c := lend(t, svc)
		defer c.Release(false)
		c.Out = append(append(c.Out, head...), make([]byte, 20_000_000)...)
		answer, err := c.RoundTrip(soon())
		check(t, c, answer, err)
	})
	t.Run("content streamed by another goroutine", func(t *testing.T) {
		svc := newTestService(t, Config{}, startScript(t, refuse).addr)
		c := lend(t, svc)
		defer c.Release(false)
		c.Out = append(c.Out, head...)
		if err := c.Send(soon()); err != nil {
			t.Fatal(err)
		}
		wrote := make(chan error, 1)
		go func() {
			for {
				if err := c.Write(make([]byte, 10_000), soon()); err != nil {
					wrote <- err
					return
				}
			}
		}()
		answer, err := c.ReadHead(soon())
		c.AbortWrite()
		<-wrote
		check(t, c, answer, err)
	})
	t.Run("instance answers and reads no more", func(t *testing.T) {
		svc := newTestService(t, Config{}, startScript(t, func(_ int, c net.Conn) {
			br := bufio.NewReader(c)
			readRequest(br)
			io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
			c.Read(make([]byte, 0))
			<-time.After(300 * time.Millisecond)
		}).addr)
		c := lend(t, svc)
		defer c.Release(false)
		c.Out = append(c.Out, head...)
		if err := c.Send(soon()); err != nil {
			t.Fatal(err)
		}
		wrote := make(chan error, 1)
		go func() { wrote <- c.Write(make([]byte, 20_000_000), soon()) }()
		answer, err := c.ReadHead(soon())
		check(t, c, answer, err)
		c.AbortWrite()
		if err := <-wrote; err == nil {
			t.Error("the rest was written to nobody")
		}
	})
}

func TestP11S45TruncatedMessageIsNeverTakenForAWholeOne(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n\r\n"
	tests := map[string]struct {
		answer string
		body   func(*Conn)
		reset  bool
		phase  Phase
	}{
		"head":                  {"HTTP/1.1 200 OK\r\nContent-", nil, false, PhaseHead},
		"head, reset":           {"HTTP/1.1 200 OK\r\nContent-", nil, true, PhaseHead},
		"after an interim head": {"HTTP/1.1 100 Continue\r\n\r\n", func(c *Conn) {}, false, PhaseHead},
		"length":                {ok + "abc", func(c *Conn) { c.BodyLength(4) }, false, PhaseBody},
		"length, nothing":       {ok, func(c *Conn) { c.BodyLength(4) }, false, PhaseBody},
		"length, reset":         {ok + "abc", func(c *Conn) { c.BodyLength(4) }, true, PhaseBody},
		"chunk":                 {ok + "5\r\nabc", func(c *Conn) { c.BodyChunked() }, false, PhaseBody},
		"chunk size":            {ok + "5\r\nabcde\r\n5", func(c *Conn) { c.BodyChunked() }, false, PhaseBody},
		"between chunks":        {ok + "5\r\nabcde\r\n", func(c *Conn) { c.BodyChunked() }, false, PhaseBody},
		"after the last chunk":  {ok + "5\r\nabcde\r\n0\r\n", func(c *Conn) { c.BodyChunked() }, false, PhaseBody},
		"in the trailers":       {ok + "0\r\nA: b\r\n", func(c *Conn) { c.BodyChunked() }, false, PhaseBody},
		"until close, reset":    {ok + "abc", func(c *Conn) { c.BodyUntilClose() }, true, PhaseBody},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := make(chan struct{})
			s := startScript(t, func(_ int, c net.Conn) {
				readRequest(bufio.NewReader(c))
				io.WriteString(c, tc.answer)
				if tc.reset {
					<-got // a reset may overtake what was not read
					_ = c.(*net.TCPConn).SetLinger(0)
				}
			})
			svc := newTestService(t, Config{}, s.addr)
			c := lend(t, svc)
			defer c.Release(true)
			c.Out = append(c.Out, request("/")...)
			time.AfterFunc(50*time.Millisecond, func() { close(got) })
			_, err := c.RoundTrip(soon())
			if tc.phase == PhaseHead && err == nil {
				_, err = c.ReadHead(soon())
			} else if err == nil {
				tc.body(c)
				_, err = readAll(c)
			}
			wantKind(t, err, io.ErrUnexpectedEOF, tc.phase)
			if Judge(200, err) != Failure {
				t.Error("a truncated message is no failure")
			}
		})
	}
}

func TestBodyUntilCloseEndsWithTheConnection(t *testing.T) {
	content := strings.Repeat("0123456789", 20_000)
	s := startScript(t, func(_ int, c net.Conn) {
		readRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\n"+content)
	})
	svc := newTestService(t, Config{}, s.addr)
	c := lend(t, svc)
	c.Out = append(c.Out, request("/")...)
	if _, err := c.RoundTrip(soon()); err != nil {
		t.Fatal(err)
	}
	c.BodyUntilClose()
	if body, err := readAll(c); body != content || err != nil {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	c.Release(true)
	if idle(svc) != 0 {
		t.Error("closed connection in the pool")
	}
}

func TestStaleConnectionIsReplacedBeforeAnythingIsSent(t *testing.T) {
	for _, send := range []bool{false, true} {
		var seen [2]int
		s := startScript(t, func(n int, c net.Conn) {
			br := bufio.NewReader(c)
			for {
				if _, err := readRequest(br); err != nil {
					return
				}
				seen[min(n, 1)]++
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				if n == 0 {
					return // closes an idle connection
				}
			}
		})
		svc := newTestService(t, Config{}, s.addr)
		c := lend(t, svc)
		c.Out = append(c.Out, request("/1")...)
		if _, err := c.RoundTrip(soon()); err != nil {
			t.Fatal(err)
		}
		c.BodyLength(2)
		readAll(c)
		sock := c.sock
		c.Release(true)
		waitReadable(t, sock)
		c = lend(t, svc)
		if !c.Reused() {
			t.Fatal("the stale connection was not in the pool")
		}
		c.Out = append(c.Out, request("/2")...)
		var err error
		if send {
			err = c.Send(soon())
		} else {
			_, err = c.RoundTrip(soon())
		}
		if err != nil || c.Reused() || !c.Sent() {
			t.Fatalf("error %v, reused %v, sent %v", err, c.Reused(), c.Sent())
		}
		if send {
			if _, err := c.ReadHead(soon()); err != nil {
				t.Fatal(err)
			}
		}
		c.BodyLength(2)
		readAll(c)
		c.Release(true)
		if st := svc.Status().Instances[0]; st.Open != 1 || st.Idle != 1 {
			t.Errorf("open %d, idle %d", st.Open, st.Idle)
		}
		s.stop()
		if seen != [2]int{1, 1} {
			t.Errorf("requests per connection: %v", seen)
		}
	}
}

func TestResetBeforeTheAnswerTellsWhatWasSent(t *testing.T) {
	s := startScript(t, func(n int, c net.Conn) {
		br := bufio.NewReader(c)
		readRequest(br)
		if n == 0 {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			readRequest(br)
		}
	})
	svc := newTestService(t, Config{}, s.addr)
	get(t, svc, "/")
	for _, reused := range []bool{true, false} {
		c := lend(t, svc)
		c.Out = append(c.Out, request("/")...)
		_, err := c.RoundTrip(soon())
		wantKind(t, err, ErrReset, PhaseHead)
		if !c.Sent() || c.Answered() || c.Reused() != reused {
			t.Errorf("sent %v, answered %v, reused %v", c.Sent(), c.Answered(), c.Reused())
		}
		c.Release(true)
	}
}

func TestAbortEndsAWaitingExchange(t *testing.T) {
	svc := newTestService(t, Config{}, startScript(t, func(_ int, c net.Conn) { io.Copy(io.Discard, c) }).addr)
	c := lend(t, svc)
	c.Out = append(c.Out, request("/")...)
	time.AfterFunc(20*time.Millisecond, c.Abort)
	_, err := c.RoundTrip(soon())
	wantKind(t, err, ErrReset, PhaseHead)
	c.Release(true)
	if st := svc.Status().Instances[0]; st.Open != 0 {
		t.Errorf("%d connections left", st.Open)
	}
}

func TestAbortMeetsTheConnectionThatReplacesAStaleOne(t *testing.T) {
	s := startScript(t, echo)
	for _, before := range []bool{true, false} {
		svc := newTestService(t, Config{}, s.addr)
		get(t, svc, "/")
		c := lend(t, svc)
		if before {
			c.Abort()
		} else {
			other := lend(t, svc)
			other.lent = false
			c.Abort()
			c.replace(other.sock) // as renew does when it was dialling meanwhile
			c.inst.pool.free()
		}
		n := s.accepted()
		c.Out = append(c.Out, request("/")...)
		_, err := c.RoundTrip(soon())
		wantKind(t, err, ErrReset, PhaseSend)
		c.Release(true)
		if open, _ := c.inst.pool.count(); open != 0 || s.accepted() != n {
			t.Errorf("%d open, %d new connections for an aborted exchange", open, s.accepted()-n)
		}
	}
}

func TestSocketCanBeSpliced(t *testing.T) {
	content := strings.Repeat("0123456789abcdef", 1<<16)
	s := startScript(t, func(_ int, c net.Conn) {
		readRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"+content)
		io.Copy(io.Discard, c)
	})
	svc := newTestService(t, Config{}, s.addr)
	c := lend(t, svc)
	c.Out = append(c.Out, request("/")...)
	if _, err := c.RoundTrip(soon()); err != nil {
		t.Fatal(err)
	}
	c.BodyLength(int64(len(content)))
	var sb strings.Builder
	if len(c.Buffered()) > 0 {
		p, err := c.Next(soon())
		if err != nil {
			t.Fatal(err)
		}
		sb.Write(p)
	}
	n, err := io.Copy(&sb, io.LimitReader(c.TCP(soon()), c.Remaining()))
	if err != nil {
		t.Fatal(err)
	}
	c.Advance(n)
	if _, err := c.Next(soon()); err != io.EOF || sb.String() != content {
		t.Errorf("%d bytes, %v", sb.Len(), err)
	}
	c.Release(true)
	if idle(svc) != 1 {
		t.Error("not reused")
	}
}
