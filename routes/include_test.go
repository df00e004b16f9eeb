package routes

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// write makes the files of a map below a new folder and returns the folder.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	// Folders may have names that look like patterns.
	dir := filepath.Join(t.TempDir(), "[a]*")
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const base = `
listeners: [{address: 127.0.0.1:8080}]
services: {a: {targets: ["http://127.0.0.1:9000"]}}
`

// loadDir loads main.yaml of a folder; places in messages lose the folder.
func loadDir(t *testing.T, files map[string]string) (file *File, sources []string, problems string) {
	t.Helper()
	dir := write(t, files)
	file, err := Load(filepath.Join(dir, "main.yaml"), testOptions)
	for _, s := range file.Sources {
		relative, _ := filepath.Rel(dir, s)
		sources = append(sources, relative)
	}
	if err != nil {
		problems = strings.ReplaceAll(err.Error(), dir+"/", "")
		var ps Problems
		if !errors.As(err, &ps) {
			t.Errorf("the error is a %T", err)
		}
	}
	return file, sources, problems
}

func TestIncludedFilesAreOneConfiguration(t *testing.T) {
	file, sources, problems := loadDir(t, map[string]string{
		"main.yaml":  base + "include: [teams/*/routes.yaml, extra.yaml]\nserver: {max_headers: 50}\n",
		"extra.yaml": "server: {idle_timeout: 5s}\nroutes: [{name: x, path: /x, service: a, public: true}]\n",
		"teams/a/routes.yaml": "include: [../../services/*.yaml]\n" +
			"routes: [{name: y, path: /y, service: b, public: true}]\n",
		"teams/b/routes.yaml": "routes: [{name: z, path: /z, service: a, public: true}]\n",
		"services/b.yaml":     "services: {b: {targets: [\"http://127.0.0.1:9001\"]}}\n",
	})
	if problems != "" {
		t.Fatal(problems)
	}
	var names []string
	for _, r := range file.Routes {
		names = append(names, r.Name)
	}
	if !slices.Equal(names, []string{"y", "z", "x"}) || len(file.Services) != 2 || file.Routes[0].Upstream != file.Services["b"] {
		t.Errorf("got routes %v and services %v", names, file.Services)
	}
	if file.Server.MaxHeaders != 50 || file.Server.IdleTimeout.Seconds() != 5 {
		t.Errorf("got %+v", file.Server)
	}
	if !strings.HasSuffix(file.Routes[2].Pos.File, "extra.yaml") || file.Routes[2].Pos.Line != 2 {
		t.Errorf("a route of extra.yaml stands at %v", file.Routes[2].Pos)
	}
	want := []string{"extra.yaml", "main.yaml", "services", "services/b.yaml", "teams", "teams/a", "teams/a/routes.yaml", "teams/b", "teams/b/routes.yaml"}
	slices.Sort(sources)
	if !slices.Equal(sources, want) {
		t.Errorf("sources are %v, want %v", sources, want)
	}
}

func TestTheSameNameInTwoFilesIsAnErrorNamingBoth(t *testing.T) {
	_, _, problems := loadDir(t, map[string]string{
		"main.yaml": base + "include: b.yaml\nredis: redis://127.0.0.1\nroutes: [{name: x, path: /x, service: a, public: true}]\n",
		"b.yaml": "services: {a: {targets: [\"http://127.0.0.1:9000\"]}}\nredis: redis://127.0.0.1\n" +
			"routes:\n  - {name: x, path: /y, service: a, public: true}\n  - {name: y, path: /x, service: a, public: true}\n",
	})
	want := `b.yaml:1:12: the service "a" is defined twice, first at main.yaml:3:12
b.yaml:2:1: redis is set twice, first at main.yaml:5:1
b.yaml:4:12: the route "x" is defined twice, first at main.yaml:6:17
b.yaml:5:5: route "y" conflicts with route "x" at main.yaml:6:10: both match GET /x, and neither is more specific`
	if problems != want {
		t.Errorf("got:\n%s\nwant:\n%s", problems, want)
	}
}

func TestIncludeCyclesAreRefused(t *testing.T) {
	_, _, problems := loadDir(t, map[string]string{
		"main.yaml": base + "include: [b.yaml]\n",
		"b.yaml":    "include: [c.yaml]\n",
		"c.yaml":    "include: [b.yaml, d.yaml, d.yaml]\n",
		"d.yaml":    "routes: []\n",
	})
	want := "c.yaml:1:11: include: b.yaml includes itself\nc.yaml:1:27: include: d.yaml is included twice, first at c.yaml:1:19"
	if problems != want {
		t.Errorf("got:\n%s\nwant:\n%s", problems, want)
	}
}

func TestProblemsOfAllFilesAreReportedAtOnce(t *testing.T) {
	_, sources, problems := loadDir(t, map[string]string{
		"main.yaml": base + "include: [b.yaml, c.yaml, d.yaml]\nx: 1\n",
		"b.yaml":    "a: b: c\n",
		"c.yaml":    "routes: [{path: /, service: a}]\n",
	})
	for _, want := range []string{
		"b.yaml:1:5: a second ': ' stands on this line",
		"c.yaml:1:10: the route \"root\" does not say who may call it",
		"main.yaml:4:27: the configuration file d.yaml: no such file or directory",
		"main.yaml:5:1: unknown key \"x\"",
	} {
		if !strings.Contains(problems, want) {
			t.Errorf("got:\n%s\nwithout: %s", problems, want)
		}
	}
	// The missing file is watched too: it may be what repairs the error.
	if !slices.Contains(sources, "d.yaml") {
		t.Errorf("sources are %v", sources)
	}
}

func TestAPatternWithoutFilesIsAWarning(t *testing.T) {
	file, sources, problems := loadDir(t, map[string]string{
		"main.yaml": base + "include: [later/*.yaml]\n", "later/.hidden.yaml": "x: 1\n",
	})
	if problems != "" || len(file.Warnings) != 2 || !strings.Contains(file.Warnings[1].Message, "no file matches") {
		t.Errorf("got %s, %v", problems, file.Warnings)
	}
	if !slices.Contains(sources, "later") {
		t.Errorf("sources are %v", sources)
	}
}

func TestVariablesArePutIntoValues(t *testing.T) {
	_, sources, problems := loadDir(t, map[string]string{
		"main.yaml": `
include: [sub/b.yaml]
listeners: [{address: "127.0.0.1:${PORT}"}]
redis: ${file:secrets/redis}
consul: {address: "${NO_SUCH:-http://127.0.0.1:8500}", token: "${EMPTY:-$${x} {y}"}
server: {max_headers: "${NUMBER:-77}"}
services: {"a": {targets: ["${NO_SUCH:-http}://127.0.0.1:9000"]}}
routes:
  - {path: "/$${literal/$", service: a, public: true}
`,
		"secrets/redis": "redis://127.0.0.1\n",
		"sub/b.yaml":    "admin: {address: 127.0.0.1:9901, token: \"${file:token}\"}\n",
		"sub/token":     "a token with two ends\n\n",
	})
	// "{literal" in the path is a mistake, and shows what $${ became.
	if want := `main.yaml:9:12: path "/${literal/$": "${literal": {name}, * and ** match whole segments only`; problems != want {
		t.Fatalf("got %s", problems)
	}
	if !slices.Contains(sources, "secrets/redis") || !slices.Contains(sources, "sub/token") {
		t.Errorf("sources are %v", sources)
	}

	file, _, problems := loadDir(t, map[string]string{
		"main.yaml": base + `
admin: {address: 127.0.0.1:9901, token: "${file:token}"}
consul: {address: "${CONSUL}", token: "${EMPTY:-$${x} {y}"}
server: {max_headers: "${NUMBER:-77}"}
`,
		"token": "a token with two ends\n\n",
	})
	if problems != "" {
		t.Fatal(problems)
	}
	if got := file.Admin.Token.Reveal(); got != "a token with two ends\n" {
		t.Errorf("got %q", got)
	}
	// A default ends at the first }.
	if got := file.Consul.Token.Reveal(); got != "$${x {y}" && got != "${x {y}" {
		t.Errorf("got %q", got)
	}
	if file.Server.MaxHeaders != 77 {
		t.Errorf("got %d", file.Server.MaxHeaders)
	}
}

func TestSecretFilesAreBounded(t *testing.T) {
	_, _, problems := loadDir(t, map[string]string{
		"main.yaml": base + "redis: ${file:big}\n", "big": strings.Repeat("x", maxSecretFile+1),
	})
	if want := "main.yaml:4:8: the secret file big: is larger than 64KiB"; problems != want {
		t.Errorf("got %s", problems)
	}
}

func TestValuesOfSecretsAreNeverInProblems(t *testing.T) {
	const value = "c2VjcmV0-hunter2"
	dir := write(t, map[string]string{"secret": value, "main.yaml": base + `
store: ${file:secret}
redis: ${file:secret}
admin: {address: 127.0.0.1:9901, token: "${file:secret}x y"}
authserver:
  issuer: https://a.test
  key_encryption_key: ${file:secret}
  algorithm: [c2VjcmV0-hunter2x]
  clients: [{id: x, grants: [client_credentials], secret: "${file:secret}"}]
  users: [{name: u, password_hash: "${file:secret}"}]
consul: {address: "${CONSUL}", token: [c2VjcmV0-hunter2]}
server: {max_header_bytes: "${file:secret}", max_headers: "${file:secret}"}
trusted_proxies: ["${file:secret}"]
`})
	_, err := Load(filepath.Join(dir, "main.yaml"), testOptions)
	if err == nil || len(err.(Problems)) < 9 {
		t.Fatalf("got %v", err)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a secret is shown: %v", err)
	}
}

func TestDevelopmentSecretsLoadInDevelopmentOnly(t *testing.T) {
	dir := write(t, map[string]string{"main.yaml": base + "admin: {address: 127.0.0.1:9901, token: gatehouse-dev-0123456789}\n"})
	path := filepath.Join(dir, "main.yaml")
	if _, err := Load(path, testOptions); err == nil || !strings.Contains(err.Error(), "made by development mode") {
		t.Errorf("got %v", err)
	}
	o := testOptions
	o.Dev = true
	if _, err := Load(path, o); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestAnHTTPIssuerOutsideLoopbackNeedsInsecure(t *testing.T) {
	const authserver = `
services: {a: {targets: ["http://127.0.0.1:9000"]}}
store: sqlite:x.db
authserver: {issuer: "http://gateway.internal:8080", key_encryption_key: "${KEK}"}
`
	if _, _, problems := loadDir(t, map[string]string{"main.yaml": "listeners: [{address: 127.0.0.1:8080}]" + authserver}); !strings.Contains(problems, "http is allowed on loopback only") {
		t.Errorf("got %s", problems)
	}
	if _, _, problems := loadDir(t, map[string]string{"main.yaml": "listeners: [{address: 0.0.0.0:8080, insecure: true}]" + authserver}); problems != "" {
		t.Errorf("got %s", problems)
	}
}

func TestLoadOfAMissingFile(t *testing.T) {
	file, err := Load("testdata/none.yaml", Options{})
	if want := "testdata/none.yaml: the configuration file testdata/none.yaml: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(file.Sources, []string{"testdata/none.yaml"}) {
		t.Errorf("sources are %v", file.Sources)
	}
}
