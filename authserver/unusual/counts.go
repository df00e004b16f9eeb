package unusual

import (
	"sync"
	"time"
)

// maxCounted bounds how many names a counts remembers.
const maxCounted = 1 << 16

// counts counts by name within a window, in the memory of this process.
type counts struct {
	window time.Duration
	mu     sync.Mutex
	of     map[string]count
}

type count struct {
	n     int
	until time.Time
	note  string
}

func newCounts(window time.Duration) *counts {
	return &counts{window: window, of: map[string]count{}}
}

// add counts one more of name, keeps note with it in place of the one before,
// and returns how many there were since the window began.
func (c *counts) add(name, note string, now time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.of[name]
	if !one.until.After(now) {
		if one.until.IsZero() && len(c.of) >= maxCounted {
			c.makeRoomLocked(now)
		}
		one = count{until: now.Add(c.window)}
	}
	one.n, one.note = one.n+1, note
	c.of[name] = one
	return one.n
}

// note returns what is kept with name, "" where nothing is.
func (c *counts) note(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[name].note
}

// makeRoomLocked forgets, of some names, those whose window is over, or else
// the one with the smallest count: whoever sends names that do not exist pushes
// none out that many failures were counted for.
func (c *counts) makeRoomLocked(now time.Time) {
	const some = 16
	least, seen, freed := "", 0, false
	for name, one := range c.of {
		if !one.until.After(now) {
			delete(c.of, name)
			freed = true
		} else if least == "" || one.n < c.of[least].n {
			least = name
		}
		if seen++; seen == some {
			break
		}
	}
	if !freed {
		delete(c.of, least)
	}
}
