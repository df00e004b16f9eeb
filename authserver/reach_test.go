package authserver

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/gatehouse/gatehouse/authserver/factors"
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
	mux.HandleFunc("/oauth/account/qr", func(w http.ResponseWriter, _ *http.Request) {
		picture, err := factors.Enrolment{URL: "otpauth://totp/api.example.com:alice?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=api.example.com"}.QR()
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "image/png")
		w.Write(picture)
	})
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

// focused has the browser behave as the window that the person works in.
func focused() chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
		return err
	})
}

// TestTabGoesThroughEveryPageInOrder presses Tab on every page: the focus goes
// once over all that can have it, in the order of the text, can be seen
// wherever it is, and gets out at the end.
func TestTabGoesThroughEveryPageInOrder(t *testing.T) {
	ctx := browse(t)
	if err := chromedp.Do(ctx, focused()); err != nil {
		t.Fatal(err)
	}
	at, pages := gallery(t)
	const look = `(() => { const all = [...document.querySelectorAll("a[href], button, input:not([type=hidden]), [tabindex='0']")]
		.filter((e) => e.checkVisibility()); const at = document.activeElement, style = getComputedStyle(at);
		return JSON.stringify({all: all.length, begins: document.querySelector("[autofocus]") !== null, at: all.indexOf(at), seen: parseFloat(style.outlineWidth) >= 2 && style.outlineStyle !== "none"}); })()`
	for i, page := range pages {
		name := fmt.Sprintf("%d, %s", i, page.Name)
		if err := chromedp.Do(ctx, chromedp.Navigate(fmt.Sprintf("%s/%d", at, i))); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var now struct {
			All, At      int
			Begins, Seen bool
		}
		where := func() int {
			text, err := chromedp.Run(ctx, chromedp.Evaluate[string](look))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := json.Unmarshal([]byte(text), &now); err != nil {
				t.Fatal(err)
			}
			return now.At
		}
		// A page may begin at the field that it is for, soon after it is there.
		begin := where()
		for end := time.Now().Add(time.Minute); now.Begins && begin < 0 && time.Now().Before(end); begin = where() {
			time.Sleep(10 * time.Millisecond)
		}
		for want := begin + 1; want <= now.All; want++ {
			if err := chromedp.Do(ctx, chromedp.KeyEvent(kb.Tab)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got := where()
			if want == now.All { // out, or round to the begin
				if now.All > 1 && got == now.All-1 {
					t.Errorf("%s: Tab does not lead out", name)
				}
			} else if got != want || !now.Seen {
				t.Errorf("%s: Tab leads to %d of %d, want %d; seen: %v", name, got, now.All, want, now.Seen)
				break
			}
		}
	}
}

// TestScreenshots writes docs/images when the flag -screenshots is given: every
// page.
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
	// The first state of each page that is about as full as the fullest.
	fullest, best := map[string]int{}, map[string]int{}
	size := func(i int) int { return len(fmt.Sprintf("%+v", pages[i].Data)) }
	for i, page := range pages {
		fullest[page.Name] = max(fullest[page.Name], size(i))
	}
	for i, page := range pages {
		if _, ok := best[page.Name]; !ok && size(i)*5 >= fullest[page.Name]*4 {
			best[page.Name] = i
		}
	}
	for name, i := range best {
		for _, shot := range []struct {
			width  int64
			scheme string
		}{{360, "light"}, {768, "dark"}, {1280, "light"}} {
			picture, err := shoot(ctx, fmt.Sprintf("%s/%d", at, i), shot.width, shot.scheme)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d.png", name, shot.width)), picture, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// shoot returns a picture of a whole page.
func shoot(ctx context.Context, url string, width int64, colours string) ([]byte, error) {
	if err := chromedp.Do(ctx, scheme(colours), chromedp.EmulateViewport(width, 400), chromedp.Navigate(url)); err != nil {
		return nil, err
	}
	raw, err := chromedp.Run(ctx, chromedp.FullScreenshot(100)) // PNG
	if err != nil {
		return nil, err
	}
	return fewColours(raw)
}

// fewColours makes a PNG small: its 64 most frequent colours are enough for text
// on plain ground.
func fewColours(raw []byte) ([]byte, error) {
	full, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	area, often := full.Bounds(), map[color.Color]int{}
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			often[full.At(x, y)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(often), func(a, b color.Color) int { return often[b] - often[a] })
	small := image.NewPaletted(area, colours[:min(64, len(colours))])
	draw.Draw(small, area, full, area.Min, draw.Src)
	var b bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, small)
	return b.Bytes(), err
}
