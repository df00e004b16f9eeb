package authserver

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/gatehouse/gatehouse/authserver/web"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

var screenshots = flag.Bool("screenshots", false, "write the pictures of docs/images")

// gallery serves every page in every state at /NUMBER.
func gallery(t *testing.T) (url string, pages []web.Page) {
	t.Helper()
	p, err := web.NewPages("", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	pages = append(samples(), web.Page{Name: "error", Data: struct{ Kind, Detail string }{"request", "A detail."}})
	mux := http.NewServeMux()
	mux.HandleFunc("/oauth/static/", p.Static)
	for i, page := range pages {
		mux.HandleFunc(fmt.Sprintf("/%d", i), func(w http.ResponseWriter, r *http.Request) {
			page.Status = 0
			if err := p.Show(w, r, page); err != nil {
				t.Error(err)
			}
		})
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL, pages
}

func browse(t *testing.T) context.Context {
	t.Helper()
	binary := servers.Need(t, "chromium", "chromium")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(binary), chromedp.NoSandbox, chromedp.Flag("accept-lang", "en"))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// scheme makes the browser prefer dark or light.
func scheme(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
		})
		return err
	})
}

// TestEveryPageIsAccessibleAndFitsSmallScreens runs axe over every page in every
// state, dark and light, and looks for what is wider than a telephone.
func TestEveryPageIsAccessibleAndFitsSmallScreens(t *testing.T) {
	axe, err := os.ReadFile("../tools/pages/node_modules/axe-core/axe.min.js")
	if err != nil {
		servers.Missing(t, "the npm package of tools/pages is not installed (npm ci there): %v", err)
	}
	ctx := browse(t)
	at, pages := gallery(t)
	seen := map[string]bool{}
	for i, page := range pages {
		schemes := []string{"light"}
		if !seen[page.Name] {
			schemes = append(schemes, "dark")
		}
		seen[page.Name] = true
		for _, s := range schemes {
			name := fmt.Sprintf("%d, %s, %s", i, page.Name, s)
			if err := chromedp.Do(ctx, scheme(s), chromedp.EmulateViewport(320, 700), chromedp.Navigate(fmt.Sprintf("%s/%d", at, i))); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			width, err := chromedp.Run(ctx, chromedp.Evaluate[int]("document.documentElement.scrollWidth"))
			if err != nil {
				t.Fatal(err)
			}
			if width > 320 {
				t.Errorf("%s: %d pixels wide on a screen of 320", name, width)
			}
			for _, v := range violations(t, ctx, string(axe)) {
				t.Errorf("%s: %s", name, v)
			}
		}
	}
	if len(seen) < 12 {
		t.Errorf("only %d pages were seen", len(seen))
	}
}

// violations are the findings of axe that are serious or critical.
func violations(t *testing.T, ctx context.Context, axe string) (list []string) {
	t.Helper()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](axe+`;
		axe.run(document, {resultTypes: ["violations"]}).then((r) => JSON.stringify(r.violations.map((v) =>
			({id: v.id, impact: v.impact, help: v.help, where: v.nodes.map((n) => n.html).join(" ")}))))`, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	var found []struct{ ID, Impact, Help, Where string }
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		if v.Impact == "serious" || v.Impact == "critical" {
			list = append(list, fmt.Sprintf("%s (%s): %s: %s", v.ID, v.Impact, v.Help, v.Where))
		}
	}
	return list
}

// TestScreenshots writes docs/images when the flag -screenshots is given.
func TestScreenshots(t *testing.T) {
	if !*screenshots {
		t.Skip("without -screenshots")
	}
	ctx := browse(t)
	at, pages := gallery(t)
	dir := "../docs/images"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	done := map[string]bool{}
	for i, page := range pages {
		// The fullest state of a page has the longest data.
		if !strings.Contains(" login consent account ", " "+page.Name+" ") || done[page.Name] || len(fmt.Sprintf("%+v", page.Data)) < 75 {
			continue
		}
		done[page.Name] = true
		for _, shot := range []struct {
			width  int64
			scheme string
		}{{360, "light"}, {768, "dark"}, {1280, "light"}} {
			if err := chromedp.Do(ctx, scheme(shot.scheme), chromedp.EmulateViewport(shot.width, 640), chromedp.Navigate(fmt.Sprintf("%s/%d", at, i))); err != nil {
				t.Fatal(err)
			}
			image, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d.png", page.Name, shot.width)), image, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
