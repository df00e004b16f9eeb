package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse/gatehouse/discovery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is an instance that does with its nth connection (from 0) what play
// says. It counts what happened.
type script struct {
	addr netip.AddrPort
	ln   net.Listener
	wg   sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

func startScript(t testing.TB, play func(n int, c net.Conn)) *script {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startScriptOn(t, ln, play)
}

func startScriptOn(t testing.TB, ln net.Listener, play func(n int, c net.Conn)) *script {
	s := &script{ln: ln, addr: netip.MustParseAddrPort(ln.Addr().String())}
	s.wg.Add(1)
	go s.accept(play)
	t.Cleanup(s.stop)
	return s
}

func (s *script) accept(play func(n int, c net.Conn)) {
	defer s.wg.Done()
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		n := len(s.conns)
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			defer c.Close()
			play(n, c)
		}()
	}
}

func (s *script) stop() {
	_ = s.ln.Close()
	s.mu.Lock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *script) accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// readRequest reads a request without content and returns its target.
func readRequest(br *bufio.Reader) (string, error) {
	target := ""
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return "", err
		}
		if target == "" {
			if f := strings.Fields(line); len(f) > 1 {
				target = f[1]
			}
		}
		if line == "\r\n" {
			return target, nil
		}
	}
}

// echo answers every request with its target.
func echo(_ int, c net.Conn) {
	br := bufio.NewReader(c)
	for {
		target, err := readRequest(br)
		if err != nil {
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(target), target)
	}
}

func newTestService(t testing.TB, cfg Config, addrs ...netip.AddrPort) *Service {
	t.Helper()
	if cfg.Connect == 0 {
		cfg.Connect = 10 * time.Second // machines that run tests are busy
	}
	svc := NewService(cfg, time.Now)
	svc.Update(endpoints(addrs...))
	t.Cleanup(svc.Close)
	return svc
}

func endpoints(addrs ...netip.AddrPort) []discovery.Endpoint {
	var eps []discovery.Endpoint
	for i, a := range addrs {
		eps = append(eps, discovery.Endpoint{ID: fmt.Sprint("i", i), Addr: a, Weight: 1})
	}
	return eps
}

func soon() time.Time { return time.Now().Add(time.Minute) }

func lend(t testing.TB, svc *Service) *Conn {
	t.Helper()
	inst := svc.Pick(0, 0)
	if inst == nil {
		t.Fatal("no instance")
	}
	c, err := inst.Conn(soon())
	if err != nil {
		t.Fatal(err)
	}
	inst.Done(Success)
	return c
}

func request(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n" }

// get does one exchange whose answer has a Content-Length.
func get(t testing.TB, svc *Service, target string) (body string, reused bool) {
	t.Helper()
	c := lend(t, svc)
	c.Out = append(c.Out, request(target)...)
	head, err := c.RoundTrip(soon())
	if err != nil {
		t.Fatalf("GET %s: %v", target, err)
	}
	c.BodyLength(contentLength(t, head))
	body, err = readAll(c)
	if err != nil {
		t.Fatalf("GET %s: %v", target, err)
	}
	reused = c.Reused()
	c.Release(true)
	return body, reused
}

func contentLength(t testing.TB, head []byte) int64 {
	t.Helper()
	var n int64
	_, rest, _ := strings.Cut(string(head), "Content-Length: ")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatalf("no length in %q", head)
	}
	return n
}

func readAll(c *Conn) (string, error) {
	var sb strings.Builder
	for {
		p, err := c.Next(soon())
		if err == io.EOF {
			return sb.String(), nil
		}
		if err != nil {
			return sb.String(), err
		}
		sb.Write(p)
	}
}

// eventually waits until ok, because the other side of a socket needs time.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func wantKind(t testing.TB, err, kind error, phase Phase) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, kind) || e.Phase != phase {
		t.Fatalf("error is %v, want %v while %s", err, kind, phase)
	}
	if kind == io.ErrUnexpectedEOF && errors.Is(err, io.EOF) {
		t.Fatalf("a cut message looks like a whole one: %v", err)
	}
}

func idle(svc *Service) int {
	n := 0
	for _, i := range svc.Status().Instances {
		n += i.Idle
	}
	return n
}
