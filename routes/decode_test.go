package routes

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func load(t *testing.T, path string) *File {
	t.Helper()
	file, err := Load(path, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestLoadFillsEveryField(t *testing.T) {
	f := load(t, "testdata/good/everything.yaml")
	if l := f.Listeners[3]; l.TLS.Cert != "testdata/good/tls/api.crt" || l.TLS.Key != "testdata/good/tls/api.key" {
		t.Errorf("certificates are at %+v", l.TLS)
	}
	if !f.Listeners[4].TLS.Terminated {
		t.Error("tls: terminated was lost")
	}
	if s := f.Server; s.MaxHeaderBytes != 32<<10 || s.MaxBodyBytes != 10e6 || s.DrainDelay != 0 {
		t.Errorf("got %+v", s)
	}
	orders := f.Services["orders"]
	if b := orders.Breaker; b.Failures != 0.125 || b.Window != time.Minute || orders.Retries.Budget != 0 {
		t.Errorf("got %+v, %+v", b, orders.Retries)
	}
	if legacy := f.Services["legacy"]; legacy.Breaker != nil || legacy.Protocol != "https" || legacy.Retries.Attempts != 2 || legacy.Name != "legacy" {
		t.Errorf("got %+v", legacy)
	}
	if g := f.AuthServer.RefreshToken.Grace; g == nil || *g != 0 {
		t.Errorf("grace is %v", g)
	}
	r := f.Routes[0]
	if r.RateLimits[0] != f.Limits["shared"] || r.RateLimits[0].Name != "shared" || r.RateLimits[0].Burst != 5 {
		t.Errorf("the shared limit is %+v", r.RateLimits[0])
	}
	if l := r.RateLimits[1]; l.Burst != 20 || l.By != "claim:tenant" || l.Mode != "exact" {
		t.Errorf("got %+v", l)
	}
	if r.Plugin("cors").IsZero() || r.Plugin("cors").Pos().Line == 0 || !r.Plugin("headers").IsZero() {
		t.Error("settings of plugins were lost")
	}
	if r.Upstream != orders || r.Index != 0 || f.Routes[1].Index != 1 || f.Routes[1].Name != "root" || f.Routes[2].Name != "oauth-all" {
		t.Errorf("got %+v, %+v", r, f.Routes[1])
	}
	if l := f.Routes[1].RateLimits[0]; l.By != "ip" {
		t.Errorf("a public route is limited by %s", l.By)
	}
	want := map[string]any{"iss": "https://idp.partner.example", "exp": 1.0, "admin": true, "list": []any{"a"}, "map": map[string]any{"a": "b"}}
	if got := f.Tests[1].As.Claims; !reflect.DeepEqual(got, want) {
		t.Errorf("claims are %v", got)
	}
}

func TestDefaultsReachEveryServiceAndRoute(t *testing.T) {
	f := load(t, "testdata/good/included.yaml")
	if s := f.Services["orders"]; s.Timeouts.Request != 9*time.Second || s.Timeouts.Idle != 7*time.Second || s.Timeouts.Connect != time.Second || s.Retries.Attempts != 3 {
		t.Errorf("got %+v, %+v", s.Timeouts, s.Retries)
	}
	if s := f.Services["returns"]; s.Timeouts.Request != 9*time.Second || s.Targets[0] != "http://127.0.0.1:9003" {
		t.Errorf("got %+v", s)
	}
	routes := map[string]*Route{}
	for _, r := range f.Routes {
		routes[r.Path] = r
	}
	if r := routes["/status"]; r.Auth != nil || len(r.RateLimits) != 0 {
		t.Errorf("got %+v", r)
	}
	if r := routes["/orders/**"]; r.Auth.Audience != "https://api.example.com" || r.Auth.Scopes[0] != "orders" || r.RateLimits[0] != f.Limits["standard"] || r.Plugin("headers").IsZero() {
		t.Errorf("got %+v", r)
	}
	if r := routes["/carts/**"]; r.Auth.Audience != "https://api.example.com" {
		t.Errorf("got %+v", r)
	}
	if r := routes["/returns/**"]; r.RateLimits[0].Per != time.Minute {
		t.Errorf("got %+v", r)
	}
}

func TestDocumentedDefaults(t *testing.T) {
	dir := write(t, map[string]string{"main.yaml": base + `
store: sqlite:x.db
authserver: {issuer: "http://localhost:8080", key_encryption_key: "${KEK}"}
routes: [{path: "/users/{id}", methods: [GET, HEAD], service: a, auth: {}, rate_limit: {limit: 3, per: 1s}}]
`})
	f := load(t, filepath.Join(dir, "main.yaml"))
	a := f.AuthServer
	if a.Audience != "http://localhost:8080" || a.Algorithm != "ES256" || a.AccessTokenTTL != 15*time.Minute || a.CodeTTL != time.Minute || *a.RefreshToken.Grace != 10*time.Second || a.RefreshToken.Idle != 168*time.Hour {
		t.Errorf("got %+v", a)
	}
	r := f.Routes[0]
	if l := r.RateLimits[0]; l.Burst != 3 || l.By != "client" || l.Mode != "leased" || l.Cost != 1 || l.OnStoreFailure != "local" {
		t.Errorf("got %+v", l)
	}
	if r.Name != "get-head-users-id" || r.Mode != "enforce" || r.Auth == nil || r.Public {
		t.Errorf("got %+v", r)
	}
	s := f.Services["a"]
	if s.Protocol != "http" || s.Balance != "p2c" || s.MaxConnections != 1024 || s.Breaker.MinRequests != 50 || s.Retries.Budget != 0.2 {
		t.Errorf("got %+v", s)
	}
	if f.Replicas != "one" || f.Server.MaxHeaders != 100 || f.Server.DrainDelay != 5*time.Second {
		t.Errorf("got %+v", f)
	}
}

func TestDefaultNamesAreUnique(t *testing.T) {
	dir := write(t, map[string]string{"main.yaml": base + `
routes:
  - {path: /x, service: a, public: true, hosts: [a.test]}
  - {path: /x, service: a, public: true}
  - {name: x-2, path: /y, service: a, public: true}
  - {path: "/{any}/*/**", service: a, public: true}
  - {path: "/Caf%C3%A9/", service: a, public: true, methods: [POST]}
`})
	f := load(t, filepath.Join(dir, "main.yaml"))
	var names []string
	for _, r := range f.Routes {
		names = append(names, r.Name)
	}
	if got := strings.Join(names, " "); got != "x x-3 x-2 any-any-all post-caf_c3_a9" {
		t.Errorf("got %s", got)
	}
}

func TestNodeDecodeIsAsStrictAsTheFile(t *testing.T) {
	type inner struct {
		Pos   Pos           `yaml:"-"`
		Wait  time.Duration `yaml:"wait"`
		Token Secret        `yaml:"token"`
	}
	type settings struct {
		Origins []string           `yaml:"origins"`
		Inner   *inner             `yaml:"inner"`
		Max     Size               `yaml:"max"`
		Share   Percent            `yaml:"share"`
		Nets    []netip.Prefix     `yaml:"nets"`
		Weights map[string]float64 `yaml:"weights"`
		Rest    Node               `yaml:"rest"`
		Count   uint16
	}
	decode := func(text string, into any) error {
		dir := write(t, map[string]string{"main.yaml": base + "routes:\n- path: /\n  service: a\n  public: true\n  cors: " + text})
		file, err := Load(filepath.Join(dir, "main.yaml"), testOptions)
		if err != nil {
			t.Fatal(err)
		}
		return file.Routes[0].Plugin("cors").Decode(into)
	}
	var s settings
	err := decode(`{origins: [a, b], inner: {wait: 2s, token: x}, max: 1KiB, share: 5%, nets: [10.0.0.0/8], weights: {a: 1.5}, rest: {x: 1}, count: 7}`, &s)
	if err != nil {
		t.Fatal(err)
	}
	if s.Inner.Wait != 2*time.Second || s.Inner.Pos.Line != 8 || s.Max != 1024 || s.Share != 0.05 || s.Weights["a"] != 1.5 || s.Rest.IsZero() || s.Count != 7 {
		t.Errorf("got %+v", s)
	}
	err = decode(`{origin: [a], inner: {wait: soon, token: [hunter2]}, max: many, nets: x, count: 70000}`, &settings{})
	problems, ok := err.(Problems)
	if !ok || len(problems) != 6 || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
	if err := (Node{}).Decode(&s); err != nil {
		t.Errorf("a zero node: %v", err)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	s := struct {
		One  Secret
		More Secrets
		None Secret
	}{"hunter2", Secrets{"hunter2"}, ""}
	encoded, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s.One, "all", s)
	printed := string(encoded) + log.String() + s.One.String() + s.One.GoString()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%10s", "%U"} {
		printed += fmt.Sprintf(verb, s) + fmt.Sprintf(verb, s.One) + fmt.Sprintf(verb, s.More) + fmt.Sprintf(verb, &s.One)
	}
	for _, leak := range []string{"hunter2", fmt.Sprintf("%x", "hunter2"), fmt.Sprintf("%X", "hunter2"), "104 117"} {
		if strings.Contains(printed, leak) {
			t.Errorf("%q is in %s", leak, printed)
		}
	}
	if s.One.Reveal() != "hunter2" || s.None.String() != "" {
		t.Error("Reveal or the empty secret is wrong")
	}
}

func TestSizesAndPercentages(t *testing.T) {
	f := func(text string, want Size, printed string) {
		t.Helper()
		var s Size
		err := s.UnmarshalText([]byte(text))
		if want < 0 {
			if err == nil {
				t.Errorf("%q was accepted", text)
			}
			return
		}
		if err != nil || s != want || s.String() != printed {
			t.Errorf("%q: got %d, %v, %v", text, int64(s), s, err)
		}
	}
	f("0", 0, "0")
	f("100", 100, "100")
	f("100B", 100, "100")
	f("64kB", 64000, "64000")
	f("64KiB", 65536, "64KiB")
	f("1 MiB", 1<<20, "1MiB")
	f("3GiB", 3<<30, "3GiB")
	f("2GB", 2e9, "1953125KiB")
	for _, bad := range []string{"", "KiB", "-1", "1.5MiB", "9223372036854775807KiB", "1TB", "64K", "64kb"} {
		f(bad, -1, "")
	}
	for _, bad := range []string{"", "%", "5", "101%", "-1%", "NaN%", "inf%", "5 %%"} {
		var p Percent
		if err := p.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if p := Percent(0.125); p.String() != "12.5%" {
		t.Errorf("got %v", p)
	}
}

func TestNearestName(t *testing.T) {
	f := func(word, want string, names ...string) {
		t.Helper()
		if got := nearest(word, names); got != want {
			t.Errorf("%s: got %q, want %q", word, got, want)
		}
	}
	f("metods", "methods", "path", "methods")
	f("htosts", "hosts", "hosts")
	f("rateLimit", "rate_limit", "rate_limit")
	f("access-token-ttl", "access_token_ttl", "access_token_ttl")
	f("sevice", "service", "services", "service")
	f("xy", "", "id", "per")
	f("completely", "", "different")
	f("yb", "by", "by")
	f("a", "", "b")
}

func BenchmarkLoad10000Routes(b *testing.B) {
	var text strings.Builder
	text.WriteString(base + "limits: {standard: {limit: 1, per: 1s, by: ip}}\nroutes:\n")
	for i := range 10000 {
		fmt.Fprintf(&text, "  - {hosts: [h%d.test], path: \"/s%d/{id}/**\", methods: [GET, HEAD], service: a, public: true, rate_limit: standard}\n", i%50, i)
	}
	path := filepath.Join(write(b, map[string]string{"main.yaml": text.String()}), "main.yaml")
	for b.Loop() {
		if _, err := Load(path, testOptions); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		// No file but this one is read: an absolute include could be anything.
		if strings.Contains(string(data), "include") || strings.Contains(string(data), "file:") {
			return
		}
		path := filepath.Join(dir, "fuzz.yaml")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := Load(path, testOptions)
		if err == nil {
			if _, err := NewTable(file.Routes); err != nil {
				t.Fatalf("Load accepted what NewTable refuses: %v", err)
			}
			for _, r := range file.Routes {
				if r.Public == (r.Auth != nil) || r.Upstream == nil || r.Name == "" {
					t.Fatalf("accepted %+v", r)
				}
			}
			return
		}
		if problems, ok := err.(Problems); !ok || len(problems) == 0 {
			t.Fatalf("the error is %T %v", err, err)
		}
	})
}
