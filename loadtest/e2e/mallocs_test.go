package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"text/template"

	"github.com/gatehouse/gatehouse/loadtest/servers"
)

var enforcedFile = template.Must(template.New("").Parse(`
listeners: [{address: {{.Addr}}}]
admin: {address: {{.Admin}}}
store: sqlite:{{.Store}}
redis: redis://{{.Redis}}/0
server: {drain_delay: 0s}
authserver:
  issuer: http://{{.Addr}}
  key_encryption_key: {{.KEK}}
  scopes: {read:orders: Read your orders}
  clients: [{id: batch, secret: {{.Secret}}, grants: [client_credentials], scopes: [read:orders]}]
services:
  orders: {targets: ["http://{{.Backend}}"]}
routes:
  - name: orders
    path: /orders/**
    service: orders
    auth: {scopes: [read:orders]}
    rate_limit: {limit: 1000000, per: 1s, by: client}
`))

// TestAnEnforcedRequestAllocatesAtMostTwice counts the mallocs of the whole
// process over keep-alive requests through everything: token, scope,
// revocation, a limit in Redis, breaker, retry, metrics. The program is built
// without the race detector even where the tests have it, for that allocates.
func TestAnEnforcedRequestAllocatesAtMostTwice(t *testing.T) {
	const lines, requests, budget = 16, 100_000, 2.0
	redis := servers.Redis(t)
	path := plainProgram(t)
	folder := t.TempDir()
	kek := make([]byte, 32)
	_, _ = rand.Read(kek) // never fails
	g := &gateway{addr: freeAddress(t), file: filepath.Join(folder, "gatehouse.yaml")}
	admin := freeAddress(t)
	g.url, g.admin = "http://"+g.addr, "http://"+admin
	writeFile(t, g.file, render(t, enforcedFile, map[string]string{
		"Addr": g.addr, "Admin": admin, "Store": filepath.Join(folder, "gatehouse.db"), "Redis": redis.Addr,
		"KEK": base64.StdEncoding.EncodeToString(kek), "Secret": batchSecret, "Backend": fixedBackend(t),
	}))
	g.run(t, path)
	g.awaitReady(t)
	var connections []*quickLine
	for range lines {
		connections = append(connections, newQuickLine(t, g.addr, g.token(t, "batch")))
	}
	run := func(each int) {
		var wg sync.WaitGroup
		for _, c := range connections {
			wg.Go(func() {
				for range each {
					if err := c.roundTrip(); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	run(500) // pools fill, connections open, tokens are verified
	mallocs := func() float64 {
		v, ok := g.metric(t, "go_memstats_mallocs_total")
		if !ok {
			t.Fatal("no go_memstats_mallocs_total")
		}
		return v
	}
	mallocs()
	before := mallocs()
	scrape := mallocs() - before // what looking costs
	before = mallocs()
	run(requests / lines)
	each := (mallocs() - before - scrape) / requests
	t.Logf("%.3f allocations per enforced request", each)
	if each > budget {
		t.Errorf("%.3f allocations per enforced request, want at most %v", each, budget)
	}
	if calls, _ := g.metric(t, `gateway_ratelimit_store_calls_total{result="ok"}`); calls == 0 {
		t.Error("Redis was never asked: the limit was not on")
	}
}

// fixedBackend answers every request with the same bytes.
func fixedBackend(t testing.TB) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go answerAlways(conn)
		}
	}()
	return l.Addr().String()
}

func answerAlways(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		if err := skipHead(in); err != nil {
			return
		}
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
			return
		}
	}
}

// skipHead reads up to the empty line.
func skipHead(in *bufio.Reader) error {
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			return nil
		}
	}
}

// quickLine sends one request again and again, with little work of its own.
type quickLine struct {
	conn    net.Conn
	in      *bufio.Reader
	request []byte
}

func newQuickLine(t testing.TB, addr, token string) *quickLine {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &quickLine{conn, bufio.NewReader(conn),
		fmt.Appendf(nil, "GET /orders/1 HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", addr, token)}
}

func (q *quickLine) roundTrip() error {
	if _, err := q.conn.Write(q.request); err != nil {
		return err
	}
	status, err := q.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answer %q", status)
	}
	if err := skipHead(q.in); err != nil {
		return err
	}
	_, err = q.in.Discard(2)
	return err
}
