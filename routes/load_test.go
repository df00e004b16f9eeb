package routes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testEnv is the environment of the files in testdata.
func testEnv(name string) (string, bool) {
	v, ok := map[string]string{
		"EMPTY": "", "PORT": "8080", "WORD": "not-to-be-shown", "CONSUL": "http://127.0.0.1:8500",
		"KEK": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "TOKEN": "0123456789abcdef0123456789abcdef",
	}[name]
	return v, ok
}

var testOptions = Options{Plugins: []string{"cors", "headers"}, Env: testEnv}

// expectations calls f for each comment "# marker: text" of a file, with the
// number of the line that it ends.
func expectations(t *testing.T, path, marker string, f func(line int, text string)) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(data), "\n") {
		if _, text, ok := strings.Cut(line, "# "+marker+": "); ok {
			f(i+1, text)
		}
	}
}

// TestBadFiles loads every file of testdata/bad, each with the mistake in its
// name, and compares all that is said about it.
func TestBadFiles(t *testing.T) {
	paths, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal("no files", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			file, err := Load(path, testOptions)
			if err == nil {
				t.Fatal("no problem was found")
			}
			if len(file.Routes) > 0 || len(file.Sources) == 0 || file.Path != path {
				t.Errorf("with an error the file holds %+v", file)
			}
			got := strings.ReplaceAll(err.Error(), "testdata/bad/", "")
			var want []string
			expectations(t, path, "want", func(_ int, text string) { want = append(want, text) })
			if want := strings.Join(want, "\n"); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			if strings.Contains(got, "not-to-be-shown") {
				t.Error("the value of a secret is shown")
			}
		})
	}
}

// TestGoodFiles loads every file of testdata/good. A line that is warned about
// ends in a comment that says how.
func TestGoodFiles(t *testing.T) {
	paths, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal("no files", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			file, err := Load(path, testOptions)
			if err != nil {
				t.Fatal(err)
			}
			var got, want []string
			for _, w := range file.Warnings {
				at := w.Pos
				w.Pos = Pos{}
				got = append(got, fmt.Sprintf("%s:%d: %s", at.File, at.Line, w))
			}
			expectations(t, path, "warn", func(line int, text string) {
				want = append(want, fmt.Sprintf("%s:%d: %s", path, line, text))
			})
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("warnings:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if _, err := NewTable(file.Routes); err != nil {
				t.Error(err)
			}
		})
	}
}
