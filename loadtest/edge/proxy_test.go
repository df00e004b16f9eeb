package edge

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

func TestP01_AnswersThatNobodyAskedForPoisonNothing(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("late %v", late), func(t *testing.T) {
			t.Parallel()
			poisoned := make(chan struct{}, 100)
			s := take(t, func(c *rig.Conn) {
				for {
					m, err := c.ReadRequest()
					if err != nil {
						return
					}
					id, _ := m.Field("X-Id")
					c.Say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(id), id))
					if late {
						time.Sleep(60 * time.Millisecond)
					}
					c.Say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")
					poisoned <- struct{}{}
				}
			})
			for i := range 6 {
				id := fmt.Sprint("client-", i)
				if a := s.dial(t).Ask("GET", s.in(get+"X-Id: "+id+"\r\n\r\n")); a.Status != 200 || a.Body != id {
					t.Errorf("client %d got %q%q", i, a.Head, a.Body)
				}
				<-poisoned
			}
		})
	}
}

func TestP02_SwitchesNobodyAskedForAreRefused(t *testing.T) {
	t.Parallel()
	s := take(t, rig.Always("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi"))
	c := s.dial(t)
	for i := range 2 {
		if a := c.Ask("GET", s.in(get+"\r\n")); a.Status != 502 || strings.Contains(a.Body, "hi") {
			t.Errorf("got %q%q", a.Head, a.Body)
		}
		if n := s.Connections(); n != i+1 {
			t.Errorf("%d connections", n)
		}
	}
	if err := alive(c); err != nil {
		t.Error(err)
	}
}

func TestP03_Repetitions(t *testing.T) {
	// f counts how often the origin, which closes instead of answering, is asked.
	f := func(name, raw string, least, most int32) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			s := take(t, func(c *rig.Conn) {
				if _, err := c.ReadRequest(); err == nil {
					asked.Add(1)
				}
			})
			if a := s.dial(t).Ask(method(raw), s.in(raw)); a.Status != 502 {
				t.Errorf("got %q", a.Head)
			}
			if n := asked.Load(); n < least || n > most {
				t.Errorf("the origin was asked %d times", n)
			}
		})
	}
	const tail = " HTTP/1.1\r\nHost: {host}\r\n"
	f("GET once more", "GET /retry"+tail+"\r\n", 1, 2)
	f("GET not where it is off", "GET /a"+tail+"\r\n", 1, 1)
	f("POST never", "POST /retry"+tail+"Content-Length: 3\r\n\r\nabc", 1, 1)
	f("PATCH never", "PATCH /retry"+tail+"Content-Length: 3\r\n\r\nabc", 1, 1)
	f("a method nobody knows never", "MAKE /retry"+tail+"\r\n", 1, 1)
	f("PUT with content that is gone never", "PUT /retry"+tail+"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 1, 1)
	t.Run("not after a time-out", func(t *testing.T) {
		t.Parallel()
		var asked atomic.Int32
		s := take(t, func(c *rig.Conn) {
			if _, err := c.ReadRequest(); err == nil {
				asked.Add(1)
				c.Gone()
			}
		})
		if a := s.get(t, "/brisk"); a.Status != 504 || asked.Load() != 1 {
			t.Errorf("got %q, asked %d times", a.Head, asked.Load())
		}
	})
	t.Run("not after a byte of the answer", func(t *testing.T) {
		t.Parallel()
		var asked atomic.Int32
		s := take(t, func(c *rig.Conn) {
			if _, err := c.ReadRequest(); err == nil {
				asked.Add(1)
				c.Say("HTTP/1.1 2")
			}
		})
		if a := s.get(t, "/retry"); a.Status != 502 || asked.Load() != 1 {
			t.Errorf("got %q, asked %d times", a.Head, asked.Load())
		}
	})
}

func TestP04_EarlyAnswersAreNotLost(t *testing.T) {
	f := func(name, framing string, chunked bool) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := take(t, func(c *rig.Conn) {
				if _, err := c.ReadHead(); err == nil {
					c.Say("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nlarge")
					// The kernel resets the connection if the rest is not read.
				}
			})
			c := s.dial(t)
			done := make(chan struct{})
			go func() {
				defer close(done)
				c.Send(s.in(post + framing + "\r\n"))
				piece := strings.Repeat("a", 16<<10)
				if chunked {
					piece = fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece)
				}
				for range 1000 {
					if _, err := io.WriteString(c.Conn, piece); err != nil {
						return
					}
				}
			}()
			if a := c.Answer("POST"); a.Status != 413 || a.Body != "large" {
				t.Errorf("got %q%q (%v)", a.Head, a.Body, a.Err)
			}
			c.Close()
			<-done
		})
	}
	f("length", "Content-Length: 100000000\r\n", false)
	f("chunked", "Transfer-Encoding: chunked\r\n", true)
}

func TestP05_InterimAnswers(t *testing.T) {
	f := func(name, version, interim, want string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := take(t, rig.Always(interim+rig.OK))
			c := s.dial(t)
			a := c.Ask("GET", s.in("GET /a "+version+"\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n"))
			if a.Status != 200 || a.Body != "ok" || strings.Join(a.Interims, "") != want {
				t.Errorf("got %q %q%q", a.Interims, a.Head, a.Body)
			}
			if err := alive(c); err != nil {
				t.Error(err)
			}
		})
	}
	const hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.css>; rel=preload\r\n\r\n"
	f("103 passes", "HTTP/1.1", hints, hints)
	f("each of them", "HTTP/1.1", hints+hints, hints+hints)
	f("less the fields of one connection", "HTTP/1.1", "HTTP/1.1 103 Early Hints\r\nConnection: X-A\r\nX-A: 1\r\nLink: </a>\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
	f("but not to HTTP/1.0", "HTTP/1.0", hints, "")
	f("100 and 102 do not", "HTTP/1.1", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n", "")
	f("unknown ones do not", "HTTP/1.1", "HTTP/1.1 199 Huh\r\nX-A: 1\r\n\r\n", "")
	badGateway(t, "too many", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 40)+rig.OK)
	t.Run("103 passes at once", func(t *testing.T) {
		t.Parallel()
		seen := make(chan struct{})
		s := take(t, func(c *rig.Conn) {
			if _, err := c.ReadRequest(); err == nil {
				c.Say(hints)
				<-seen
				c.Say(rig.OK)
			}
		})
		c := s.dial(t)
		c.Send(s.in(get + "\r\n"))
		_ = c.SetReadDeadline(time.Now().Add(rig.Patience))
		line, err := c.R.ReadString('\n')
		close(seen)
		if err != nil || line != "HTTP/1.1 103 Early Hints\r\n" {
			t.Errorf("got %q %v", line, err)
		}
	})
}

func TestP06_FieldsOfOneConnectionDoNotTravel(t *testing.T) {
	for _, field := range []string{"Keep-Alive: timeout=5", "TE: trailers", "TE: gzip", "Upgrade: h2c", "Proxy-Authorization: Basic YTpi", "Proxy-Connection: keep-alive", "Proxy-Authenticate: Basic", "Trailer: X-T", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", "Connection: keep-alive"} {
		passed(t, field, get+field+"\r\nX-A: 1\r\n\r\n", get+"X-A: 1\r\n\r\n")
	}
	passed(t, "h2c", get+"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n", get+"\r\n")
	passed(t, "Expect", post+"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc", post+"Content-Length: 3\r\n\r\nabc")
	t.Run("close is the client's own", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.dial(t)
		if a := c.Ask("GET", s.in(get+"Connection: close\r\n\r\n")); a.Status != 200 {
			t.Errorf("got %q", a.Head)
		} else if v, _ := a.Field("Connection"); v != "close" {
			t.Errorf("got %q", a.Head)
		}
		if err := ended(c); err != nil {
			t.Error(err)
		}
		s.get(t, "/a")
		if got := s.Received(); len(got) != 1 || strings.Contains(got[0], "Connection") {
			t.Errorf("the origin received %q", got)
		}
	})
}

func TestP07_TheVersionIsOurs(t *testing.T) {
	t.Parallel()
	s := take(t, nil)
	for _, keep := range []string{"", "Connection: keep-alive\r\n"} {
		c := s.dial(t)
		a := c.Ask("GET", s.in("GET /a HTTP/1.0\r\nHost: {host}\r\n"+keep+"\r\n"))
		if v, _ := a.Field("Connection"); !strings.HasPrefix(a.Head, "HTTP/1.1 200 ") || keep != "" && v != "keep-alive" {
			t.Errorf("got %q", a.Head)
		}
		var err error
		if keep == "" {
			err = ended(c)
		} else {
			err = alive(c)
		}
		if err != nil {
			t.Error(err)
		}
	}
	for _, got := range s.Received() {
		if strings.Contains(got, "HTTP/1.0") || strings.Contains(got, "Connection") {
			t.Errorf("the origin received %q", got)
		}
	}
}

func TestP08_HostIsKept(t *testing.T) {
	t.Parallel()
	s := take(t, nil)
	host := strings.ToUpper(s.host[:1]) + s.host[1:] + ":8080"
	s.dial(t).Ask("GET", "GET /a HTTP/1.1\r\nhOST:\t"+host+" \r\n\r\n")
	if got, want := rig.Strip(strings.Join(s.Received(), "")), "GET /a HTTP/1.1\r\nhOST:\t"+host+" \r\n\r\n"; got != want {
		t.Errorf("the origin received %q", got)
	}
}

func TestP09_NothingThatArrivedIsHeldBack(t *testing.T) {
	// The origin sends a piece only after the client has the one before.
	f := func(name, head string, pieces ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			next := make(chan struct{})
			s := take(t, func(c *rig.Conn) {
				if _, err := c.ReadRequest(); err != nil {
					return
				}
				c.Say(head)
				for _, p := range pieces {
					<-next
					c.Say(p)
				}
				<-next
			})
			c := s.dial(t)
			c.Send(s.in(get + "\r\n"))
			_ = c.SetReadDeadline(time.Now().Add(rig.Patience))
			for {
				line, err := c.R.ReadString('\n')
				if err != nil {
					close(next)
					t.Fatalf("no head: %v", err)
				}
				if line == "\r\n" {
					break
				}
			}
			for _, p := range pieces {
				next <- struct{}{}
				got := make([]byte, len(p))
				if _, err := io.ReadFull(c.R, got); err != nil || string(got) != p {
					t.Errorf("got %q (%v), want %q", got, err, p)
					break
				}
			}
			close(next)
		})
	}
	f("length", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", "ab", "cd", "ef")
	f("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "2\r\nab\r\n", "2\r\ncd\r\n")
	f("until the end", "HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n")
	f("events", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", "9\r\ndata: 1\n\n\r\n", "9\r\ndata: 2\n\n\r\n")
	f("much content", "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n", strings.Repeat("a", 100000), strings.Repeat("b", 100000), strings.Repeat("c", 100000))
}

func TestP10_HeadsPassByteForByte(t *testing.T) {
	f := func(name, head string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := take(t, nil)
			if a, _ := answered(t, s, "/a", head+"ok"); a.Head != head {
				t.Errorf("got  %q\nwant %q", a.Head, head)
			}
		})
	}
	const date = "Date: Mon, 01 Jan 2001 00:00:00 GMT\r\n"
	f("dates", "HTTP/1.1 200 OK\r\n"+date+"Content-Length: 2\r\nDate: tomorrow\r\n\r\n")
	f("order and case", "HTTP/1.1 200 OK\r\nsERVER: x\r\nSet-Cookie: a=1\r\n"+date+"X-A:1\r\nX-A:\t 2 \r\nset-cookie: b=2; ;c\r\nContent-Length: 2\r\nX-Z: \xff\r\n\r\n")
	f("no type is invented", "HTTP/1.1 200 OK\r\n"+date+"Content-Length: 2\r\n\r\n")
	f("codings", "HTTP/1.1 200 OK\r\n"+date+"Content-Encoding: a\r\nContent-Encoding: b\r\nContent-Length: 2\r\n\r\n")
	f("reason", "HTTP/1.1 200 All is (very) well\r\n"+date+"Content-Length: 2\r\n\r\n")
	f("no reason", "HTTP/1.1 404 \r\n"+date+"Content-Length: 2\r\n\r\n")
	f("unknown status", "HTTP/1.1 599 Hm\r\n"+date+"under_score: 1\r\nContent-Length: 2\r\n\r\n")
	f("many fields", "HTTP/1.1 200 OK\r\n"+date+strings.Repeat("X-A: "+strings.Repeat("b", 100)+"\r\n", 300)+"Content-Length: 2\r\n\r\n")
	passed(t, "of requests too", get+"x-b:1\r\nCookie: b=2; ;c\r\nCookie: d\r\nX-A:\t 2 \r\nUser-Agent: a\r\nUser-Agent: b\r\nContent-Type: x\r\n\r\n",
		get+"x-b:1\r\nCookie: b=2; ;c\r\nCookie: d\r\nX-A:\t 2 \r\nUser-Agent: a\r\nUser-Agent: b\r\nContent-Type: x\r\n\r\n")
}

func TestP11_CutAnswersBeforeTheirHeadIsWhole(t *testing.T) {
	for _, part := range []string{"", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Len", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"} {
		t.Run(fmt.Sprintf("%q", part), func(t *testing.T) {
			t.Parallel()
			s := take(t, func(c *rig.Conn) {
				if _, err := c.ReadRequest(); err == nil {
					c.Say(part)
				}
			})
			c := s.dial(t)
			if a := c.Ask("GET", s.in(get+"\r\n")); a.Status != 502 || !strings.Contains(a.Body, "upstream_reset") {
				t.Errorf("got %q%q", a.Head, a.Body)
			}
			if err := alive(c); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestP12_ABusyInstanceIsWaitedForAndNotForLong(t *testing.T) {
	t.Parallel()
	began, end := make(chan struct{}, 8), make(chan struct{})
	s := take(t, func(c *rig.Conn) {
		for {
			if _, err := c.ReadRequest(); err != nil {
				return
			}
			began <- struct{}{}
			<-end
			c.Say(rig.OK)
		}
	})
	first, second := s.dial(t), s.dial(t)
	const raw = "GET /single HTTP/1.1\r\nHost: {host}\r\n\r\n"
	first.Send(s.in(raw))
	<-began
	a := second.Ask("GET", s.in(raw))
	if after, ok := a.Field("Retry-After"); a.Status != 503 || !ok || after == "" || !strings.Contains(a.Body, "upstream_busy") {
		t.Errorf("while the only connection is in use: %q%q", a.Head, a.Body)
	}
	close(end)
	if a := first.Answer("GET"); a.Status != 200 {
		t.Errorf("the first: %q", a.Head)
	}
	if a := second.Ask("GET", s.in(raw)); a.Status != 200 {
		t.Errorf("afterwards: %q", a.Head)
	}
	if n := s.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestP12_ManyRequestsAtATime(t *testing.T) {
	t.Parallel()
	const many = 700 // more than the 512 of the stock client
	var flying sync.WaitGroup
	flying.Add(many)
	s := take(t, func(c *rig.Conn) {
		if _, err := c.ReadRequest(); err == nil {
			flying.Done()
			flying.Wait() // all of them are here
			c.Say(rig.OK)
		}
	})
	clients := make([]*rig.Client, many)
	for i := range clients {
		clients[i] = s.dial(t)
		clients[i].Send(s.in(get + "\r\n"))
	}
	for i, c := range clients {
		if a := c.Answer("GET"); a.Status != 200 || a.Body != "ok" {
			flying.Add(-many) // nobody waits for ever
			t.Fatalf("request %d: %q %v", i, a.Head, a.Err)
		}
		c.Close()
	}
}

func TestP14_AStoreThatHangsDoesNotSerialise(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp4", "127.0.0.1:0") // accepts, by the kernel, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	o, err := rig.NewOrigin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	g := rig.Run(t, rig.Options{Config: fmt.Sprintf(`
redis: redis://%s/0
trusted_proxies: [127.0.0.0/8]
server: {drain_delay: 1ms}
services: {a: {targets: ["http://%s"]}}
routes: [{path: /**, service: a, public: true, rate_limit: {limit: 1000, per: 1m, by: ip}}]
`, ln.Addr(), o.Addr)})
	const many = 400 // keys that nobody has asked for
	began := time.Now()
	clients := make([]*rig.Client, many)
	for i := range clients {
		clients[i] = rig.Dial(t, g.Addr)
		clients[i].Send(fmt.Sprintf("GET /a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.1.%d.%d\r\n\r\n", i/250, i%250+1))
	}
	for i, c := range clients {
		if a := c.Answer("GET"); a.Status != 200 {
			t.Errorf("client %d: %q %v", i, a.Head, a.Err)
		}
	}
	// One after the other they would take 25 ms each.
	if took := time.Since(began); took > many*25*time.Millisecond/2 {
		t.Errorf("took %v", took)
	}
}
