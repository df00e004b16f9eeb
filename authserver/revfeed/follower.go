package revfeed

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

const (
	// verifyEvery is how often the log is read while the stream works.
	verifyEvery = time.Second
	// pollEvery is how often it is read without a working stream.
	pollEvery = 250 * time.Millisecond
	// block is how long a read of the stream waits for entries.
	block = time.Second
	// maxPause bounds the pause after a failed read of the stream.
	maxPause = time.Second
)

// FollowerConfig is what a Follower needs.
type FollowerConfig struct {
	Log Log
	// Redis is the stream; nil where there is none.
	Redis *Redis
	// Apply takes entries, by one goroutine at a time. It may see an entry
	// twice, and a later one before an earlier one; it must not block for long.
	Apply func([]oauth.Revocation)
	// Now is the clock; default time.Now.
	Now func() time.Time
	// OnError is told of the first failure of a row of them, of the log or of
	// Redis; by one goroutine at a time. It may be nil.
	OnError func(error)
}

// Follower is an edge's reader of revocations.
type Follower struct {
	log    Log
	stream source // nil without Redis
	apply  func([]oauth.Revocation)
	now    func() time.Time
	onErr  func(error)
	bell   bell
	ready  chan struct{}
	// wakes counts calls of Wake, caughtUp those before the last complete read
	// of the log, which began at contact (Unix nanoseconds).
	wakes, caughtUp atomic.Uint64
	contact         atomic.Int64

	mu     sync.Mutex
	status Status
	seen   uint64 // the last id read from the stream
	down   bool   // the stream did not answer last time
}

// source is the stream as a follower reads it.
type source interface {
	// Read returns entries above after, and the highest id among what it read,
	// some of which may be no entries; it waits a while for the first.
	Read(ctx context.Context, after uint64, wait time.Duration) (entries []oauth.Revocation, last uint64, err error)
}

// Status is how far a Follower has come.
type Status struct {
	// Applied: everything up to this number has been applied.
	Applied uint64
	// LogContact is when the last complete read of the log began: the view is
	// complete as of then. Zero before the first one.
	LogContact time.Time
	// StreamContact is when Redis last answered; zero if it never did.
	StreamContact time.Time
	// Gaps counts entries that the stream skipped and the log had to give.
	Gaps uint64
	// Rewinds counts how often the log ended before what had been applied: a
	// database that lost commits or was restored.
	Rewinds uint64
}

// NewFollower returns a follower that does nothing before Run.
func NewFollower(c FollowerConfig) *Follower {
	if c.Now == nil {
		c.Now = time.Now
	}
	f := &Follower{log: c.Log, apply: c.Apply, now: c.Now, bell: newBell(), ready: make(chan struct{})}
	var telling sync.Mutex
	f.onErr = func(err error) {
		if c.OnError != nil {
			telling.Lock()
			defer telling.Unlock()
			c.OnError(err)
		}
	}
	if c.Redis != nil {
		f.stream = c.Redis
	}
	return f
}

// Wake makes the follower read the log at once. It does not block.
func (f *Follower) Wake() {
	f.wakes.Add(1)
	f.bell.ring()
}

// viewAge is how long ago the log may have been read for a view to be current:
// two regular reads may be late.
const viewAge = 2*verifyEvery + pollEvery

// Current reports whether what was applied is what the log held a moment ago,
// and everything of which Wake told. It takes no lock.
func (f *Follower) Current() bool {
	return f.caughtUp.Load() == f.wakes.Load() && f.now().UnixNano()-f.contact.Load() <= int64(viewAge)
}

// Ready is closed when everything that the log held has been applied for the
// first time.
func (f *Follower) Ready() <-chan struct{} { return f.ready }

// Status may be called at any time.
func (f *Follower) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

// Run follows until ctx ends, and returns ctx's error.
func (f *Follower) Run(ctx context.Context) error {
	var streaming sync.WaitGroup
	if f.stream != nil {
		streaming.Go(func() { f.followStream(ctx) })
	}
	f.followLog(ctx)
	streaming.Wait()
	return ctx.Err()
}

func (f *Follower) followLog(ctx context.Context) {
	errors := reporter{tell: f.onErr}
	for ctx.Err() == nil {
		err := f.catchUp(ctx)
		if ctx.Err() == nil {
			errors.report(err)
		}
		f.bell.wait(ctx, f.pause(err))
	}
}

func (f *Follower) pause(err error) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stream == nil || f.down || err != nil {
		return pollEvery
	}
	return verifyEvery
}

// catchUp applies what the log holds and has not been applied.
func (f *Follower) catchUp(ctx context.Context) error {
	f.mu.Lock()
	after, seen := f.status.Applied, f.seen
	f.mu.Unlock()
	for rewound := false; ; {
		began, woken := f.now(), f.wakes.Load()
		entries, head, err := readLog(ctx, f.log, after)
		if err != nil {
			return fmt.Errorf("revocation log: %w", err)
		}
		if head < after && !rewound {
			// Another history: its entries have numbers that were applied already.
			rewound, after = true, 0
			continue
		}
		f.mu.Lock()
		f.applyLocked(entries)
		if len(entries) == page {
			after = entries[page-1].Seq
			f.mu.Unlock()
			continue
		}
		if rewound {
			f.status.Rewinds++
			f.status.Applied = head
		}
		f.status.Applied = max(f.status.Applied, head)
		f.status.LogContact = began
		f.contact.Store(began.UnixNano())
		f.caughtUp.Store(woken)
		if rewound || head < seen {
			// What the stream holds above the log's end is of another history.
			f.seen = head
		}
		f.mu.Unlock()
		f.announce()
		return nil
	}
}

// announce closes ready, once; only catchUp calls it.
func (f *Follower) announce() {
	select {
	case <-f.ready:
	default:
		close(f.ready)
	}
}

func (f *Follower) applyLocked(entries []oauth.Revocation) {
	if len(entries) > 0 {
		f.apply(entries)
	}
}

func (f *Follower) followStream(ctx context.Context) {
	select {
	case <-f.ready:
	case <-ctx.Done():
		return
	}
	errors := reporter{tell: f.onErr}
	pause := bell(nil) // never rings
	for wait := maxPause / 16; ctx.Err() == nil; {
		err := f.readStream(ctx)
		if ctx.Err() != nil {
			return
		}
		errors.report(err)
		if err == nil {
			wait = maxPause / 16
			continue
		}
		f.bell.ring() // poll at the faster pace from now on
		pause.wait(ctx, wait)
		wait = min(2*wait, maxPause)
	}
}

// readStream reads once and applies what came.
func (f *Follower) readStream(ctx context.Context) error {
	f.mu.Lock()
	after := max(f.seen, f.status.Applied)
	f.mu.Unlock()
	entries, last, err := f.stream.Read(ctx, after, block)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = err != nil
	if err != nil {
		return fmt.Errorf("revocation stream: %w", err)
	}
	f.status.StreamContact = f.now()
	f.seen = max(f.seen, last)
	f.applyLocked(entries)
	for _, e := range entries {
		if e.Seq == f.status.Applied+1 {
			f.status.Applied = e.Seq
		}
	}
	if last > f.status.Applied {
		f.status.Gaps++
		f.bell.ring()
	}
	return nil
}
