package enrol

import (
	netmail "net/mail"
	"strings"
	"testing"
)

func TestAddressTakesWhatEveryMailServerDoes(t *testing.T) {
	f := func(typed, want string) {
		t.Helper()
		if got, ok := Address(typed); got != want && ok || ok != (want != "") {
			t.Errorf("%q: %q, %v, want %q", typed, got, ok, want)
		}
	}
	f(" Bob.O'Neil+tag@Example.COM ", "Bob.O'Neil+tag@example.com")
	f("a@xn--bcher-kva.example", "a@xn--bcher-kva.example")
	for _, bad := range []string{
		"", "bob", "bob@", "@example.com", "bob@localhost", "bob@-a.example", "bob@a..example", "bob@example.com.", "a b@example.com",
		"bob@example.com\r\nBcc: x@example.com", "Bob <bob@example.com>", `"b ob"@example.com`, "bob@example.com, eve@example.com",
		"bob@[127.0.0.1]", "bö@example.com", "bob@exämple.com", "a@b@example.com", "bob(x)@example.com", ".bob@example.com",
		strings.Repeat("a", 250) + "@example.com", "bob@" + strings.Repeat("a", 64) + ".example", "bob@example.com\x00",
	} {
		f(bad, "")
	}
}

func FuzzAddress(f *testing.F) {
	for _, seed := range []string{"bob@example.com", "Bob <b@example.com>", "\"a\"@b.c", "a@b.c\n", "é@b.c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		got, ok := Address(typed)
		if !ok {
			if got != "" && strings.ContainsAny(got, "\r\n") {
				t.Errorf("%q is refused, and given back", typed)
			}
			return
		}
		again, ok := Address(got)
		if !ok || again != got {
			t.Errorf("%q becomes %q, then %q", typed, got, again)
		}
		if parsed, err := netmail.ParseAddress(got); err != nil || parsed.Address != got || strings.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("%q becomes %q, which is no address: %v", typed, got, err)
		}
	})
}
