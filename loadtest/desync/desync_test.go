package desync

import (
	"strings"
	"testing"
)

func TestCorpusHasEveryKind(t *testing.T) {
	names, classes := map[string]bool{}, map[string]int{}
	for _, r := range Requests() {
		if names[r.Name] {
			t.Errorf("%s: twice", r.Name)
		}
		names[r.Name] = true
		classes[r.Class]++
		if left := strings.ContainsAny(r.Name, " {") || strings.Contains(r.For("a.test"), "{h") || strings.Contains(r.For("a.test"), "{length}"); left {
			t.Errorf("%s: a placeholder is left: %q", r.Name, r.For("a.test"))
		}
	}
	if classes["severe"] < 200 || classes["broken"] < 30 || classes["ambiguous"] < 80 || classes["harmless"] < 20 || len(classes) != 4 {
		t.Errorf("the corpus of requests is incomplete: %v", classes)
	}
	clear(names)
	for _, a := range Answers() {
		if names[a.Name] {
			t.Errorf("%s: twice", a.Name)
		}
		names[a.Name] = true
	}
	if len(names) < 80 {
		t.Errorf("the corpus of answers is incomplete: %d", len(names))
	}
}

func TestPlaceholdersAreWhatTheySay(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		if got := (Request{text: text}).For("h"); got != want {
			t.Errorf("%q became\n%q, want\n%q", text, got, want)
		}
	}
	const hidden = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n" // 35 bytes
	f("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\nab{hidden}", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 37\r\n\r\nab"+hidden)
	f("X\r\n\r\n{hex}\r\n{hidden}", "X\r\n\r\n23\r\n"+hidden)
}
