package breaker

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/gatehouse/gatehouse/plugins"
)

const (
	// trials is how many requests a half-open circuit lets through, and how
	// many of them must succeed in a row.
	trials = 5
	// buckets divide the window.
	buckets = 10
	maxOpen = 30 * time.Second
)

// circuit is the breaker of one service. gobreaker's open time is fixed, so
// each change of it makes a new generation with a gobreaker of its own.
type circuit struct {
	service  string
	settings settings
	current  atomic.Pointer[generation]
	opened   atomic.Uint64
	refused  atomic.Uint64
	attempts sync.Pool // of *attempt
}

// generation is a gobreaker with one open time. Its callback runs under
// gobreaker's lock, so it only stores: asking for the state there would lock up.
type generation struct {
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	open    time.Duration
	state   atomic.Int32
	// until is when the open state ends, in nanoseconds since 1970.
	until atomic.Int64
	// change asks whoever caused it to start the next generation.
	change atomic.Int32
	// tripping makes the next failure open the breaker.
	tripping bool
}

// The changes that end a generation.
const (
	none int32 = iota
	reopened
	recovered
)

func newCircuit(service string, s settings) *circuit {
	c := &circuit{service: service, settings: s}
	c.attempts.New = func() any { return &attempt{} }
	c.current.Store(c.generation(s.open))
	return c
}

func (c *circuit) generation(open time.Duration) *generation {
	g := &generation{open: open}
	g.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:         c.service,
		MaxRequests:  trials,
		Interval:     c.settings.window,
		BucketPeriod: max(c.settings.window/buckets, time.Millisecond),
		Timeout:      open,
		IsExcluded:   func(err error) bool { return err == errExcluded },
		ReadyToTrip: func(n gobreaker.Counts) bool {
			finished := n.TotalSuccesses + n.TotalFailures
			return g.tripping || finished >= c.settings.minRequests &&
				float64(n.TotalFailures) >= c.settings.failures*float64(finished)
		},
		OnStateChange: func(_ string, from, to gobreaker.State) {
			g.state.Store(int32(to))
			switch to {
			case gobreaker.StateOpen:
				c.opened.Add(1)
				g.until.Store(time.Now().Add(open).UnixNano())
				if from == gobreaker.StateHalfOpen {
					g.change.Store(reopened)
				}
			case gobreaker.StateClosed:
				g.change.Store(recovered)
			}
		},
	})
	return g
}

// serve lets x pass or refuses it, and tells the breaker what became of it on
// every path: a half-open breaker that misses one answer would stay so for ever.
func (c *circuit) serve(x *plugins.Exchange, next plugins.Handler) (err error) {
	g := c.current.Load()
	done, refusal := g.breaker.Allow()
	if refusal != nil {
		return c.refuse(x, g)
	}
	a := c.attempts.Get().(*attempt)
	*a = attempt{c: c, g: g, done: done, verdict: errExcluded} // of a panic
	x.Settler = a
	defer func() {
		x.Settler = nil
		a.settle()
		c.attempts.Put(a)
	}()
	err = next(x)
	a.verdict = outcome(x, err)
	return err
}

// attempt is one that the breaker let pass. It implements plugins.Settler: an
// answer that goes on for hours must not hold one of the few trials of a
// half-open breaker.
type attempt struct {
	c       *circuit
	g       *generation
	done    func(error)
	verdict error
	settled bool
}

// Settle implements plugins.Settler.
func (a *attempt) Settle() {
	a.verdict = nil
	a.settle()
}

func (a *attempt) settle() {
	if a.settled {
		return
	}
	a.settled = true
	a.done(a.verdict)
	if a.g.change.Load() != none {
		a.c.advance(a.g)
	}
}

// advance starts the generation after g: still open, for twice the time, where
// the trials failed; closed where they succeeded.
func (c *circuit) advance(g *generation) {
	change := g.change.Swap(none)
	switch {
	case change == reopened && g.open < maxOpen:
		next := c.generation(min(2*g.open, maxOpen))
		next.trip()
		c.opened.Add(^uint64(0)) // the same opening, counted by g already
		c.current.CompareAndSwap(g, next)
	case change == recovered && g.open != c.settings.open:
		c.current.CompareAndSwap(g, c.generation(c.settings.open))
	}
}

// trip opens a new breaker.
func (g *generation) trip() {
	g.tripping = true
	if done, err := g.breaker.Allow(); err == nil {
		done(errFailed)
	}
	g.tripping = false
}

func (c *circuit) refuse(x *plugins.Exchange, g *generation) error {
	c.refused.Add(1)
	x.Replay = plugins.ReplayNever
	wait := time.Until(time.Unix(0, g.until.Load()))
	after := max(1, (wait+time.Second-1)/time.Second)
	return &plugins.Error{
		Status: http.StatusServiceUnavailable,
		Code:   plugins.BreakerOpen,
		Header: [][2]string{{"Retry-After", strconv.FormatInt(int64(after), 10)}},
	}
}

func (c *circuit) status() Status {
	g := c.current.Load()
	s := Status{Service: c.service, Opened: c.opened.Load(), Refused: c.refused.Load()}
	state := gobreaker.State(g.state.Load())
	s.State = state.String()
	if state == gobreaker.StateOpen {
		s.Until = time.Unix(0, g.until.Load())
	}
	return s
}
