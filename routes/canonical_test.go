package routes

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestCanonicalPath(t *testing.T) {
	f := func(raw, want string) {
		t.Helper()
		got, ok := CanonicalPath(nil, []byte(raw), false)
		if !ok {
			got = []byte("refused")
		}
		if string(got) != want {
			t.Errorf("%q: got %q, want %q", raw, got, want)
		}
	}
	f("/", "/")
	f("/orders/1", "/orders/1")
	f("/orders/", "/orders/")
	f("/%61dmin", "/admin")
	f("/a%2db%2E%5f%7ec", "/a-b._~c")
	f("/%c3%a9", "/%C3%A9")
	f("/%C3%A9", "/%C3%A9")
	f("/a%20b", "/a%20b")
	f("/a+b:c@d!$&'()*,=", "/a+b:c@d!$&'()*,=")
	f("//a///b//", "/a/b/")
	f("/a/./b/../c", "/a/c")
	f("/a/..", "/")
	f("/a/../", "/")
	f("/../../a", "/a")
	f("/a/%2e%2e/admin", "/admin")
	f("/a/%2E./admin", "/admin")
	f("/a//../b", "/b")
	f("/.", "/")
	f("/a/.", "/a")
	f("/a/./", "/a/")
	f("/...", "/...")
	f("/.a/..b", "/.a/..b")
	f("/a;v=1/b", "/a;v=1/b")

	for _, raw := range []string{
		"", "a", "*", "/a b", "/a\tb", "/a\\b", "/a#b", "/a?b", "/a\x00", "/a\x7f", "/\xc3\xa9",
		"/%", "/%4", "/%zz", "/%2", "/a%0ab", "/%7f",
		"/a%2Fb", "/a%2fb", "/a%5cb", "/a%5C", "/%00", "/a%3bx", "/a%3B", "/%25", "/%252e", "/%3f", "/%23",
		"/a/..%2fadmin", "/..;/admin", "/a/.;x/b", "/%2e%2e;/admin", "//a%2fb", "/A/../%",
	} {
		f(raw, "refused")
	}
}

func TestCanonicalPathWithEncodedSlash(t *testing.T) {
	f := func(raw, want string) {
		t.Helper()
		got, ok := CanonicalPath(nil, []byte(raw), true)
		if !ok {
			got = []byte("refused")
		}
		if string(got) != want {
			t.Errorf("%q: got %q, want %q", raw, got, want)
		}
	}
	f("/files/a%2fb", "/files/a%2Fb")
	f("/files/a%2F%2Fb", "/files/a%2F%2Fb")
	f("/files/..%2fb", "refused")
	f("/files/a%2f..", "refused")
	f("/files/a%2f%2e%2e%2fb", "refused")
	f("/files/a%2f..;x", "refused")
	f("/files/a%5cb", "refused")
	if !EncodedSlash([]byte("/a%2Fb")) || EncodedSlash([]byte("/a/b")) {
		t.Error("EncodedSlash does not tell which path holds %2F")
	}
}

func TestCanonicalPathDoesNotCopyWhatIsCanonical(t *testing.T) {
	raw := []byte("/orders/%C3%A9/1")
	got, _ := CanonicalPath(make([]byte, 0, 100), raw, false)
	if &got[0] != &raw[0] {
		t.Error("a canonical path was copied")
	}
}

func TestCanonicalPathDoesNotAllocate(t *testing.T) {
	dst := make([]byte, 0, 100)
	for _, raw := range []string{"/orders/1", "/%61/../b//c%c3/..", "/a;b/%2e"} {
		raw := []byte(raw)
		if n := testing.AllocsPerRun(100, func() { CanonicalPath(dst, raw, true) }); n != 0 {
			t.Errorf("%s: %v allocations", raw, n)
		}
	}
}

func FuzzCanonicalPath(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/%2e%2e/a//", "/a;b", "/a%2fb/..%2f", "/%c3%A9/.", "/a/%2E%2e;/b"} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, raw []byte, slash bool) {
		before := bytes.Clone(raw)
		got, ok := CanonicalPath(make([]byte, 0, len(raw)), raw, slash)
		if !bytes.Equal(raw, before) {
			t.Fatal("raw was changed")
		}
		if !ok {
			return
		}
		if len(got) > len(raw) || got[0] != '/' || bytes.Contains(got, []byte("//")) {
			t.Fatalf("%q became %q", raw, got)
		}
		for segment := range bytes.SplitSeq(got, []byte{'/'}) {
			if s := string(segment); s == "." || s == ".." {
				t.Fatalf("%q became %q", raw, got)
			}
		}
		if !slash && EncodedSlash(got) {
			t.Fatalf("%q became %q", raw, got)
		}
		again, ok := CanonicalPath(make([]byte, 0, len(got)), got, slash)
		if !ok || !bytes.Equal(got, again) {
			t.Fatalf("%q became %q, then %q, %v", raw, got, again, ok)
		}
		if !slash {
			agreesWithNetHTTP(t, string(raw), string(got))
		}
	})
}

// agreesWithNetHTTP checks that a ServeMux would clean the path to the same:
// it redirects to the clean path, or serves the request as it is.
func agreesWithNetHTTP(t *testing.T, raw, got string) {
	t.Helper()
	u, err := url.ParseRequestURI(raw)
	if err != nil {
		return
	}
	decoded, err := url.PathUnescape(got)
	if err != nil {
		t.Fatalf("%q became %q: %v", raw, got, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
	r := &http.Request{Method: "GET", Host: "h", URL: &url.URL{Path: u.Path}}
	h, _ := mux.Handler(r)
	clean := u.Path
	if rec := redirected(h, r); rec != "" {
		// The mux cleans the escaped path and the redirect escapes it again.
		for range 2 {
			if rec, err = url.PathUnescape(rec); err != nil {
				t.Fatal(err)
			}
		}
		clean = rec
	}
	if clean != decoded {
		t.Fatalf("%q became %q; net/http cleans it to %q", raw, decoded, clean)
	}
}

type location struct{ header http.Header }

func (l *location) Header() http.Header         { return l.header }
func (l *location) Write(b []byte) (int, error) { return len(b), nil }
func (l *location) WriteHeader(int)             {}

func redirected(h http.Handler, r *http.Request) string {
	l := &location{header: http.Header{}}
	h.ServeHTTP(l, r)
	return l.header.Get("Location")
}

func TestCanonicalHost(t *testing.T) {
	f := func(raw, host, port string) {
		t.Helper()
		h, p, ok := CanonicalHost(nil, []byte(raw))
		if !ok {
			h = []byte("refused")
		}
		if string(h) != host || string(p) != port {
			t.Errorf("%q: got %q and %q, want %q and %q", raw, h, p, host, port)
		}
	}
	f("api.example.com", "api.example.com", "")
	f("API.Example.COM:8443", "api.example.com", "8443")
	f("api.example.com.", "api.example.com", "")
	f("api.example.com.:80", "api.example.com", "80")
	f("127.0.0.1:65535", "127.0.0.1", "65535")
	f("my_service-1", "my_service-1", "")
	f("[::1]", "[::1]", "")
	f("[0:0::1]:80", "[::1]", "80")
	f("[FE80::A]:1", "[fe80::a]", "1")
	f("xn--bcher-kva.example", "xn--bcher-kva.example", "")
	for _, raw := range []string{
		"", ".", "..", ".a", "a..b", "a..", ":80", "a:", "a:0", "a:65536", "a:080808", "a:8a", "a:80:80", "a:-1",
		"admin:pw@a.test", "a@b", "a/b", "a\\b", "a b", "a%41", "a\x00", "b\xfccher", "a,b", "*.example.com",
		"[", "[]", "[::1", "[::1]x", "[::1]:", "[::1]:0", "[fe80::1%25eth0]", "[1.2.3.4]", "[::1]]", "::1",
		strings.Repeat("a", 254),
	} {
		f(raw, "refused", "")
	}
}

func TestCanonicalHostDoesNotAllocate(t *testing.T) {
	dst := make([]byte, 0, 100)
	for _, raw := range []string{"api.example.com", "API.example.com.:80", "[0:0::1]:443", "[bad"} {
		raw := []byte(raw)
		if n := testing.AllocsPerRun(100, func() { CanonicalHost(dst, raw) }); n != 0 {
			t.Errorf("%s: %v allocations", raw, n)
		}
	}
}

func FuzzCanonicalHost(f *testing.F) {
	for _, s := range []string{"a.b:80", "[::1]:8080", "A.", "::ffff:1.2.3.4", "[::ffff:1.2.3.4]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		host, _, ok := CanonicalHost(nil, raw)
		if !ok {
			return
		}
		again, port, ok := CanonicalHost(nil, host)
		if !ok || len(port) > 0 || !bytes.Equal(host, again) {
			t.Fatalf("%q became %q, then %q", raw, host, again)
		}
	})
}

func BenchmarkCanonicalPath(b *testing.B) {
	dst := make([]byte, 0, 100)
	for name, raw := range map[string]string{"canonical": "/orders/123456/items/7890", "rewritten": "/orders//123456/%2e/items/7890"} {
		b.Run(name, func(b *testing.B) {
			raw := []byte(raw)
			b.ReportAllocs()
			for b.Loop() {
				CanonicalPath(dst, raw, false)
			}
		})
	}
}
