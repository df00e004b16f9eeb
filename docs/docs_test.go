// Package docs holds the documentation. It owns no code but this test: links
// lead somewhere, every YAML block is accepted by the loader, and every reason
// code and configuration key is explained.
package docs

import (
	"encoding/base64"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/plugins/all"
	"github.com/gatehouse/gatehouse/plugins/auth"
	"github.com/gatehouse/gatehouse/plugins/breaker"
	"github.com/gatehouse/gatehouse/plugins/ratelimit"
	"github.com/gatehouse/gatehouse/plugins/retry"
	"github.com/gatehouse/gatehouse/routes"
)

// pages are the texts, by path from here.
func pages(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("*.md")
	if err != nil || len(names) < 5 {
		t.Fatal(names, err)
	}
	texts := map[string]string{}
	for _, name := range append(names, "../README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	return texts
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	fence   = regexp.MustCompile("(?ms)^```([a-z ]*)\n(.*?)^```$")
)

// anchors are the fragments that headings of a page have.
func anchors(text string) (list []string) {
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		keep := func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_':
				return r
			}
			return -1
		}
		list = append(list, strings.Map(keep, strings.ToLower(m[1])))
	}
	return list
}

func TestLinksLeadSomewhere(t *testing.T) {
	for name, text := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			target, fragment, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			path := name
			if target != "" {
				path = filepath.Join(filepath.Dir(name), target)
			}
			there, err := os.ReadFile(path)
			if _, e := os.Stat(path); e != nil {
				t.Errorf("%s: no file %s", name, m[1])
			} else if fragment != "" && (err != nil || !slices.Contains(anchors(string(there)), fragment)) {
				t.Errorf("%s: no heading for %s", name, m[1])
			}
		}
	}
}

// around is what a block that is not a whole file stands in. A part is left
// out where the block has its key.
var around = []struct{ key, text string }{
	{"listeners", "listeners: [{address: 127.0.0.1:8080}]\n"},
	{"store", "store: sqlite:gatehouse.db\n"},
	{"consul", "consul: {address: \"http://127.0.0.1:8500\"}\n"},
	{"redis", "redis: redis://127.0.0.1:6379/0\n"},
	{"trusted_proxies", "trusted_proxies: [10.0.0.0/8]\n"},
	{"authserver", `authserver:
  issuer: https://api.example.com
  key_encryption_key: ${GATEHOUSE_KEK}
  scopes: {read:orders: Read your orders, write:orders: Place and change orders}
  clients: [{id: billing-batch, secret: "${BATCH_SECRET}", grants: [client_credentials], scopes: [read:orders]}]
`},
	{"limits", "limits: {standard: {limit: 100, per: 1m}}\n"},
	{"services", "services: {orders: {targets: [http://127.0.0.1:9000]}, files: {targets: [http://127.0.0.1:9001]}}\n"},
	{"routes", "routes: [{path: /orders/**, service: orders, auth: {scopes: [read:orders]}}]\n"},
}

var topKey = regexp.MustCompile(`(?m)^([a-z_]+):`)

func TestEveryBlockOfYAMLLoads(t *testing.T) {
	secret := strings.Repeat("s", 40)
	kek := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	steps := all.All(all.Deps{
		Auth: auth.New(auth.Config{}), RateLimit: ratelimit.New(ratelimit.Config{}),
		Retry: retry.New(nil), Breaker: breaker.New(),
	})
	n := 0
	for name, text := range pages(t) {
		for _, m := range fence.FindAllStringSubmatch(text, -1) {
			if m[1] != "yaml" {
				continue
			}
			n++
			block := m[2]
			var has []string
			for _, k := range topKey.FindAllStringSubmatch(block, -1) {
				has = append(has, k[1])
			}
			for _, part := range around {
				if !slices.Contains(has, part.key) {
					block += part.text
				}
			}
			dir := t.TempDir()
			path := filepath.Join(dir, "gatehouse.yaml")
			for file, content := range map[string]string{
				path: block, filepath.Join(dir, "secrets/kek"): kek, filepath.Join(dir, "secrets/kek.old"): kek,
				filepath.Join(dir, "secrets/billing-batch"): secret, filepath.Join(dir, "theme/style.css"): "", filepath.Join(dir, "countries.csv"): "192.0.2.0/24,DE\n",
				filepath.Join(dir, "tls/api.crt"): "x", filepath.Join(dir, "tls/api.key"): "x",
				filepath.Join(dir, "tls/shop.crt"): "x", filepath.Join(dir, "tls/shop.key"): "x", filepath.Join(dir, "tls/internal-ca.pem"): "x",
				filepath.Join(dir, "tls/gateway.crt"): "x", filepath.Join(dir, "tls/gateway.key"): "x", filepath.Join(dir, "tls/clients.pem"): "x",
			} {
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			env := func(name string) (string, bool) {
				v, ok := map[string]string{"GATEHOUSE_KEK": kek, "BATCH_SECRET": secret, "ADMIN_TOKEN": secret, "READER_SECRET": secret}[name]
				return v, ok
			}
			file, err := routes.Load(path, routes.Options{Plugins: all.Names(), Env: env})
			if err != nil {
				t.Errorf("%s: %v\n%s", name, err, m[2])
			}
			for _, r := range file.Routes {
				for _, p := range steps {
					if _, err := p.Build(r); err != nil {
						t.Errorf("%s: %v\n%s", name, err, m[2])
					}
				}
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d blocks were found", n)
	}
}

// stringsOf are the string literals of a Go file that match.
func stringsOf(t *testing.T, path, pattern string) (list []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	wanted := regexp.MustCompile("^(?:" + pattern + ")$")
	ast.Inspect(file, func(node ast.Node) bool {
		if _, isImport := node.(*ast.ImportSpec); isImport {
			return false
		}
		if literal, ok := node.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if s, err := strconv.Unquote(literal.Value); err == nil && wanted.MatchString(s) {
				list = append(list, s)
			}
		}
		return true
	})
	return list
}

// What is part of the product's interface is explained where people look.
func TestEveryNameOfTheInterfaceIsExplained(t *testing.T) {
	texts := pages(t)
	f := func(least int, source, pattern string, in ...string) {
		t.Helper()
		names := stringsOf(t, source, pattern)
		if len(names) < least {
			t.Errorf("%s: only %d names match %s", source, len(names), pattern)
		}
		for _, name := range names {
			if verb, path, ok := strings.Cut(name, " "); ok { // of a mux
				name = path
				if !strings.Contains(texts[in[0]], verb) {
					t.Errorf("%s does not explain %s", in[0], verb)
				}
			}
			for _, page := range in {
				if !regexp.MustCompile("[` ]" + regexp.QuoteMeta(name) + "`").MatchString(texts[page]) {
					t.Errorf("%s does not explain %s", page, name)
				}
			}
		}
	}
	f(25, "../plugins/error.go", "[a-z]+(_[a-z]+)+", "tokens-at-the-edge.md", "operations.md")
	f(20, "../authserver/audit/audit.go", `[a-z]+\.[a-z_]+|logout`, "authorization-server.md")
	f(20, "../authserver/admin/admin.go", "[A-Z]+ /api/v1/.+", "authorization-server.md")
	f(8, "../authserver/authserver.go", "/oauth/[a-z]+", "authorization-server.md")
	f(5, "../gateway/admin/admin.go", "GET /(livez|readyz|readyz/authserver|metrics)|[A-Z]+ /api/v1/.+", "operations.md")
}

func TestEveryFieldOfTheAccessLogIsExplained(t *testing.T) {
	source, err := os.ReadFile("../gateway/server/accesslog.go")
	if err != nil {
		t.Fatal(err)
	}
	fields := regexp.MustCompile(`"([a-z][a-z_.]+)":`).FindAllStringSubmatch(string(source), -1)
	if len(fields) < 15 {
		t.Errorf("only %d fields were found", len(fields))
	}
	for _, f := range fields {
		if !strings.Contains(pages(t)["operations.md"], "`"+f[1]+"`") {
			t.Errorf("operations.md does not explain the field %s", f[1])
		}
	}
}

// keysOf are the keys of a configuration type and of all below it.
func keysOf(t reflect.Type, seen map[reflect.Type]bool) (keys []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || seen[t] {
		return nil
	}
	seen[t] = true
	for i := range t.NumField() {
		if t.Field(i).Anonymous {
			keys = append(keys, keysOf(t.Field(i).Type, seen)...)
		}
		if key := t.Field(i).Tag.Get("yaml"); key != "" && key != "-" {
			keys = append(append(keys, key), keysOf(t.Field(i).Type, seen)...)
		}
	}
	return keys
}

func TestEveryKeyOfTheConfigurationIsExplained(t *testing.T) {
	text := pages(t)["configuration.md"]
	keys := append(keysOf(reflect.TypeFor[routes.File](), map[reflect.Type]bool{}), all.Names()...)
	if len(keys) < 80 {
		t.Errorf("only %d keys were found", len(keys))
	}
	for _, key := range keys {
		if !regexp.MustCompile("`(" + "[a-z_]+\\.)*" + key + "`").MatchString(text) {
			t.Errorf("configuration.md does not explain the key %s", key)
		}
	}
}

// folders are those with Go code, from the root of the repository.
func folders(t *testing.T) (list []string) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (slices.Contains([]string{"tools", "testdata", "node_modules"}, d.Name()) || strings.HasPrefix(d.Name(), ".") && d.Name() != ".."):
			return filepath.SkipDir
		case strings.HasSuffix(path, ".go"):
			list = append(list, strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func TestEveryPackageIsInTheArchitecture(t *testing.T) {
	text := pages(t)["architecture.md"]
	for _, folder := range folders(t) {
		if !strings.Contains(text, "`"+folder+"`") {
			t.Errorf("architecture.md does not mention %s", folder)
		}
	}
}

var sourceFile = regexp.MustCompile("`((?:cmd|routes|plugins|gateway|discovery|authserver|loadtest|deploy|configs|tools)/[A-Za-z0-9_./*-]+)`")

func TestFilesThatPagesNameExist(t *testing.T) {
	for name, text := range pages(t) {
		for _, m := range sourceFile.FindAllStringSubmatch(text, -1) {
			if found, err := filepath.Glob(filepath.Join("..", m[1])); (err != nil || len(found) == 0) && !strings.HasPrefix(m[1], "deploy/secrets/") {
				t.Errorf("%s names %s, which is not there", name, m[1])
			}
		}
	}
}
