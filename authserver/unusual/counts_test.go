package unusual

import (
	"strconv"
	"testing"
	"time"
)

func TestCountsAreOfAWindowAndOfBoundedSize(t *testing.T) {
	now := time.Unix(1e9, 0)
	c := newCounts(time.Minute)
	for want := 1; want <= 3; want++ {
		if n := c.add("a", "here", now); n != want {
			t.Fatal(n, want)
		}
	}
	if n := c.add("a", "there", now.Add(time.Minute)); n != 1 || c.note("a") != "there" {
		t.Errorf("in the next window: %d %q", n, c.note("a"))
	}
	for range 10 {
		c.add("often", "", now)
	}
	for i := range maxCounted + 1000 { // names that nobody has
		c.add(strconv.Itoa(i), "", now)
	}
	if len(c.of) > maxCounted {
		t.Errorf("%d names", len(c.of))
	}
	if n := c.add("often", "", now); n != 11 {
		t.Errorf("a name with many failures was pushed out: %d", n)
	}
}
