package rig

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Origin is a scripted server that remembers every byte it was sent.
type Origin struct {
	// Addr is where it listens.
	Addr string

	ln net.Listener

	mu     sync.Mutex
	script func(*Conn)
	conns  []*Conn // since the last Reset, in the order of their first byte
	seen   int     // connections since the last Reset
	forget bool
	open   map[*Conn]struct{}
}

// Conn is a connection to an Origin.
type Conn struct {
	net.Conn
	// R reads what the gateway sends; everything read is remembered.
	R *bufio.Reader

	origin *Origin
	mu     sync.Mutex
	got    bytes.Buffer
	ended  chan struct{}
}

// NewOrigin listens on loopback; until Reset it answers everything with 200.
func NewOrigin() (*Origin, error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &Origin{Addr: ln.Addr().String(), ln: ln, script: Always(OK), open: map[*Conn]struct{}{}}
	go o.accept()
	return o, nil
}

// OK is the answer of an Origin that was told nothing else.
const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func (o *Origin) accept() {
	for {
		nc, err := o.ln.Accept()
		if err != nil {
			return
		}
		c := &Conn{Conn: nc, origin: o, ended: make(chan struct{})}
		c.R = bufio.NewReader(io.TeeReader(nc, memory{c}))
		o.mu.Lock()
		o.seen++
		o.open[c] = struct{}{}
		script := o.script
		o.mu.Unlock()
		go func() {
			defer close(c.ended)
			script(c)
			c.Close()
			o.mu.Lock()
			delete(o.open, c)
			o.mu.Unlock()
		}()
	}
}

// memory is where the tee of a connection leads.
type memory struct{ c *Conn }

func (m memory) Write(p []byte) (int, error) {
	m.c.remember(p)
	return len(p), nil
}

func (c *Conn) remember(p []byte) {
	c.mu.Lock()
	first := c.got.Len() == 0
	if first || !c.origin.forget {
		c.got.Write(p)
	}
	c.mu.Unlock()
	if first {
		c.origin.mu.Lock()
		c.origin.conns = append(c.origin.conns, c)
		c.origin.mu.Unlock()
	}
}

// Forget has the origin remember only the beginning of what it receives, for
// content that is too much to keep. It must be called before anything came.
func (o *Origin) Forget() { o.forget = true }

// Reset closes every connection, forgets what was received, and has new
// connections run script. It returns when the old scripts have ended.
func (o *Origin) Reset(script func(*Conn)) {
	o.mu.Lock()
	o.script = script
	old := make([]*Conn, 0, len(o.open))
	for c := range o.open {
		old = append(old, c)
	}
	o.mu.Unlock()
	for _, c := range old {
		c.Close()
		<-c.ended
	}
	o.mu.Lock()
	o.conns, o.seen = nil, 0
	o.mu.Unlock()
}

// Close ends the origin.
func (o *Origin) Close() {
	o.ln.Close()
	o.Reset(func(*Conn) {})
}

// Received is what came since Reset, one string for each connection on which
// anything came.
func (o *Origin) Received() (all []string) {
	o.mu.Lock()
	conns := o.conns
	o.mu.Unlock()
	for _, c := range conns {
		all = append(all, c.Received())
	}
	return all
}

// Connections counts the connections since Reset.
func (o *Origin) Connections() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen
}

// Received is what came on this connection.
func (c *Conn) Received() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got.String()
}

// Say sends text; an error shows when the script reads next.
func (c *Conn) Say(text string) { _, _ = io.WriteString(c.Conn, text) }

// Gone waits until the gateway closes the connection and reports whether it
// did so in time.
func (c *Conn) Gone() bool {
	_ = c.SetReadDeadline(time.Now().Add(Patience))
	_, err := io.Copy(io.Discard, c.R)
	var timeout net.Error
	return err == nil || !errors.As(err, &timeout) || !timeout.Timeout()
}

// Message is a request as an Origin read it.
type Message struct {
	// Line is the request line without its end, Head the whole head.
	Line, Head string
	// Body is the decoded content; Whole tells that it was complete.
	Body  string
	Whole bool
}

// Field is the value of the first field of that name; ok tells that there is one.
func (m Message) Field(name string) (value string, ok bool) {
	for line := range strings.SplitSeq(m.Head, "\r\n") {
		if n, v, found := strings.Cut(line, ":"); found && strings.EqualFold(n, name) {
			return strings.TrimSpace(v), true
		}
	}
	return "", false
}

// ReadHead reads the head of the next request.
func (c *Conn) ReadHead() (Message, error) {
	head, err := readHead(c.R)
	line, _, _ := strings.Cut(head, "\r\n")
	return Message{Line: line, Head: head}, err
}

// ReadRequest reads the next request with its content.
func (c *Conn) ReadRequest() (Message, error) {
	m, err := c.ReadHead()
	if err != nil {
		return m, err
	}
	var b strings.Builder
	length, hasLength := m.Field("Content-Length")
	if coding, chunked := m.Field("Transfer-Encoding"); chunked {
		if coding != "chunked" || hasLength {
			return m, fmt.Errorf("the gateway's framing is ambiguous: %q", m.Head)
		}
		_, err = readChunks(c.R, &b)
	} else if hasLength {
		n, perr := strconv.ParseInt(length, 10, 64)
		if perr != nil {
			return m, perr
		}
		_, err = io.CopyN(&b, c.R, n)
	}
	m.Body, m.Whole = b.String(), err == nil
	return m, err
}

// Always is the script that answers every request with the same bytes.
func Always(answer string) func(*Conn) {
	return func(c *Conn) {
		for {
			if _, err := c.ReadRequest(); err != nil {
				return
			}
			c.Say(answer)
		}
	}
}

var own = regexp.MustCompile(`(?m)^(?:X-Forwarded-(?:For|Proto|Host|Port): [^\r]+|Forwarded: [^\r]+|X-Request-Id: [0-9a-f]{32}|traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-0[01])\r\n`)

// Strip takes out of received bytes the lines that the gateway adds to each
// request, so that the rest can be compared to the byte.
func Strip(received string) string { return own.ReplaceAllString(received, "") }

func readHead(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil || line == "\r\n" {
			return b.String(), err
		}
	}
}

// readChunks decodes chunked content and returns its trailer section.
func readChunks(r *bufio.Reader, to io.Writer) (trailer string, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		size, _, _ := strings.Cut(strings.TrimSuffix(line, "\r\n"), ";")
		n, err := strconv.ParseUint(size, 16, 62)
		if err != nil {
			return "", fmt.Errorf("chunk size %q", line)
		}
		if n == 0 {
			break
		}
		if _, err := io.CopyN(to, r, int64(n)); err != nil {
			return "", err
		}
		if end, err := r.ReadString('\n'); err != nil || end != "\r\n" {
			return "", fmt.Errorf("chunk ends with %q: %v", end, err)
		}
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil || line == "\r\n" {
			return trailer, err
		}
		trailer += line
	}
}
