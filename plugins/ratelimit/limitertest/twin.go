package limitertest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gatehouse/gatehouse/plugins/ratelimit"
)

// Fault is what a Twin does wrong.
type Fault uint8

// The faults of a Twin.
const (
	// Healthy answers.
	Healthy Fault = iota
	// Refusing fails at once, as a closed port does.
	Refusing
	// Hanging never answers, as a stopped process or dropped packets do.
	Hanging
	// Mute debits but loses the answer.
	Mute
)

// Twin is the Redis store in Go: the same state, clock and answers in this
// process, with faults. Its fields may be set before use, its methods called at
// any time.
type Twin struct {
	// Latency is the time of a call.
	Latency time.Duration
	// SkipDebit is a defect for tests of the tests: grants are not debited.
	SkipDebit bool

	mu       sync.Mutex
	skew     time.Duration
	fault    map[string]Fault // by replica
	buckets  map[string]*twinBucket
	replicas map[string]time.Time
	asks     int
}

type twinBucket struct {
	tat   int64
	asked map[string]int64
}

// NewTwin returns an empty store.
func NewTwin() *Twin {
	return &Twin{fault: map[string]Fault{}, buckets: map[string]*twinBucket{}, replicas: map[string]time.Time{}}
}

// View is the store as one replica sees it: faults are set per view.
func (tw *Twin) View(name string) ratelimit.Store { return twinView{tw, name} }

// Fail sets what the view called name meets from now on.
func (tw *Twin) Fail(name string, f Fault) { tw.mu.Lock(); tw.fault[name] = f; tw.mu.Unlock() }

// Flush forgets everything, as FLUSHALL or a restart does.
func (tw *Twin) Flush() {
	tw.mu.Lock()
	clear(tw.buckets)
	clear(tw.replicas)
	tw.mu.Unlock()
}

// Skew moves the store's clock.
func (tw *Twin) Skew(d time.Duration) { tw.mu.Lock(); tw.skew += d; tw.mu.Unlock() }

// Asks is how many buckets were asked for.
func (tw *Twin) Asks() int { tw.mu.Lock(); defer tw.mu.Unlock(); return tw.asks }

type twinView struct {
	*Twin
	name string
}

// pass waits as the network does and reports whether the call arrives and
// whether its answer does.
func (v twinView) pass(ctx context.Context) (arrives bool, err error) {
	v.mu.Lock()
	f := v.fault[v.name]
	v.mu.Unlock()
	switch f {
	case Refusing:
		return false, errors.New("connection refused")
	case Hanging, Mute:
		if f == Mute {
			arrives = true
		}
		<-ctx.Done()
		return arrives, ctx.Err()
	}
	if v.Latency > 0 {
		time.Sleep(v.Latency)
	}
	return true, ctx.Err()
}

// Ask implements ratelimit.Store.
func (v twinView) Ask(ctx context.Context, asks []ratelimit.StoreAsk) error {
	arrives, err := v.pass(ctx)
	if arrives {
		v.mu.Lock()
		now := time.Now().Add(v.skew).UnixMicro()
		for i := range asks {
			v.askLocked(&asks[i], now)
		}
		v.mu.Unlock()
	}
	return err
}

func (tw *Twin) askLocked(a *ratelimit.StoreAsk, now int64) {
	tw.asks++
	b := tw.buckets[a.Bucket]
	if b == nil {
		b = &twinBucket{asked: map[string]int64{}}
		tw.buckets[a.Bucket] = b
	}
	ask := a.Ask
	ask.Active = 0
	if life := a.Life.Microseconds(); life > 0 {
		b.asked[a.Replica] = now
		for id, at := range b.asked {
			if max(now-at, at-now) >= life {
				delete(b.asked, id)
			}
		}
		ask.Active = int64(len(b.asked))
	}
	tat, grant := ratelimit.Decide(a.Limit, b.tat, now, ask)
	if !tw.SkipDebit {
		b.tat = tat
	}
	a.Grant, a.Err = grant, nil
}

// Heartbeat implements ratelimit.Store.
func (v twinView) Heartbeat(ctx context.Context, replica string) (int, error) {
	if arrives, err := v.pass(ctx); err != nil || !arrives {
		return 0, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	v.replicas[replica] = now
	for id, at := range v.replicas {
		if now.Sub(at) > 10*time.Second {
			delete(v.replicas, id)
		}
	}
	return len(v.replicas), nil
}
