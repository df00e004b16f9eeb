package upstream

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
	"time"
)

// open sends a request to an instance that plays, and reads the head.
func open(t *testing.T, play func(c net.Conn)) (*Conn, *Service) {
	t.Helper()
	s := startScript(t, func(_ int, c net.Conn) {
		if _, err := readRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			play(c)
			io.Copy(io.Discard, c)
		}
	})
	svc := newTestService(t, Config{}, s.addr)
	c := lend(t, svc)
	c.Out = append(c.Out, request("/")...)
	if _, err := c.RoundTrip(soon()); err != nil {
		t.Fatal(err)
	}
	return c, svc
}

func TestLargeBodiesArriveWhole(t *testing.T) {
	content := make([]byte, 3<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	t.Run("by length", func(t *testing.T) {
		c, svc := open(t, func(c net.Conn) { c.Write(content) })
		c.BodyLength(int64(len(content)))
		if body, err := readAll(c); body != string(content) || err != nil {
			t.Errorf("%d bytes, %v", len(body), err)
		}
		c.Release(true)
		if idle(svc) != 1 || c.large != nil || len(c.buf) != smallBuffer {
			t.Error("not reused, or with a large buffer")
		}
	})
	for _, most := range []int{1, 10, 1000, 20_000, 200_000} {
		t.Run(fmt.Sprint("chunks of at most ", most), func(t *testing.T) {
			content := content[:min(len(content), most*5_000)]
			c, svc := open(t, func(c net.Conn) {
				w := bufio.NewWriterSize(c, 50_000)
				for p := content; len(p) > 0; {
					n := min(1+random.IntN(most), len(p))
					w.Write(appendChunk(nil, p[:n]))
					p = p[n:]
				}
				io.WriteString(w, "0\r\nDigest: abc\r\n\r\n")
				w.Flush()
			})
			c.BodyChunked()
			if body, err := readAll(c); body != string(content) || err != nil {
				t.Errorf("%d bytes, %v", len(body), err)
			}
			if got := string(c.Trailers()); got != "Digest: abc\r\n" {
				t.Errorf("trailers %q", got)
			}
			c.Release(true)
			if idle(svc) != 1 {
				t.Error("not reused")
			}
		})
	}
}

func TestBufferedChunksAreOnePiece(t *testing.T) {
	const in = "1\r\na\r\n2;x\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n"
	c, _ := open(t, func(c net.Conn) { io.WriteString(c, in) })
	defer c.Release(false)
	for len(c.Buffered()) < len(in) { // until everything is there
		if err := c.fill(soon()); err != nil {
			t.Fatal(err)
		}
	}
	c.BodyChunked()
	if p, err := c.Next(soon()); string(p) != "abcdef" || err != nil {
		t.Errorf("%q, %v", p, err)
	}
	if _, err := c.Next(soon()); err != io.EOF {
		t.Error(err)
	}
}

// What an event stream sends must not wait for what it will send.
func TestContentIsLentAsItArrives(t *testing.T) {
	next := make(chan string)
	defer close(next)
	for _, chunked := range []bool{true, false} {
		c, _ := open(t, func(c net.Conn) {
			for range 3 {
				event := []byte(<-next)
				if chunked {
					event = appendChunk(nil, event)
				}
				c.Write(event)
			}
		})
		if c.BodyUntilClose(); chunked {
			c.BodyChunked()
		}
		for i := range 3 {
			event := fmt.Sprintf("event %d", i)
			next <- event
			p, err := c.Next(soon())
			if string(p) != event || err != nil {
				t.Errorf("%q, %v, want %q", p, err, event)
			}
		}
		_, err := c.Next(time.Now().Add(10 * time.Millisecond))
		wantKind(t, err, ErrTimeout, PhaseBody)
		if _, again := c.Next(soon()); again != err {
			t.Errorf("an error is not final: %v", again)
		}
		c.Release(true)
	}
}

func TestMalformedChunksAreAnError(t *testing.T) {
	c, svc := open(t, func(c net.Conn) { io.WriteString(c, "3\r\nabc\r\n3\nabc\r\n0\r\n\r\n") })
	c.BodyChunked()
	body, err := readAll(c)
	wantKind(t, err, ErrMalformed, PhaseBody)
	if !bytes.HasPrefix([]byte("abc"), []byte(body)) {
		t.Errorf("body %q", body)
	}
	c.Release(true)
	if idle(svc) != 0 {
		t.Error("reused")
	}
}

func TestFramingMustBeTold(t *testing.T) {
	c, _ := open(t, func(net.Conn) {})
	defer c.Release(false)
	_, err := c.Next(soon())
	wantKind(t, err, ErrMalformed, PhaseBody)
}

// appendChunk appends p as one chunk; an empty p appends nothing.
func appendChunk(dst, p []byte) []byte {
	if len(p) == 0 {
		return dst
	}
	dst = strconv.AppendUint(dst, uint64(len(p)), 16)
	dst = append(dst, '\r', '\n')
	dst = append(dst, p...)
	return append(dst, '\r', '\n')
}
