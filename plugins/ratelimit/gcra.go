package ratelimit

// Limit is a bucket's size and speed in the unit in which stores count:
// Interval microseconds bring one token, Burst tokens fit in.
type Limit struct {
	Interval int64
	Burst    int64
}

// span is the time in which an empty bucket fills.
func (l Limit) span() int64 { return l.Interval * l.Burst }

// Ask is what a replica wants of one bucket.
type Ask struct {
	// Want is the number of tokens asked for; 0 only posts Debt.
	Want int64
	// Least is the smallest useful grant: fewer free tokens grant none.
	Least int64
	// Need is what requests wait for: spent at once, it is no hoard, so the
	// share of a replica does not bound it.
	Need int64
	// Debt is what was admitted without the store; it is debited first.
	Debt int64
	// Active is the number of replicas that share the bucket now, 0 to let
	// the asker have all of Want that is free.
	Active int64
}

// Grant is a bucket's answer. Times are in microseconds.
type Grant struct {
	// Tokens were debited for the asker.
	Tokens int64
	// Free tokens are left.
	Free int64
	// Retry is when Least tokens will be free, as of now; 0 with a grant.
	Retry int64
	// Reset is when the bucket will be full, as of now.
	Reset int64
}

// Decide is the whole algorithm (GCRA): a bucket is the one number tat, the
// time at which it will be full; 0 is a bucket that was never used. It returns
// the bucket's next state. The script of the Redis store does the same
// arithmetic, and a test compares them.
func Decide(l Limit, tat, now int64, a Ask) (int64, Grant) {
	full := now + l.span()
	// The clamp bounds what a clock that jumped or bad data can do: starve
	// for one burst.
	tat = min(max(tat, now), full)
	tat = min(tat+a.Debt*l.Interval, full)
	free := (full - tat) / l.Interval

	var g Grant
	if a.Want > 0 && free >= a.Least {
		g.Tokens = min(a.Want, free)
		if a.Active > 0 {
			// Half of a fair share: grants shrink as the bucket drains, so
			// nobody hoards the last tokens.
			g.Tokens = min(g.Tokens, max(a.Least, a.Need, free/(2*a.Active)))
		}
		tat += g.Tokens * l.Interval
	} else if a.Want > 0 {
		g.Retry = a.Least*l.Interval - (full - tat)
	}
	g.Free = free - g.Tokens
	g.Reset = tat - now
	return tat, g
}
