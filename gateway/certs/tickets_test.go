package certs

import (
	"crypto/tls"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/gateway/certs/certstest"
	"github.com/gatehouse/gatehouse/routes"
)

// clock is a time that tests move.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time           { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(by time.Duration) { c.ahead.Add(int64(by)) }

func TestSessionsAreResumedByEveryProcessWithTheSecret(t *testing.T) {
	ca, d := certstest.NewCA(t, "CA"), folder(t.TempDir())
	section := &routes.TLS{Certificates: []routes.Certificate{
		{Cert: d.path("api.crt"), Key: d.path("api.key")},
	}}
	ca.Issue(t, certstest.Wanted{Names: []string{"api.example.com"}, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}).
		Write(t, d.path("api.crt"), d.path("api.key"))
	secret, older := []byte("a secret of all replicas, long enough"), []byte("the secret that was used before it..")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		var time1, time2 clock
		// Whole windows only move by forward.
		start := time.Duration(int64(ticketLife) - time.Now().UnixNano()%int64(ticketLife))
		time1.forward(start)
		time2.forward(start)
		one, two := newListener(t, section, time1.now, secret), newListener(t, section, time2.now, secret)
		rotated := newListener(t, section, time2.now, []byte("the newest secret, of a longer list.."), secret)
		stranger, before := newListener(t, section, time2.now), newListener(t, section, time2.now, older)
		f := func(what string, first, second *Listener, want bool) {
			t.Helper()
			cfg := client(ca, "api.example.com")
			cfg.MaxVersion, cfg.ClientSessionCache = version, tls.NewLRUClientSessionCache(1)
			cfg.Time = time2.now
			for i, l := range []*Listener{first, second} {
				state, _, err, _ := handshake(t, l, cfg)
				if err != nil {
					t.Fatal(what, err)
				}
				if i == 1 && state.DidResume != want {
					t.Errorf("version %x, %s: resumed %v", version, what, state.DidResume)
				}
			}
		}
		f("the same process", one, one, true)
		f("another process", one, two, true)
		f("a process whose secret is newer but knows this one", one, rotated, true)
		f("a process that does not know the newer secret", rotated, one, false)
		f("a process with another secret", one, before, false)
		f("a process with a secret of its own", one, stranger, false)
		time2.forward(ticketLife)
		f("the window after", one, two, true)
		f("a clock that is behind", two, one, true)
		time2.forward(ticketLife)
		f("two windows later", one, two, false)
		f("the new window", two, two, true)
	}
}

func TestTicketsOfOtherClientCAsAreOfNoUse(t *testing.T) {
	ca, a, b, d := certstest.NewCA(t, "CA"), certstest.NewCA(t, "A"), certstest.NewCA(t, "B"), folder(t.TempDir())
	a.Write(t, d.path("a.pem"))
	b.Write(t, d.path("b.pem"))
	pair := d.pair(t, ca, "api", "api.example.com")
	secret := []byte("a secret of all listeners, long enough")
	listener := func(clientCA string) *Listener {
		section := &routes.TLS{Certificates: []routes.Certificate{pair}, ClientAuth: "request"}
		if clientCA != "" {
			section.ClientCA = d.path(clientCA)
		}
		return newListener(t, section, time.Now, secret)
	}
	cfg := client(ca, "api.example.com")
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for _, name := range []string{"a.pem", "b.pem", "", "a.pem"} {
		if state, _, err, _ := handshake(t, listener(name), cfg); err != nil || state.DidResume {
			t.Errorf("%q: error %v, resumed %v", name, err, state.DidResume)
		}
	}
}
