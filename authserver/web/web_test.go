package web

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

func FuzzParseQueryAgreesWithNetURL(f *testing.F) {
	for _, s := range []string{"a=1&b=2", "a=%20+b&a=2", "=x&&y", "a", "%zz", "a=%E4%B8%96", "a;b=1", "+=+"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := ParseQuery(raw)
		if err != nil {
			return
		}
		want, wantErr := url.ParseQuery(raw)
		if strings.Contains(raw, ";") { // net/url refuses what browsers send as it is
			return
		}
		if wantErr != nil {
			t.Fatalf("accepted %q: %v", raw, wantErr)
		}
		n := 0
		for name, values := range want {
			n += len(values)
			if got.Count(name) != len(values) || got.Value(name) != values[0] {
				t.Fatalf("%q: %q = %q, want %q", raw, name, got.Value(name), values)
			}
		}
		if n != len(got) {
			t.Fatalf("%q: %d parameters, want %d", raw, len(got), n)
		}
		if again, err := ParseQuery(got.Encode()); err != nil || !slices.Equal(again, got) {
			t.Fatalf("%q does not survive Encode: %v", raw, err)
		}
	})
}

func TestEmptyValueCountsAsAbsentAndAsOneOccurrence(t *testing.T) {
	f, err := ParseQuery("a=&b=1&resource=x&resource=&resource=y")
	if err != nil {
		t.Fatal(err)
	}
	if f.Value("a") != "" || !f.Has("a") || f.Repeated() != "" || !slices.Equal(f.All("resource"), []string{"x", "y"}) {
		t.Errorf("form %v", f)
	}
	if f, _ = ParseQuery("a=&a=1"); f.Repeated() != "a" {
		t.Error("an empty occurrence does not count")
	}
	if _, err := ParseQuery(strings.Repeat("a=1&", maxParameters+1)); err == nil {
		t.Error("any number of parameters is accepted")
	}
}

func TestParseBodyBoundsWhatItReads(t *testing.T) {
	f := func(kind, body string, length int64, status int) {
		t.Helper()
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.ContentLength = length
		r.Header.Set("Content-Type", kind)
		_, err := ParseBody(r)
		var e *oauth.Error
		if got := 0; errors.As(err, &e) {
			got = e.Status
			if got != status {
				t.Errorf("%q: %d, want %d", kind, got, status)
			}
		} else if status != 0 {
			t.Errorf("%q accepted", kind)
		}
	}
	const form = "application/x-www-form-urlencoded"
	f(form, "a=1", 3, 0)
	f(form, "a=1", -1, 0)
	f(form+"; charset=utf-8", "a=1", -1, 0)
	f(form, "a=1", 5, 400) // cut off
	f(form, strings.Repeat("a", MaxBody+1), MaxBody+1, 413)
	f(form, strings.Repeat("a", MaxBody+1), -1, 413)
	f("multipart/form-data; boundary=x", "a=1", 3, 415)
	f("", "a=1", 3, 415)
	f(form, "a=1&a=2", -1, 400)
}

func TestEveryTextIsInTheCatalogueAndUsed(t *testing.T) {
	s, err := readSources("")
	if err != nil {
		t.Fatal(err)
	}
	texts := s.texts[fallback]
	if len(s.texts) < 4 {
		t.Errorf("only %d languages", len(s.texts))
	}
	for lang, other := range s.texts {
		for key, english := range texts {
			switch text, ok := other[key]; {
			case !ok || text == "":
				t.Errorf("%s: text %q is missing", lang, key)
			case verbs(text) != verbs(english):
				t.Errorf("%s: text %q has the verbs %q, not %q", lang, key, verbs(text), verbs(english))
			case lang != fallback && text == english && len(english) > 20:
				t.Errorf("%s: text %q is not translated", lang, key)
			}
		}
		for key := range other {
			if texts[key] == "" {
				t.Errorf("%s: text %q exists in no other language", lang, key)
			}
		}
		if other["lang"] != lang || other["dir"] != "ltr" && other["dir"] != "rtl" {
			t.Errorf("%s: lang %q, dir %q", lang, other["lang"], other["dir"])
		}
	}
	used := map[string]bool{}
	call := regexp.MustCompile(`\bt "([a-z_.]+)"`)
	err = fs.WalkDir(files, "templates", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		page, err := files.ReadFile(path)
		for _, m := range call.FindAllStringSubmatch(string(page), -1) {
			used[m[1]] = true
		}
		used[strings.TrimSuffix(d.Name(), ".html")+".title"] = true
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(used, "layout.title")
	delete(used, "mail.title") // its heading is the subject
	delete(used, "mail.txt.title")
	for key := range used {
		if texts[key] == "" {
			t.Errorf("text %q is not in the catalogue", key)
		}
	}
	for key := range texts {
		// These are put together from a part and a name.
		if !used[key] && !composed(key) && !strings.HasPrefix(key, "error.") && !strings.HasPrefix(key, "scope.") {
			t.Errorf("text %q is used by no page", key)
		}
	}
}

func TestFormAction(t *testing.T) {
	f := func(uri, want string) {
		t.Helper()
		if got := FormAction(uri); got != want {
			t.Errorf("%s: %q, want %q", uri, got, want)
		}
	}
	f("https://app.example.com/cb?x=1", "https://app.example.com")
	f("https://app.example.com", "https://app.example.com")
	f("https://app.example.com?x", "https://app.example.com")
	f("http://127.0.0.1:8080/cb", "http://127.0.0.1:8080")
	f("http://[::1]:8080/cb", anyFormAction)
	f("com.example.app:/cb", "com.example.app:")
	f("com.example.app://cb", "com.example.app:")
}

func TestGuardNeedsTheCookiesTokenAndOurOrigin(t *testing.T) {
	g := &Guard{Key: []byte("key"), Origin: "https://auth.example.com"}
	f := func(name string, ok bool, token, cookie string, header ...string) {
		t.Helper()
		r := httptest.NewRequest("POST", "/", nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		err := g.Check(r, Form{{FieldCSRF, token}}, cookie)
		var e *oauth.Error
		if (err == nil) != ok || err != nil && (!errors.As(err, &e) || e.Status != http.StatusForbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := g.Token("cookie")
	f("right", true, good, "cookie", "Origin", g.Origin)
	f("no origin", true, good, "cookie")
	f("no origin, same site", false, good, "cookie", "Sec-Fetch-Site", "same-site")
	f("null, same origin", true, good, "cookie", "Origin", "null", "Sec-Fetch-Site", "same-origin")
	f("null", false, good, "cookie", "Origin", "null")
	f("another origin", false, good, "cookie", "Origin", "https://auth.example.com.evil.example")
	f("http", false, good, "cookie", "Origin", "http://auth.example.com")
	f("another cookie", false, good, "other", "Origin", g.Origin)
	f("no cookie", false, g.Token(""), "", "Origin", g.Origin)
	f("no token", false, "", "cookie", "Origin", g.Origin)
}

func TestClientIP(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:1234": "192.0.2.1", "192.0.2.1": "192.0.2.1", "[2001:db8::1]:1": "2001:db8::1",
		"[::ffff:192.0.2.1]:1": "192.0.2.1", "@": "invalid IP",
	} {
		got := ClientIP(&http.Request{RemoteAddr: remote})
		if got.String() != want {
			t.Errorf("%s: %s", remote, got)
		}
		if want == "invalid IP" && got != (netip.Addr{}) {
			t.Errorf("%s: not the zero address", remote)
		}
	}
}

// composed reports whether templates put the key together from a part and what
// a page found, or a letter names it.
func composed(key string) bool {
	for _, prefix := range []string{"account.done_", "password.problem_", "visitor.problem_", "sent.", "finished.", "mail."} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}
