package routes

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// everyPath lists all canonical paths of up to n segments over a small
// alphabet; 'z' stands for everything that no pattern names.
func everyPath(n int) (paths []string) {
	paths = []string{"/"}
	level := []string{""}
	for range n {
		var next []string
		for _, prefix := range level {
			for _, s := range []string{"a", "b", "z"} {
				p := prefix + "/" + s
				next = append(next, p)
				paths = append(paths, p, p+"/")
			}
		}
		level = next
	}
	return paths
}

// TestRelationsAreThoseOfTheSets compares relate, from which conflicts are
// found, with the sets of paths that patterns match one by one.
func TestRelationsAreThoseOfTheSets(t *testing.T) {
	paths := everyPath(5)
	draw := rapid.Custom(func(rt *rapid.T) string {
		path := ""
		for _, s := range rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "*"}), 0, 4).Draw(rt, "segments") {
			path += "/" + s
		}
		path += rapid.SampledFrom([]string{"", "/", "/**"}).Draw(rt, "end")
		if path == "" {
			return "/"
		}
		return path
	})
	rapid.Check(t, func(rt *rapid.T) {
		first, second := draw.Draw(rt, "first"), draw.Draw(rt, "second")
		p, err := parsePattern(first)
		if err != nil {
			rt.Fatal(err)
		}
		q, err := parsePattern(second)
		if err != nil {
			rt.Fatal(err)
		}
		var both, onlyP, onlyQ bool
		for _, path := range paths {
			_, inP := naivePath(first, path)
			_, inQ := naivePath(second, path)
			both = both || inP && inQ
			onlyP = onlyP || inP && !inQ
			onlyQ = onlyQ || inQ && !inP
		}
		want := equal
		switch {
		case !both:
			want = disjoint
		case onlyP && onlyQ:
			want = crossing
		case onlyP:
			want = wider
		case onlyQ:
			want = narrower
		}
		if got := p.relate(q); got != want {
			rt.Fatalf("%s to %s: got %d, want %d", first, second, got, want)
		}
		if want == disjoint {
			return
		}
		example := p.example(q)
		_, inP := naivePath(first, example)
		_, inQ := naivePath(second, example)
		if !inP || !inQ {
			rt.Fatalf("%s and %s: the example %s does not match both", first, second, example)
		}
	})
}

func TestDescribesPatternsThatCannotBe(t *testing.T) {
	f := func(host, want string) {
		t.Helper()
		_, _, err := parseHost(host)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", host, err, want)
		}
	}
	f("*", "*.example.com")
	f("*.", "*.example.com")
	f("*.[::1]", "is not a host name")
	f("[::1]:80", "a port cannot be matched")
	f("[0::1]", `must be written "[::1]"`)
	f("a.test.", `must be written "a.test"`)
	f("", "is not a host name")
	if _, _, err := parseHost("[::1]"); err != nil {
		t.Error(err)
	}
}
