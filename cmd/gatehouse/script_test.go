package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"gatehouse": func() { os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs testdata/script: each file is a session with the command,
// the files that it reads and the words that must come out.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", Cmds: map[string]func(*testscript.TestScript, bool, []string){
		// exits CODE COMMAND…: the command ends with exactly this code.
		"exits": func(ts *testscript.TestScript, _ bool, args []string) {
			err := ts.Exec(args[1], args[2:]...)
			var exit *exec.ExitError
			if !errors.As(err, &exit) || strconv.Itoa(exit.ExitCode()) != args[0] {
				ts.Fatalf("%v: %v, want exit code %s", args[1:], err, args[0])
			}
		},
	}})
}
