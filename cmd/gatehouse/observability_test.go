package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

// scrapeOfDemo runs `gatehouse dev` with its self-check and one more issuer,
// and returns its families and the names of its series.
func scrapeOfDemo(t *testing.T) (families, series map[string]bool) {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	d := readyDemo(t)
	// A refusal of the token endpoint, which the self-check has none of.
	resp, err := http.PostForm(d.origin+"/oauth/token", url.Values{"grant_type": {"none"}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return readMetrics(t, d.admin+"/metrics")
}

// readyDemo starts a demo that ends with the test. Another process may take
// the ports that it chose before it does, so it may try again.
func readyDemo(t *testing.T) *demo {
	t.Helper()
	for range 5 {
		d, err := newDemo()
		if err != nil {
			t.Fatal(err)
		}
		config, err := os.ReadFile(d.configPath())
		if err != nil {
			t.Fatal(err)
		}
		config = append(config, "\nissuers:\n  - {issuer: \"http://127.0.0.1:1\", audiences: [x]}\n"...)
		if err := os.WriteFile(d.configPath(), config, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		out := &lockedBuffer{}
		done := make(chan error, 1)
		go func() { done <- d.run(ctx, out, io.Discard, false) }()
		end := func() error {
			stop()
			defer d.close()
			return <-done
		}
		ready := func() bool { return strings.Contains(out.String(), "Ctrl-C") }
		for deadline := time.Now().Add(time.Minute); !ready() && len(done) == 0 && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
		}
		if ready() {
			t.Cleanup(func() {
				if err := end(); err != nil {
					t.Error(err)
				}
			})
			return d
		}
		t.Logf("dev did not get ready: %v\n%s", end(), out)
	}
	t.Fatal("dev did not get ready")
	return nil
}

func readMetrics(t *testing.T, address string) (families, series map[string]bool) {
	t.Helper()
	resp, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	families, series = map[string]bool{}, map[string]bool{"up": true}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); strings.HasPrefix(line, "# TYPE ") {
			families[words[2]] = true
		} else if line[0] != '#' {
			series[line[:strings.IndexAny(line, "{ ")]] = true
		}
	}
	return families, series
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var (
	inBraces  = regexp.MustCompile(`\{[^}]*\}`)
	inClauses = regexp.MustCompile(`\b(by|without|on|ignoring)\s*\([^)]*\)`)
	names     = regexp.MustCompile(`\b(up|(gateway|http|authserver|process|go)_[a-z0-9_]+)\b`)
)

// namesIn are the metrics that an expression of PromQL reads.
func namesIn(expression string) []string {
	return names.FindAllString(inClauses.ReplaceAllString(inBraces.ReplaceAllString(expression, ""), ""), -1)
}

func expressionsOfBoard(t *testing.T, path string) (list []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Type    string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Error("a panel of the board has no query")
		}
		for _, target := range p.Targets {
			list = append(list, target.Expr)
		}
	}
	return list
}

func expressionsOfRules(t *testing.T, path string) (list []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert string `yaml:"alert"`
				Expr  string `yaml:"expr"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	operations, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			list = append(list, r.Expr)
			if !strings.Contains(string(operations), "`"+r.Alert+"`") {
				t.Errorf("docs/operations.md does not tell what to do about the alert %s", r.Alert)
			}
		}
	}
	return list
}

func TestMetricsAreThoseOfBoardRulesAndDocumentation(t *testing.T) {
	families, series := scrapeOfDemo(t)
	expressions := slices.Concat(
		expressionsOfBoard(t, "../../configs/grafana/dashboards/gatehouse.json"),
		expressionsOfRules(t, "../../configs/prometheus/alerts.yml"))
	if len(expressions) < 50 {
		t.Errorf("only %d expressions were found", len(expressions))
	}
	for _, e := range expressions {
		used := namesIn(e)
		if len(used) == 0 {
			t.Errorf("no metric in %s", e)
		}
		for _, name := range used {
			if !series[name] {
				t.Errorf("no metric %s in a scrape, but in %s", name, e)
			}
		}
	}
	operations, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range families {
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") && !strings.Contains(string(operations), "`"+name+"`") {
			t.Errorf("docs/operations.md does not mention the metric %s", name)
		}
	}
}
