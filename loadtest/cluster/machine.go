package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
)

// machine is what loadtest/servers needs of a test, for a program: clean-ups
// that run at the end, and a way out. A method that is not written here is not
// called there; it would panic.
type machine struct {
	testing.TB
	cleanups []func()
	errs     []error
}

// giveUp travels as a panic from Fatalf to run.
type giveUp struct{ error }

// run calls f, then the clean-ups in reverse order, and returns all errors.
func (m *machine) run(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			give, ours := v.(giveUp)
			if !ours {
				panic(v)
			}
			err = give.error
		}
		for _, c := range slices.Backward(m.cleanups) {
			c()
		}
		err = errors.Join(append([]error{err}, m.errs...)...)
	}()
	return f()
}

func (m *machine) Helper()                 {}
func (m *machine) Name() string            { return "cluster" }
func (m *machine) Cleanup(f func())        { m.cleanups = append(m.cleanups, f) }
func (m *machine) Failed() bool            { return len(m.errs) > 0 }
func (m *machine) Logf(f string, a ...any) { fmt.Fprintf(os.Stderr, f+"\n", a...) }

func (m *machine) Errorf(f string, a ...any) { m.errs = append(m.errs, fmt.Errorf(f, a...)) }
func (m *machine) Fatalf(f string, a ...any) { panic(giveUp{fmt.Errorf(f, a...)}) }
func (m *machine) Fatal(a ...any)            { panic(giveUp{errors.New(fmt.Sprint(a...))}) }

// Skipf means that a server is missing, which a program cannot pass over.
func (m *machine) Skipf(f string, a ...any) { m.Fatalf(f+" (run deploy/test-servers)", a...) }

func (m *machine) TempDir() string {
	dir, err := os.MkdirTemp("", "gatehouse-cluster-")
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
