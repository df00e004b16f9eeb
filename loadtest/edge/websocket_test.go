package edge

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/rig"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// A tunnel outlives what a stock balancer gives a request, and carries both ways
// meanwhile.
func TestP13_WebSocket(t *testing.T) {
	t.Parallel()
	s := take(t, func(c *rig.Conn) {
		if _, err := c.ReadHead(); err != nil {
			return
		}
		c.Say(fmt.Sprintf(agreed, "websocket"))
		time.Sleep(1200 * time.Millisecond)
		_, _ = io.Copy(c.Conn, c.R)
	})
	c := s.dial(t)
	if a := c.Ask("GET", s.in(fmt.Sprintf(handshake, "websocket"))); a.Status != 101 {
		t.Fatalf("got %q", a.Head)
	}
	for _, size := range []int{1, 125, 65535} {
		frame := append([]byte{0x82, 127 | 0x80, 0, 0, 0, 0, 0, 0, byte(size >> 8), byte(size), 0, 0, 0, 0}, make([]byte, size)...)
		c.Send(string(frame))
		_ = c.SetReadDeadline(time.Now().Add(rig.Patience))
		got := make([]byte, len(frame))
		if _, err := io.ReadFull(c.R, got); err != nil || string(got) != string(frame) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// TestWebSocketClientsOfOthers has npm ws talk to itself through the gateway.
func TestWebSocketClientsOfOthers(t *testing.T) {
	t.Parallel()
	const folder = "../../tools/clients"
	node := servers.Need(t, "node", "node")
	if _, err := os.Stat(folder + "/node_modules/ws"); err != nil {
		servers.Missing(t, "the npm packages of tools/clients are not installed (npm ci there): %v", err)
	}
	script := exec.CommandContext(t.Context(), node, "ws.mjs")
	script.Dir, script.WaitDelay = folder, time.Second
	var complaints strings.Builder
	script.Stderr = &complaints
	in, err := script.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := script.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	said := func() (message struct {
		Port, Life int
		Done       []string
	}) {
		t.Helper()
		if !lines.Scan() || json.Unmarshal(lines.Bytes(), &message) != nil {
			_ = script.Wait()
			t.Fatalf("the script said %q and ended:\n%s", lines.Text(), complaints.String())
		}
		return message
	}
	tell := func(what map[string]string) {
		line, err := json.Marshal(what)
		if err == nil {
			_, err = in.Write(append(line, '\n'))
		}
		if err != nil {
			t.Error(err)
		}
	}
	port := said().Port
	p := newIssuerOf(t, func(p *issuer) rig.Options {
		return rig.Options{Config: fmt.Sprintf(`
server: {drain_delay: 1ms}
issuers: [{issuer: %q, jwks_uri: %q, audiences: [%q]}]
services: {a: {targets: ["http://127.0.0.1:%d"]}}
routes: [{path: /**, service: a, auth: {scopes: [read]}, streams: {websocket: true}}]
`, p.url, p.url+"/jwks", audience, port)}
	})
	tell(map[string]string{"url": "ws://" + p.gw.Addr + "/live", "host": "a.test"})
	for {
		message := said()
		if message.Life == 0 {
			if len(message.Done) != 9 {
				t.Errorf("not everything was done: %q", message.Done)
			}
			break
		}
		claims := map[string]any{"sub": "alice", "client_id": "web", "scope": "read", "exp": time.Now().Unix() + int64(message.Life)}
		tell(map[string]string{"token": p.token(t, claims)})
	}
	if err := script.Wait(); err != nil {
		t.Errorf("%v\n%s", err, complaints.String())
	}
}
