package authserver_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// requirements is how many lines the list of requirements has.
const requirements = 62

// stateful are the requirements that rest on what the store does, so that at
// least one test of each runs on every store. What is about one of them alone
// (60: PostgreSQL restarts; 61: its replicas) is not among them.
var stateful = []int{19, 21, 22, 27, 28, 29, 30, 31, 35, 36, 37, 38, 39, 40, 42, 50, 51, 52, 53, 54, 55, 59}

var requirementName = regexp.MustCompile(`^TestOA(?:uth|UTH)(\d\d)(?:To(\d\d))?_?`)

// TestEveryRequirementHasATest holds the tests' names against the list: a
// number without a test, or a stateful one that ran on one store only, is a
// promise that nobody keeps.
func TestEveryRequirementHasATest(t *testing.T) {
	tested, onEach := map[int]bool{}, map[int]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && d.Name() != "..") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			name := requirementName.FindStringSubmatch(f.Name.Name)
			if name == nil {
				continue
			}
			first, _ := strconv.Atoi(name[1])
			last := first
			if name[2] != "" {
				last, _ = strconv.Atoi(name[2])
			}
			for n := first; n <= last; n++ {
				tested[n] = true
				onEach[n] = onEach[n] || runsOnEachStore(f)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= requirements; n++ {
		if !tested[n] {
			t.Errorf("requirement %d has no test called TestOAuth%02d_…", n, n)
		}
	}
	for _, n := range stateful {
		if tested[n] && !onEach[n] {
			t.Errorf("requirement %d rests on the store, and no test of it runs on every store", n)
		}
	}
}

// runsOnEachStore reports whether f calls one of the helpers that run a test
// on SQLite and PostgreSQL.
func runsOnEachStore(f *ast.FuncDecl) (found bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if ok {
			switch name := fmt.Sprint(call.Fun); name {
			case "onEachStore", "onEachDatabase":
				found = true
			}
		}
		return !found
	})
	return found
}
