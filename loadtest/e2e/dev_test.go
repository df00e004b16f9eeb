package e2e

import (
	"context"
	"encoding/json"
	"html"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// demo is a running `gatehouse dev`.
type demo struct {
	*process
	env []string // of a shell of the same user
}

// startDemo runs `gatehouse dev` for a user whose configuration folder is new.
func startDemo(t *testing.T) *demo {
	t.Helper()
	home := t.TempDir()
	d := &demo{env: []string{"HOME=" + home, "XDG_CONFIG_HOME=" + home}}
	d.process = start(t, "gatehouse dev", program(t), d.env, "dev")
	eventually(t, "gatehouse dev has checked itself", func() bool {
		if d.ended() {
			t.Fatalf("gatehouse dev ended: %s", d.log)
		}
		return strings.Contains(d.out.String(), "Ctrl-C ends it.")
	})
	return d
}

// sh runs text as it stands, as if it was pasted into a shell.
func (d *demo) sh(t *testing.T, text string) string {
	t.Helper()
	shell := servers.Need(t, "sh", "sh")
	servers.Need(t, "curl", "curl")
	c := exec.Command(shell)
	c.Stdin = strings.NewReader(text)
	c.Env = append(os.Environ(), d.env...)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("sh: %v\n%s", err, out)
	}
	return string(out)
}

// pasteable is the paragraph of the printed text that begins with a comment of
// the shell.
func (d *demo) pasteable(t *testing.T) string {
	t.Helper()
	for paragraph := range strings.SplitSeq(d.out.String(), "\n\n") {
		if strings.HasPrefix(paragraph, "# ") {
			return paragraph + "\n"
		}
	}
	t.Fatalf("nothing to paste: %s", d.out)
	return ""
}

var (
	statusLine = regexp.MustCompile(`(?m)^HTTP/1\.1 (\d{3}) `)
	statusOnly = regexp.MustCompile(`(?m)^(\d{3})$`)
	loginLine  = regexp.MustCompile(`(http://\S+/shop/login)  \(user (\S+), password (\S+)\)`)
	shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
)

func matches(pattern *regexp.Regexp, text string) (list []string) {
	for _, m := range pattern.FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	return list
}

// TestDevelopmentModeKeepsWhatItPrints pastes what `gatehouse dev` prints and
// what the README says, and logs in where it says one can.
func TestDevelopmentModeKeepsWhatItPrints(t *testing.T) {
	d := startDemo(t)
	if !strings.Contains(d.out.String(), "7 of 7 as expected") {
		t.Errorf("self-check: %s", d.out)
	}
	t.Run("the printed calls", func(t *testing.T) { printedCallsWork(t, d) })
	t.Run("the README's blocks", func(t *testing.T) { readmeWorks(t, d) })
	login := loginLine.FindStringSubmatch(d.out.String())
	if login == nil {
		t.Fatalf("no login page is printed: %s", d.out)
	}
	url, user, password := login[1], login[2], login[3]
	t.Run("login by links and forms", func(t *testing.T) {
		p := newBrowser(t, user, password).visit(t, url, "")
		showsOrder(t, p.body)
	})
	t.Run("login in a browser", func(t *testing.T) { showsOrder(t, browserLogin(t, url, user, password)) })
}

// printedCallsWork expects an answer of the backend and two refusals.
func printedCallsWork(t *testing.T, d *demo) {
	out := json.NewDecoder(strings.NewReader(d.sh(t, d.pasteable(t))))
	var answers []map[string]any
	for out.More() {
		var a map[string]any
		if err := out.Decode(&a); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	if len(answers) != 3 {
		t.Fatalf("%d answers, want 3: %v", len(answers), answers)
	}
	if identity, _ := answers[0]["identity"].(map[string]any); identity["X-Auth-Subject"] != "client:demo-reader" {
		t.Errorf("the backend saw %v", answers[0])
	}
	for i, want := range map[int]struct {
		status float64
		reason string
	}{1: {403, "scope_missing"}, 2: {401, "token_missing"}} {
		if answers[i]["status"] != want.status || answers[i]["reason"] != want.reason {
			t.Errorf("answer %d is %v, want %v", i+1, answers[i], want)
		}
	}
}

// readmeWorks runs every block that the README marks as sh.
func readmeWorks(t *testing.T, d *demo) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := shellBlock.FindAllStringSubmatch(string(readme), -1)
	if len(blocks) == 0 {
		t.Fatal("the README has no ```sh block")
	}
	var out strings.Builder
	for _, b := range blocks {
		out.WriteString(d.sh(t, b[1]))
	}
	if got, want := matches(statusLine, out.String()), []string{"200", "401", "403", "401"}; !slices.Equal(got, want) {
		t.Errorf("the calls were answered %v, want %v\n%s", got, want, &out)
	}
	if got, want := matches(statusOnly, out.String()), []string{"200", "200", "200", "200", "200", "429"}; !slices.Equal(got, want) {
		t.Errorf("the limited calls were answered %v, want %v", got, want)
	}
	for _, words := range []string{`"X-Auth-Subject": "client:demo-reader"`, "token_missing", "scope_missing", "token_revoked", `"orders-read"`} {
		if !strings.Contains(out.String(), words) {
			t.Errorf("no %s in what the README's calls show\n%s", words, &out)
		}
	}
}

// showsOrder fails the test unless the page has what the orders API said.
func showsOrder(t *testing.T, page string) {
	t.Helper()
	page = html.UnescapeString(page)
	if !strings.Contains(page, "The orders API answered 200") || !strings.Contains(page, `"X-Auth-Client": "demo-shop"`) ||
		!strings.Contains(page, `"X-Auth-Subject": "usr_`) {
		t.Errorf("the shop does not show the order: %s", page)
	}
}

// browserLogin logs in with Chromium and returns the last page's text.
func browserLogin(t *testing.T, url, user, password string) (text string) {
	t.Helper()
	path := servers.Need(t, "chromium", "chromium")
	options := append([]chromedp.ExecAllocatorOption{chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir())},
		chromedp.NoFirstRun, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Headless)
	for _, flag := range []string{"disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage"} {
		options = append(options, chromedp.Flag(flag, true))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(options, chromedp.WSURLReadTimeout(patience))...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	err := chromedp.Do(ctx,
		chromedp.Navigate(url),
		chromedp.SendKeys(chromedp.CSS("#username"), user),
		chromedp.SendKeys(chromedp.CSS("#password"), password),
		chromedp.Submit(chromedp.CSS("#password")),
		chromedp.Click(chromedp.CSS("button[name=decision][value=allow]")),
		chromedp.WaitVisible(chromedp.CSS("pre")),
	)
	if err != nil {
		t.Fatalf("login in a browser: %v", err)
	}
	if text, err = chromedp.Run(ctx, chromedp.Text(chromedp.CSS("body"))); err != nil {
		t.Fatalf("the page after the login: %v", err)
	}
	return text
}
