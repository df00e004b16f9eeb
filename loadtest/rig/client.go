package rig

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Client is a raw connection to a gateway. What it reads it must get within
// Patience.
type Client struct {
	net.Conn
	R *bufio.Reader
	t testing.TB
}

// Dial connects until the test ends.
func Dial(t testing.TB, addr string) *Client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return Wrap(t, c)
}

// Wrap makes a Client of a connection, which stays the caller's to close.
func Wrap(t testing.TB, c net.Conn) *Client { return &Client{c, bufio.NewReader(c), t} }

// Send writes raw. That the gateway does not take all of it is no failure: it
// may have refused already.
func (c *Client) Send(raw string) {
	_ = c.SetWriteDeadline(time.Now().Add(Patience))
	_, _ = io.WriteString(c.Conn, raw)
}

// Ask is Send and Answer.
func (c *Client) Ask(method, raw string) Answer {
	c.t.Helper()
	c.Send(raw)
	return c.Answer(method)
}

// Answer is a response as it came.
type Answer struct {
	// Interims are the heads of interim answers.
	Interims []string
	// Status is 0 where no final head came.
	Status int
	Head   string
	// Body is the content, decoded if it was chunked; Whole tells that it was
	// complete, Trailer what came behind it.
	Body    string
	Whole   bool
	Trailer string
	// Err is what ended the reading early.
	Err error
}

// Field is the value of the first field of that name; ok tells that there is one.
func (a Answer) Field(name string) (value string, ok bool) { return Message{Head: a.Head}.Field(name) }

// Answer reads one final response, and the interim ones before it.
func (c *Client) Answer(method string) (a Answer) {
	_ = c.SetReadDeadline(time.Now().Add(Patience))
	for {
		head, err := readHead(c.R)
		if err != nil {
			a.Head, a.Err = head, err
			return a
		}
		a.Status = status(head)
		if a.Status < 100 || a.Status > 199 || a.Status == 101 {
			a.Head = head
			break
		}
		a.Interims = append(a.Interims, head)
	}
	var b strings.Builder
	length, hasLength := a.Field("Content-Length")
	_, chunked := a.Field("Transfer-Encoding")
	switch {
	case method == "HEAD", a.Status == 204, a.Status == 304, a.Status == 101:
	case chunked:
		a.Trailer, a.Err = readChunks(c.R, &b)
	case hasLength:
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil {
			a.Err = err
			return a
		}
		_, a.Err = io.CopyN(&b, c.R, n)
	default:
		_, a.Err = io.Copy(&b, c.R)
	}
	a.Body, a.Whole = b.String(), a.Err == nil
	return a
}

func status(head string) int {
	if len(head) < 12 || !strings.HasPrefix(head, "HTTP/1.") {
		return -1
	}
	n, err := strconv.Atoi(head[9:12])
	if err != nil {
		return -1
	}
	return n
}

// Ended reports whether the gateway closes the connection without sending
// anything more; rest is what it sent nevertheless. A reset counts as closed.
func (c *Client) Ended() (ended bool, rest string) {
	_ = c.SetReadDeadline(time.Now().Add(Patience))
	b, err := io.ReadAll(c.R)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return false, string(b)
	}
	return len(b) == 0, string(b)
}
