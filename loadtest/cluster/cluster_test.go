package main

import (
	"context"
	"errors"
	"testing"
	"time"
)

// Everything that docker-compose.yml starts works together, and the board and
// the rules see it.
func TestClusterAnswersEveryQueryOfTheBoard(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if err := cluster(ctx, t, options{root: "../..", check: true}, t.Output()); err != nil {
		t.Fatal(err)
	}
}

func TestMachineCleansUpInReverseAndReportsEverything(t *testing.T) {
	m := &machine{}
	var order []int
	err := m.run(func() error {
		m.Cleanup(func() { order = append(order, 1) })
		m.Cleanup(func() { order = append(order, 2); m.Errorf("late") })
		m.Fatalf("gave up after %d", 3)
		return errors.New("not reached")
	})
	if err == nil || err.Error() != "gave up after 3\nlate" {
		t.Errorf("error %q", err)
	}
	if len(order) != 2 || order[0] != 2 {
		t.Errorf("clean-ups in order %v", order)
	}
}
