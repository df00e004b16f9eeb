package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/gatehouse/gatehouse/"

// mayImport is the architecture: which folder may import which of ours. A
// pattern ending in /* means the folders below it. A folder in no row fails.
var mayImport = []struct {
	folder string
	of     []string
}{
	{"cmd/gatehouse", []string{"*"}},
	{"cmd/gatehouse/dev", []string{"authserver/mail/mailbox"}},
	{"routes", nil},
	{"discovery", nil},
	{"discovery/*", []string{"discovery"}},
	{"plugins", []string{"routes"}},
	{"plugins/all", []string{"plugins", "plugins/*", "routes"}},
	{"plugins/plugintest", []string{"plugins", "routes"}},
	{"plugins/ratelimit/limitertest", []string{"plugins", "plugins/plugintest", "plugins/ratelimit", "routes"}},
	{"plugins/auth", []string{"plugins", "routes", "authserver/dpop", "authserver/oauth"}},
	{"plugins/template", []string{"plugins"}},
	{"plugins/*", []string{"plugins", "plugins/template", "routes"}},
	{"gateway", []string{"gateway/certs", "gateway/forward", "gateway/upstream", "gateway/wire", "plugins", "routes", "discovery"}},
	{"gateway/wire", []string{"plugins"}},
	{"gateway/sock", nil},
	{"gateway/pace", nil},
	{"gateway/certs", []string{"routes"}},
	{"gateway/proxied", nil},
	{"gateway/certs/certstest", nil},
	{"gateway/server", []string{"gateway/pace", "gateway/sock", "gateway/wire", "plugins", "routes"}},
	{"gateway/forward", []string{"gateway/pace", "gateway/upstream", "gateway/wire", "plugins", "routes"}},
	{"gateway/upstream", []string{"gateway/sock", "gateway/wire", "discovery"}},
	{"gateway/admin", []string{"gateway", "gateway/server", "gateway/upstream", "plugins", "routes"}},
	{"authserver", []string{"authserver/*", "authserver/store/*"}},
	{"authserver/oauth", nil},
	{"authserver/backup", nil},
	{"authserver/ldap", []string{"authserver/users"}},
	{"authserver/fetch", nil},
	{"authserver/jose", nil},
	{"authserver/dpop", []string{"authserver/jose"}},
	{"authserver/web", []string{"authserver/jose", "authserver/oauth"}},
	{"authserver/store", []string{"authserver/oauth"}},
	{"authserver/store/*", []string{"authserver/oauth", "authserver/store"}},
	{"authserver/keys", []string{"authserver/audit", "authserver/store"}},
	{"authserver/revfeed", []string{"authserver/oauth"}},
	// Domains: what several endpoints need, below them.
	{"authserver/audit", []string{"authserver/store"}},
	{"authserver/scopes", []string{"authserver/oauth"}},
	{"authserver/session", []string{"authserver/oauth", "authserver/store"}},
	{"authserver/users", []string{"authserver/audit", "authserver/store"}},
	{"authserver/clients", []string{"authserver/fetch", "authserver/jose", "authserver/oauth", "authserver/store", "authserver/web"}},
	{"authserver/tokens", []string{"authserver/oauth", "authserver/store"}},
	{"authserver/sender", []string{"authserver/dpop", "authserver/jose", "authserver/oauth", "authserver/tokens", "authserver/web"}},
	{"authserver/revocation", []string{"authserver/oauth", "authserver/store", "authserver/tokens"}},
	{"authserver/factors", []string{"authserver/store"}},
	{"authserver/unusual", []string{"authserver/audit", "authserver/oauth", "authserver/store"}},
	{"authserver/signin", []string{"authserver/unusual", "authserver/oauth", "authserver/store", "authserver/audit", "authserver/factors", "authserver/session", "authserver/users", "authserver/web"}},
	{"authserver/headless", []string{"authserver/oauth", "authserver/web"}},
	{"authserver/mail", []string{"authserver/audit", "authserver/store"}},
	{"authserver/mail/mailbox", nil},
	{"authserver/enrol", []string{"authserver/oauth", "authserver/store", "authserver/audit", "authserver/mail", "authserver/users", "authserver/web"}},
	{"authserver/backchannel", domains}, // no endpoint, but above the domains as they are
	// Endpoints. None imports another.
	{"authserver/account", domains},
	{"authserver/admin", domains},
	{"authserver/authorize", domains},
	{"authserver/consent", domains},
	{"authserver/device", domains},
	{"authserver/grants", domains},
	{"authserver/introspect", domains},
	{"authserver/login", domains},
	{"authserver/logout", domains},
	{"authserver/metadata", domains},
	{"authserver/register", domains},
	{"authserver/revoke", domains},
	{"authserver/upstream", domains},
	{"authserver/userinfo", domains},
	{"authserver/visitor", domains},
	{"configs", []string{"routes", "plugins/all"}},
	{"loadtest/*", []string{"loadtest/servers"}},
	{"loadtest/e2e/*", []string{"loadtest/servers"}},
}

var domains = []string{
	"authserver/enrol", "authserver/factors", "authserver/signin", "authserver/unusual",
	"authserver/oauth", "authserver/store", "authserver/audit", "authserver/clients", "authserver/dpop", "authserver/fetch",
	"authserver/jose", "authserver/revocation",
	"authserver/scopes", "authserver/sender", "authserver/session", "authserver/tokens", "authserver/users", "authserver/web",
}

// onlyIn says where libraries with a place of their own may be imported.
var onlyIn = map[string]func(folder, file string) bool{
	"github.com/gofiber/fiber": inServer, "github.com/valyala/fasthttp": inServer,
	"github.com/quic-go/quic-go": inServer, "golang.org/x/net/http2": inServer,
	"github.com/hashicorp/consul/api": func(folder, _ string) bool { return folder == "discovery/consul" },
	"github.com/redis/go-redis": func(folder, file string) bool {
		return strings.HasPrefix(path.Base(file), "redis") || folder == "cmd/gatehouse"
	},
}

func inServer(folder, _ string) bool { return folder == "gateway/server" }

func TestImports(t *testing.T) {
	root := "../.."
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "tools" || d.Name() == "testdata" || d.Name() == "node_modules") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		checkImports(t, file, filepath.ToSlash(rel))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkImports(t *testing.T, file, rel string) {
	t.Helper()
	folder := path.Dir(rel)
	allowed, ok := row(folder)
	if !ok {
		t.Errorf("%s: the folder is in no row of the table; the table is the architecture", rel)
		return
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	for _, i := range parsed.Imports {
		name, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if ours, ok := strings.CutPrefix(name, module); ok && !matchesAny(allowed, ours) {
			t.Errorf("%s imports %s; %s may import %v", rel, ours, folder, allowed)
		}
		for library, may := range onlyIn {
			if strings.HasPrefix(name, library) && !may(folder, rel) {
				t.Errorf("%s imports %s, which has a place of its own", rel, name)
			}
		}
	}
}

func row(folder string) (of []string, ok bool) {
	for _, exact := range []bool{true, false} {
		for _, r := range mayImport {
			if r.folder == folder || !exact && matches(r.folder, folder) {
				return r.of, true
			}
		}
	}
	return nil, false
}

func matchesAny(patterns []string, folder string) bool {
	for _, p := range patterns {
		if matches(p, folder) {
			return true
		}
	}
	return false
}

func matches(pattern, folder string) bool {
	if above, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(folder, above)
	}
	return pattern == folder
}
