package edge

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryPromiseHasATest: the request matrix (S01–S34, S40–S47) and the
// defects of stock proxy clients (P01–P15) each have a test that bears the id, and
// one over HTTP/2 where they mean anything there.
func TestEveryPromiseHasATest(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				if id, _, ok := strings.Cut(strings.TrimPrefix(f.Name.Name, "Test"), "_"); ok {
					have[id] = true
				}
			}
		}
	}
	f := func(letter string, from, to int) {
		for i := from; i <= to; i++ {
			id := fmt.Sprintf("%s%02d", letter, i)
			if !have[id] {
				t.Errorf("%s has no test", id)
			}
			if reason, without := withoutHTTP2[id]; without == (overHTTP2[id] != nil) || without && reason == "" {
				t.Errorf("%s wants either a test over HTTP/2 or a reason why it means nothing there", id)
			}
		}
	}
	f("S", 1, 34)
	f("S", 40, 47)
	f("P", 1, 15)
}
