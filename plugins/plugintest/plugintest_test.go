package plugintest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestNewSplitsTheTarget(t *testing.T) {
	x := New("GET", "API.example.com", "/a?b=c", "Accept: */*", "X-Empty: ")
	if string(x.Path) != "/a" || string(x.Query) != "b=c" || !x.HasQuery {
		t.Errorf("path %q query %q %v", x.Path, x.Query, x.HasQuery)
	}
	if string(x.Host) != "api.example.com" || string(x.Authority) != "API.example.com" {
		t.Errorf("host %q authority %q", x.Host, x.Authority)
	}
	if v, n := x.Field("accept"); string(v) != "*/*" || n != 1 {
		t.Errorf("accept %q %d", v, n)
	}
}

func TestRecorderKeepsTheAnswer(t *testing.T) {
	x := WithBody(New("POST", "h", "/"), "hello")
	x.AddResponseField("X-A", "1")
	if err := OK(x); err != nil {
		t.Fatal(err)
	}
	c := Client(x)
	if c.Status != 200 || c.Fields != "X-A: 1\r\n" || !c.Finished || x.BodyLength != 5 {
		t.Errorf("%+v", c)
	}
	if err := OK(x); err == nil {
		t.Error("a second head was accepted")
	}
}

func TestBadPassesWhereTheErrorNamesTheMistake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mistake.yaml")
	if err := os.WriteFile(path, []byte("# want: no such key\nx: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	Bad(t, path, func(string) error { return errors.New("line 2: no such key x") })
}
