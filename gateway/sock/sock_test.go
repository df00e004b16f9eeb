package sock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// pair returns both ends of a loopback connection.
func pair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

func open(t testing.TB, c *net.TCPConn) *Conn {
	t.Helper()
	s, ok := New(c)
	if !ok {
		t.Fatal("no raw connection")
	}
	return s
}

func TestLargeMessagesArriveWholeAndTheEndIsEOF(t *testing.T) {
	a, b := pair(t)
	message := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB: more than the socket buffers
	sent := make(chan error, 1)
	go func() {
		_, err := open(t, a).Write(message)
		sent <- errors.Join(err, a.CloseWrite())
	}()
	got, err := io.ReadAll(open(t, b))
	if err != nil || !bytes.Equal(got, message) {
		t.Errorf("%d of %d bytes, %v", len(got), len(message), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestDeadlinesAndClosingEndAWait(t *testing.T) {
	a, _ := pair(t)
	s := open(t, a)
	_ = a.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	_ = a.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := s.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
		t.Errorf("write: %d %v", n, err)
	}
	_ = a.SetReadDeadline(time.Time{})
	done := make(chan error, 1)
	go func() { _, err := s.Read(make([]byte, 1)); done <- err }()
	time.AfterFunc(20*time.Millisecond, func() { a.Close() })
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	a, b := pair(t)
	from, to, p := open(t, a), open(t, b), make([]byte, 1024)
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := from.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(to, p); err != nil {
			t.Fatal(err)
		}
	}); n > 0.1 {
		t.Errorf("%v allocations", n)
	}
}
