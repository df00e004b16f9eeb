package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/loadtest/servers"
)

func TestParseRefusesWhatCannotBeMeasured(t *testing.T) {
	f := func(args, want string) {
		t.Helper()
		var said bytes.Buffer
		_, err := parse(strings.Fields(args), &said)
		if (err == nil) != (want == "") || !strings.Contains(said.String(), want) {
			t.Errorf("%q: %v, said %q; want %q", args, err, said.String(), want)
		}
	}
	f("", "")
	f("-smoke -only nginx", "")
	f("-rounds 0", "-rounds goes from")
	f("-duration 1ms", "-duration goes from")
	f("-only apache", `unknown proxy "apache"`)
	f("-write -smoke", "-write wants the whole table")
	f("nginx", `unexpected argument "nginx"`)
	f("-nonsense", "not defined")
}

// smoke runs the whole experiment once, as short as can be. Ratios mean nothing
// on a machine that runs tests; errors do.
func smoke(t *testing.T, args ...string) string {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	var said bytes.Buffer
	o, err := parse(append([]string{"-smoke"}, args...), &said)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := bench(t.Context(), o, &out, &said); err != nil {
		t.Fatalf("%v\n%s\n%s", err, said.String(), out.String())
	}
	return out.String()
}

func TestSmokeOfTheYardsticks(t *testing.T) {
	servers.Need(t, "nginx", "nginx")
	servers.Need(t, "haproxy", "haproxy")
	out := smoke(t, "-only", "nginx,haproxy,haproxy-plain")
	for _, want := range []string{"| nginx, plain |", "1.00 (1.00–1.00)", "| haproxy, JWT, scope and limit |", "nginx/", "HAProxy version"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "gatehouse-bench-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestSmokeOfGatehouse(t *testing.T) {
	servers.Need(t, "nginx", "nginx")
	servers.Need(t, "haproxy", "haproxy")
	servers.Need(t, "redis-server", "redis-server")
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "cmd", "gatehouse", "main.go")); err != nil {
		servers.Missing(t, "cmd/gatehouse is not there: %v", err)
	}
	out := smoke(t)
	for _, want := range []string{"| gatehouse, plain |", "| gatehouse, enforced |", "5 % new tokens |", "allocations per request"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
