package plugintest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// wanted starts the first line of a file for Bad.
const wanted = "# want: "

// Bad loads every file that pattern names and fails where load accepts one or
// where its error lacks the words of the file's first line, "# want: words".
// One mistake a file, and the file is named after the mistake.
func Bad(t *testing.T, pattern string, load func(path string) error) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Fatalf("no file matches %s", pattern)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)), func(t *testing.T) {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(content), "\n")
			want, ok := strings.CutPrefix(first, wanted)
			if !ok || want == "" {
				t.Fatalf("%s does not begin with %q and the words of the error", path, wanted)
			}
			if err := load(path); err == nil {
				t.Errorf("%s was accepted; want an error with %q", path, want)
			} else if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q lacks %q", path, err, want)
			}
		})
	}
}
