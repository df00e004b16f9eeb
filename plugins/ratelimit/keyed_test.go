package ratelimit

import (
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/routes"
)

func TestKeyedLimitCountsEachKeyForItself(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	p := New(Config{Now: func() time.Time { return now }})
	k, err := p.Keyed("token/client", routes.RateLimit{Limit: 2, Per: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	other, err := p.Keyed("token/address", routes.RateLimit{Limit: 2, Per: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if d := k.Take("web"); d != 0 {
			t.Errorf("wait %v within the limit", d)
		}
	}
	if d := k.Take("web"); d <= 0 || d > time.Second {
		t.Errorf("wait %v, want at most a second", d)
	}
	if k.Take("batch") != 0 || other.Take("web") != 0 {
		t.Error("another key, or another limit, is limited too")
	}
	now = now.Add(time.Second)
	if k.Take("web") != 0 {
		t.Error("the limit does not end")
	}
	if _, err := p.Keyed("x", routes.RateLimit{Limit: -1, Per: time.Second}); err == nil {
		t.Error("a negative limit was taken")
	}
}
