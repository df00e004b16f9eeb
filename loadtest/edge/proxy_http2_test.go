package edge

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

func http2Poison(t *testing.T) {
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
			c.Say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")
			poisoned <- struct{}{}
		}
	})
	c := s.frames(t)
	for i := range 6 {
		id := fmt.Sprint("client-", i)
		if r := c.ask(s.fields(message("x-id", id))); r.status != 200 || r.body != id {
			t.Errorf("request %d got %s %q", i, r.outcome(), r.body)
		}
		<-poisoned
	}
}

func http2Switches(t *testing.T) {
	badGateway2(t, "101", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi")
}

func http2Repetitions(t *testing.T) {
	f := func(name string, most int32, content []string, changes ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			s := take(t, func(c *rig.Conn) {
				if _, err := c.ReadRequest(); err == nil {
					asked.Add(1)
				}
			})
			if r := s.frames(t).ask(s.fields(message(changes...)), content...); r.status != 502 {
				t.Errorf("got %s", r.outcome())
			}
			if n := asked.Load(); n < 1 || n > most {
				t.Errorf("the origin was asked %d times", n)
			}
		})
	}
	f("GET once more", 2, nil, ":path", "/retry")
	f("GET not where it is off", 1, nil)
	f("POST never", 1, abc, ":method", "POST", ":path", "/retry", "content-length", "3")
	f("PUT with content that is gone never", 1, abc, ":method", "PUT", ":path", "/retry")
}

func http2EarlyAnswers(t *testing.T) {
	t.Parallel()
	s := take(t, func(c *rig.Conn) {
		if _, err := c.ReadHead(); err == nil {
			c.Say("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 5\r\n\r\nlarge")
		}
	})
	c := s.frames(t)
	id := c.open(s.fields(message(":method", "POST", "content-length", "100000000")), false)
	_ = c.WriteData(id, false, make([]byte, 16<<10)) // and no more
	if r := c.reply(id); r.status != 413 || r.body != "large" {
		t.Errorf("got %s %q", r.outcome(), r.body)
	}
	if err := c.alive(); err != nil {
		t.Error(err)
	}
}

func http2Interims(t *testing.T) {
	f := func(name, interim string, want int) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := take(t, rig.Always(interim+rig.OK))
			r := s.frames(t).ask(s.fields(message()))
			if r.status != 200 || r.body != "ok" || len(r.interims) != want {
				t.Fatalf("got %v, %s %q", r.interims, r.outcome(), r.body)
			}
			for _, head := range r.interims {
				link, _ := lookUp(head, "link")
				if status, _ := lookUp(head, ":status"); status != "103" || link != "</a.css>" {
					t.Errorf("got %v", head)
				}
				if _, there := lookUp(head, "x-a"); there {
					t.Errorf("a field of one connection: %v", head)
				}
			}
			if _, there := r.field("link"); there {
				t.Errorf("the final answer has fields of another: %v", r.head)
			}
		})
	}
	const hints = "HTTP/1.1 103 Early Hints\r\nConnection: X-A\r\nX-A: 1\r\nLink: </a.css>\r\n\r\n"
	f("103 passes", hints, 1)
	f("each of them", hints+hints, 2)
	f("100 and 102 do not", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n", 0)
	badGateway2(t, "too many", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 40)+rig.OK)
}

func http2HopByHop(t *testing.T) {
	for _, name := range []string{"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"} {
		forbidden(t, name, name, "x")
	}
	for _, name := range []string{"proxy-authorization", "proxy-authenticate", "trailer", "http2-settings"} {
		passed2(t, name, message(name, "x", "x-a", "1"), nil, get+"X-A: 1\r\n\r\n")
	}
	passed2(t, "te", message("te", "trailers"), nil, get+"\r\n")
	t.Run("expect", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.frames(t)
		id := c.open(s.fields(message(":method", "POST", "content-length", "3", "expect", "100-continue")), false)
		f, end := c.frame(id)
		if head, ok := f.(*http2.MetaHeadersFrame); !ok || head.PseudoValue("status") != "100" {
			t.Fatalf("got %v %s", f, end)
		}
		_ = c.WriteData(id, true, []byte("abc"))
		if r := c.reply(id); r.status != 200 {
			t.Errorf("got %s", r.outcome())
		}
		if got, want := rig.Strip(strings.Join(s.Received(), "")), s.in(post+"Content-Length: 3\r\n\r\nabc"); got != want {
			t.Errorf("the origin received %q", got)
		}
	})
	refused2(t, "expect, and the policy is asked first", message(":method", "POST", ":path", "/admin/x", "content-length", "3", "expect", "100-continue"), nil, "400", "401")
}

func http2Version(t *testing.T) {
	passed2(t, "is ours", message(), nil, get+"\r\n")
}

func http2HostKept(t *testing.T) {
	t.Parallel()
	s := take(t, nil)
	host := strings.ToUpper(s.host[:1]) + s.host[1:] + ":8080"
	s.frames(t).ask(message(":authority", host))
	if got, want := rig.Strip(strings.Join(s.Received(), "")), "GET /a HTTP/1.1\r\nHost: "+host+"\r\n\r\n"; got != want {
		t.Errorf("the origin received %q", got)
	}
}

func http2NothingHeld(t *testing.T) {
	f := func(name, head string, chunks bool, pieces ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			next := make(chan struct{})
			defer close(next)
			s := take(t, func(c *rig.Conn) {
				if _, err := c.ReadRequest(); err != nil {
					return
				}
				c.Say(head)
				for _, p := range pieces {
					<-next
					if chunks {
						p = fmt.Sprintf("%x\r\n%s\r\n", len(p), p)
					}
					c.Say(p)
				}
				<-next
			})
			c := s.frames(t)
			id := c.send(s.fields(message()))
			if f, end := c.frame(id); f == nil {
				t.Fatalf("no head: %s", end)
			}
			for _, p := range pieces {
				next <- struct{}{}
				for got := ""; len(got) < len(p); {
					c.refresh()
					f, end := c.frame(id)
					data, ok := f.(*http2.DataFrame)
					if !ok {
						t.Fatalf("%q: got %v %s", p, f, end)
					}
					got += string(data.Data())
					if !strings.HasPrefix(p, got) {
						t.Fatalf("got %.40q, want %.40q", got, p)
					}
				}
			}
		})
	}
	f("length", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", false, "ab", "cd", "ef")
	f("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, "ab", "cd")
	f("until the end", "HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n", false, "ab")
	f("events", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", true, "data: 1\n\n", "data: 2\n\n")
	f("much content", "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n", false, strings.Repeat("a", 100000), strings.Repeat("b", 100000), strings.Repeat("c", 100000))
}

func http2Heads(t *testing.T) {
	f := func(name, fields string, want ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := take(t, rig.Always("HTTP/1.1 200 OK\r\n"+fields+"Content-Length: 2\r\n\r\nok"))
			var got []string
			for _, f := range s.frames(t).ask(s.fields(message())).head {
				got = append(got, f.Name+": "+f.Value)
			}
			slices.Sort(got)
			want := append(want, ":status: 200", "content-length: 2")
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
	const date = "Date: Mon, 01 Jan 2001 00:00:00 GMT\r\n"
	f("dates", date+"Date: tomorrow\r\n", "date: Mon, 01 Jan 2001 00:00:00 GMT", "date: tomorrow")
	f("values of one name", date+"sERVER: x\r\nX-A:1\r\nX-A:\t 2 \r\nset-cookie: b=2; ;c\r\nX-Z: \xff\r\n",
		"date: Mon, 01 Jan 2001 00:00:00 GMT", "server: x", "set-cookie: b=2; ;c", "x-a: 1", "x-a: 2", "x-z: \xff")
	f("codings", date+"Content-Encoding: a\r\nContent-Encoding: b\r\n", "content-encoding: a", "content-encoding: b", "date: Mon, 01 Jan 2001 00:00:00 GMT")
	passed2(t, "of requests too", message("x-b", "1", "cookie", "b=2; ;c", "cookie", "d", "x-a", "2", "x-a", "1", "user-agent", "a", "user-agent", "b", "content-type", "x"), nil,
		get+"Content-Type: x\r\nCookie: b=2; ;c; d\r\nUser-Agent: a\r\nUser-Agent: b\r\nX-A: 2\r\nX-A: 1\r\nX-B: 1\r\n\r\n")
}

func http2CutHeads(t *testing.T) {
	for _, part := range []string{"", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Len", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"} {
		t.Run(fmt.Sprintf("%q", part), func(t *testing.T) {
			t.Parallel()
			s := take(t, func(c *rig.Conn) {
				if _, err := c.ReadRequest(); err == nil {
					c.Say(part)
				}
			})
			if r := s.frames(t).ask(s.fields(message())); r.status != 502 || !strings.Contains(r.body, "upstream_reset") {
				t.Errorf("got %s %q", r.outcome(), r.body)
			}
		})
	}
}

// Streams of one connection do not wait for each other, and no more are carried
// than was said.
func http2ManyAtATime(t *testing.T) {
	t.Parallel()
	const many = 100
	began, end := make(chan struct{}, many+1), make(chan struct{})
	s := take(t, func(c *rig.Conn) {
		if _, err := c.ReadRequest(); err == nil {
			began <- struct{}{}
			<-end
			c.Say(rig.OK)
		}
	})
	c := s.frames(t)
	for range many {
		c.send(s.fields(message()))
	}
	for range many {
		<-began
	}
	id := c.send(s.fields(message()))
	if r := c.reply(id); r.outcome() != "REFUSED_STREAM" && r.outcome() != reset {
		t.Errorf("one more: %s", r.outcome())
	}
	close(end)
	for range many {
		c.refresh()
		for done := false; !done; {
			f, err := c.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			done = f.Header().StreamID != 0 && f.Header().Flags.Has(http2.FlagDataEndStream) && f.Header().Type == http2.FrameData
		}
	}
	if err := c.alive(); err != nil {
		t.Error(err)
	}
}

func http2LongAnswers(t *testing.T) {
	t.Parallel()
	s := take(t, func(c *rig.Conn) {
		if _, err := c.ReadRequest(); err == nil {
			time.Sleep(1200 * time.Millisecond)
			c.Say(rig.OK)
		}
	})
	if r := s.frames(t).ask(s.fields(message())); r.status != 200 {
		t.Errorf("got %s", r.outcome())
	}
}

// Content that nobody takes is not read on: the windows close.
func http2Memory(t *testing.T) {
	const size = 128 << 20
	o, err := rig.NewOrigin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	o.Forget()
	g := rig.Run(t, rig.Options{Listeners: []string{"{address: 127.0.0.1:@PORT1@, protocol: h2c}"},
		Config: fmt.Sprintf("server: {drain_delay: 1ms}\nservices: {a: {targets: [\"http://%s\"], timeouts: {request: 5m}}}\nroutes: [{path: /**, service: a, public: true}]\n", o.Addr)})
	before := g.PeakMemory()
	o.Reset(func(c *rig.Conn) {
		if _, err := c.ReadRequest(); err == nil {
			c.Say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size))
			_, _ = io.CopyN(c.Conn, zeros{}, size)
		}
	})
	c := dialFrames(t, g.Extra[0])
	id := c.send(message(":authority", "a"))
	if f, end := c.frame(id); f == nil {
		t.Fatal(end)
	}
	for left := size; left > 0; {
		c.refresh()
		f, end := c.frame(id)
		data, ok := f.(*http2.DataFrame)
		if !ok {
			t.Fatalf("%d bytes are missing: %v %s", left, f, end)
		}
		left -= len(data.Data())
	}
	if grew := g.PeakMemory() - before; grew > size*3/4 {
		t.Errorf("%d MiB of content took %d MiB of memory", size>>20, grew>>20)
	}
}
