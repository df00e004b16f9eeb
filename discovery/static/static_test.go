package static_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse/gatehouse/discovery"
	"github.com/gatehouse/gatehouse/discovery/sourcetest"
	"github.com/gatehouse/gatehouse/discovery/static"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTargetsAreParsed(t *testing.T) {
	f := func(targets, query string, tls bool, host string) {
		t.Helper()
		got, err := static.Parse(strings.Fields(targets))
		if err != nil || got.Query.Service != query || got.TLS != tls || got.Host != host {
			t.Errorf("%s: %+v, %v; want query %q, TLS %v, host %q", targets, got, err, query, tls, host)
		}
	}
	f("http://10.0.0.7:8080", "10.0.0.7:8080", false, "")
	f("http://10.0.0.7", "10.0.0.7:80", false, "")
	f("https://10.0.0.7/", "10.0.0.7:443", true, "")
	f("http://[2001:db8::1]:81", "[2001:db8::1]:81", false, "")
	f("http://[::ffff:10.0.0.7]:81", "10.0.0.7:81", false, "")
	f("https://API.internal.", "api.internal:443", true, "api.internal")
	f("https://api.internal:1 https://api.internal:2", "api.internal:1 api.internal:2", true, "api.internal")
	f("https://b https://a", "a:443 b:443", true, "")
	f("http://b:1 http://a:1 http://b:1", "a:1 b:1", false, "")
	f("http://orders_v2:80", "orders_v2:80", false, "orders_v2")
}

func TestTargetMistakesAreNamedAllAtOnce(t *testing.T) {
	f := func(targets string, want ...string) {
		t.Helper()
		got, err := static.Parse(strings.Split(targets, " "))
		if err == nil {
			t.Errorf("%q: %+v, want an error", targets, got)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q: %v, want %q in it", targets, err, w)
			}
		}
	}
	f("10.0.0.7:8080", "want http://host:port")
	f("", "want http://host:port")
	f("ftp://10.0.0.7", "want http://host:port")
	f("http://", "want http://host:port")
	f("http://u:s3cret@10.0.0.7", "user and password")
	f("http://10.0.0.7/api", "rewrite")
	f("http://10.0.0.7/?a", "host and port only")
	f("http://10.0.0.7:0", "port 0")
	f("http://10.0.0.7:65536", "port 65536")
	f("http://0.0.0.0:80", "not the address of an instance")
	f("http://[fe80::1%25eth0]:80", "not the address of an instance")
	f("http://127.1:80", "neither an address nor a host name")
	f("http://10.0.0.256:80", "neither an address nor a host name")
	f("http://-a.b:80", "neither an address nor a host name")
	f("http://a..b:80", "neither an address nor a host name")
	f("http://a:80 https://b:443", "mix http and https")
	f("x http://a:0", `"x"`, "port 0")
	if _, err := static.Parse(nil); err == nil {
		t.Error("no target is no error")
	}
	if _, err := static.Parse([]string{"http://u:s3cret@10.0.0.7"}); strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a password is in the error: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"http://10.0.0.7:8080", "https://api.internal", "http://[::1]:1", "http://a%20b:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := static.Parse([]string{s})
		if err != nil {
			return
		}
		again, err := static.Parse([]string{"http://" + got.Query.Service})
		if err != nil || again.Query != got.Query {
			t.Fatalf("%q gives %q, which gives %q, %v", s, got.Query, again.Query, err)
		}
	})
}

// names is a resolver whose answers change at will.
type names struct {
	mu    sync.Mutex
	addrs map[string]string // "10.0.0.1 10.0.0.2"; absent: an error
	asked int
}

func (n *names) set(host, addrs string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.addrs == nil {
		n.addrs = map[string]string{}
	}
	n.addrs[host] = addrs
	if addrs == "" {
		delete(n.addrs, host)
	}
}

func (n *names) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	var all []netip.Addr
	for s := range strings.FieldsSeq(n.addrs[host]) {
		all = append(all, netip.MustParseAddr(s))
	}
	if len(all) == 0 {
		return nil, errors.New("no such host " + host)
	}
	return all, nil
}

// found collects sets, confirmations included.
type found struct {
	mu   sync.Mutex
	sets []string
}

func (f *found) take(eps []discovery.Endpoint) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sets = append(f.sets, sourcetest.Addrs(eps))
}

func (f *found) want(t *testing.T, n int, last string) {
	t.Helper()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.sets) != n || (n > 0 && f.sets[n-1] != last) {
		t.Fatalf("found %q, want %d sets, the last %q", f.sets, n, last)
	}
}

// watch runs steps in a time bubble while targets are watched.
func watch(t *testing.T, targets string, steps func(t *testing.T, dns *names, got *found, reports *int)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		parsed, err := static.Parse(strings.Fields(targets))
		if err != nil {
			t.Fatal(err)
		}
		dns, got, reports := &names{}, &found{}, 0
		dns.set("a", "10.0.0.1")
		src := static.New(static.Config{Resolver: dns, Report: func(discovery.Query, error) { reports++ }})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- src.Watch(ctx, parsed.Query, got.take) }()
		synctest.Wait()
		steps(t, dns, got, &reports)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatalf("watch ended with %v", err)
		}
	})
}

func TestNamesAreLookedUpEvery30Seconds(t *testing.T) {
	watch(t, "http://a:80 http://10.0.0.9:81", func(t *testing.T, dns *names, got *found, _ *int) {
		got.want(t, 1, "10.0.0.1:80 10.0.0.9:81")
		dns.set("a", "10.0.0.2 10.0.0.1 10.0.0.2")
		time.Sleep(29 * time.Second)
		got.want(t, 1, "10.0.0.1:80 10.0.0.9:81")
		time.Sleep(time.Second)
		got.want(t, 2, "10.0.0.1:80 10.0.0.2:80 10.0.0.9:81")
		time.Sleep(time.Minute)
		got.want(t, 4, "10.0.0.1:80 10.0.0.2:80 10.0.0.9:81") // confirmed twice
	})
}

func TestNameThatCannotBeFoundKeepsItsAddressesUnconfirmed(t *testing.T) {
	watch(t, "http://a:80 http://10.0.0.9:81", func(t *testing.T, dns *names, got *found, reports *int) {
		dns.set("a", "")
		time.Sleep(10 * time.Minute)
		got.want(t, 1, "10.0.0.1:80 10.0.0.9:81")
		if *reports < 15 || *reports > 30 {
			t.Errorf("%d failures reported in 10 minutes", *reports)
		}
		dns.set("a", "10.0.0.3")
		time.Sleep(30 * time.Second)
		got.want(t, 2, "10.0.0.3:80 10.0.0.9:81")
	})
}

func TestNothingIsFoundBeforeSomeAddressIsKnown(t *testing.T) {
	watch(t, "http://absent:80", func(t *testing.T, dns *names, got *found, _ *int) {
		got.want(t, 0, "")
		time.Sleep(5 * time.Second)
		dns.set("absent", "10.0.0.4")
		time.Sleep(8 * time.Second)
		got.want(t, 1, "10.0.0.4:80")
	})
}

func TestUnusableAnswersAreNoAddresses(t *testing.T) {
	watch(t, "http://a:80", func(t *testing.T, dns *names, got *found, reports *int) {
		dns.set("a", "0.0.0.0 ff02::1")
		time.Sleep(30 * time.Second)
		got.want(t, 1, "10.0.0.1:80")
		dns.set("a", "0.0.0.0 ::ffff:10.0.0.5")
		time.Sleep(30 * time.Second)
		got.want(t, 2, "10.0.0.5:80")
		if *reports != 1 {
			t.Errorf("%d failures reported, want 1", *reports)
		}
	})
}

func TestTwoNamesOfOneAddressAreOneInstance(t *testing.T) {
	watch(t, "http://a:80 http://10.0.0.1:80", func(t *testing.T, dns *names, got *found, _ *int) {
		got.want(t, 1, "10.0.0.1:80")
	})
}

func TestStaticSourceKeepsTheContract(t *testing.T) {
	dns := &names{}
	dns.set("a", "10.0.0.2 10.0.0.1")
	src := static.New(static.Config{Resolver: dns})
	parsed, err := static.Parse([]string{"http://a:80", "http://10.0.0.9:81", "http://[::1]:82"})
	if err != nil {
		t.Fatal(err)
	}
	sourcetest.RunFixed(t, src, parsed.Query, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.9:81", "[::1]:82")
}

func TestLocalhostIsFoundByTheSystemsResolver(t *testing.T) {
	parsed, err := static.Parse([]string{"http://localhost:80"})
	if err != nil {
		t.Fatal(err)
	}
	sourcetest.Start(t, static.New(static.Config{}), parsed.Query).Until(10*time.Second, "localhost", func(eps []discovery.Endpoint) bool {
		return len(eps) > 0 && eps[0].Addr.Addr().IsLoopback()
	})
}

func TestForeignQueryIsAnError(t *testing.T) {
	for _, q := range []discovery.Query{{}, {Service: "orders/x"}, {Service: "a:80", Tag: "v2"}} {
		if err := static.New(static.Config{}).Watch(context.Background(), q, nil); err == nil {
			t.Errorf("%+v: no error", q)
		}
	}
}
