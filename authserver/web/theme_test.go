package web

import (
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// theme writes a theme's folder: names and contents in turn.
func theme(t *testing.T, nameContent ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(nameContent); i += 2 {
		file := filepath.Join(dir, nameContent[i])
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(nameContent[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var errorSample = []Page{{Name: "error", Data: errorView{"request", "d"}}}

func TestThemeWithMistakesIsRefusedWithFileAndLine(t *testing.T) {
	p, err := NewPages("", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	f := func(want string, nameContent ...string) {
		t.Helper()
		dir := theme(t, nameContent...)
		_, err := p.Prepare(dir, errorSample)
		if err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(want, "DIR", dir)) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	f("DIR/error.html:2: ", "error.html", "{{define \"content\"}}\n{{if}}{{end}}")
	f("DIR/error.html:2: ", "error.html", "{{define \"content\"}}\n{{nofunction}}{{end}}")
	f("DIR/error.html:2:", "error.html", "{{define \"content\"}}\n{{.NoField}}{{end}}")
	f("DIR/layout.html:1:", "layout.html", "{{.NoField}}")
	f(`text "no.text" is not in the catalogue`, "error.html", `{{define "content"}}{{t "no.text"}}{{end}}`)
	f(`DIR/other.html:1: there is no page "other"`, "other.html", "x")
	f(`DIR/texts/de.json:3: there is no text "no.text"`, "texts/de.json", "{\n\"brand\": \"x\",\n\"no.text\": \"x\"}")
	f(`DIR/texts/de.json:2: the text "login.wait" needs the verbs "%d"`, "texts/de.json", "{\n\"login.wait\": \"x %s\"}")
	f("DIR/texts/de.json:2: not an object of texts", "texts/de.json", "{\n}}")
	f("the name is not a language tag", "texts/no language.json", "{}")
	f("DIR/script.js: a theme has", "script.js", "alert(1)")
	f("DIR/pages: a theme has no folder but texts", "pages/x.html", "")
	f("DIR/style.css: a file of a theme has at most", "style.css", strings.Repeat("x", maxThemeFile+1))
	if _, err := p.Prepare(filepath.Join(t.TempDir(), "missing"), nil); err == nil {
		t.Error("a missing folder is accepted")
	}
}

func TestThemeChangesPagesStylesTextsAndLogo(t *testing.T) {
	p, err := NewPages("/auth", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	dir := theme(t, "error.html", `{{define "content"}}<p>{{.Detail}}: {{t "brand"}}</p>{{end}}`,
		"style.css", ":root { --accent: red; }", "logo.svg", "<svg/>", "texts/en.json", `{"brand": "Example Ltd"}`,
		"texts/nl.json", `{"error.title": "Dat lukte niet"}`, ".hidden", "x")
	look, err := p.Prepare(dir, errorSample)
	if err != nil {
		t.Fatal(err)
	}
	show := func(language string) string {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept-Language", language)
		if err := p.Show(w, r, Page{Name: "error", Data: errorView{"request", "<b>"}}); err != nil {
			t.Fatal(err)
		}
		return w.Body.String()
	}
	if strings.Contains(show("en"), "Example Ltd") {
		t.Error("the theme is there before it was applied")
	}
	p.Apply(look)
	page := show("en")
	for _, want := range []string{"<p>&lt;b&gt;: Example Ltd</p>", `alt="Example Ltd"`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s:\n%s", want, page)
		}
	}
	assets := regexp.MustCompile(`(?:href|src)="([^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(assets) != 3 {
		t.Fatalf("%d assets, want two styles and a logo", len(assets))
	}
	var all strings.Builder
	for _, a := range assets {
		w := httptest.NewRecorder()
		p.Static(w, httptest.NewRequest("GET", a[1], nil))
		all.WriteString(w.Body.String())
	}
	if !strings.Contains(all.String(), "--accent: red") || !strings.Contains(all.String(), "<svg/>") || !strings.Contains(all.String(), "--ground") {
		t.Error("a style or the logo is not served")
	}
	if dutch := show("nl"); !strings.Contains(dutch, `lang="nl"`) || !strings.Contains(dutch, "Dat lukte niet") {
		t.Errorf("no Dutch:\n%s", dutch)
	}
}

func TestLanguageIsTheApplicationsThenTheBrowsers(t *testing.T) {
	p, err := NewPages("", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	f := func(want, query, locales, accept string) {
		t.Helper()
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/?"+query, nil)
		r.Header.Set("Accept-Language", accept)
		if err := p.Show(w, r, Page{Name: "signedout", Locales: locales}); err != nil {
			t.Fatal(err)
		}
		if got := regexp.MustCompile(`<html lang="([^"]*)"`).FindStringSubmatch(w.Body.String()); got[1] != want {
			t.Errorf("%s, want %s", got[1], want)
		}
		if w.Header().Get("Vary") != "Accept-Language" {
			t.Error("the page does not say that it varies")
		}
	}
	f("en", "", "", "")
	f("de", "", "", "de-AT,de;q=0.9,en;q=0.5")
	f("fr", "", "", "es;q=0.9,fr-CA;q=0.8,en;q=0.1")
	f("ja", "", "ja", "de")
	f("de", "", "sw de", "fr")
	f("fr", "ui_locales=fr-FR+en", "", "ja")
	f("en", "", "not-a-language!", "sw")
	f("en", "", strings.Repeat("de ", 1000), strings.Repeat("de,", 1000))
	f("en", "ui_locales=%zz", "", "*")
}
