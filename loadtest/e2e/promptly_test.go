package e2e

import (
	"testing"
	"time"
)

const (
	// attempts has a bound measured again when it was missed: what the program
	// does it does every time, what a busy machine does it does not.
	attempts = 6
	// hops is how many processes one after another have to be given the
	// processor before something that was told to one shows at another.
	hops = 4
)

// promptly fails the test unless what measure measures came about within
// bound, in one of some attempts. A process that the machine keeps waiting for
// the processor is no process that waits: how long this one was kept is
// measured at the same time and granted for each hop.
func promptly(t *testing.T, what string, bound time.Duration, measure func() time.Duration) {
	t.Helper()
	for attempt := 1; ; attempt++ {
		took, kept := beside(measure)
		t.Logf("%s: %v, want at most %v (attempt %d; the machine kept us waiting %v)", what, took, bound, attempt, kept)
		switch {
		case took <= bound+hops*kept || t.Failed():
			return
		case attempt == attempts:
			t.Fatalf("%s: %v, want at most %v and %d times the %v that the machine kept us waiting", what, took, bound, hops, kept)
		}
	}
}

// beside measures something and how much longer than it asked for a goroutine
// slept meanwhile, at worst.
func beside(measure func() time.Duration) (took, kept time.Duration) {
	const nap = 5 * time.Millisecond
	quit, worst := make(chan struct{}), make(chan time.Duration, 1)
	go func() {
		late := time.Duration(0)
		for {
			began := time.Now()
			select {
			case <-time.After(nap):
				late = max(late, time.Since(began)-nap)
			case <-quit:
				worst <- late
				return
			}
		}
	}()
	func() {
		defer close(quit)
		took = measure()
	}()
	return took, <-worst
}
