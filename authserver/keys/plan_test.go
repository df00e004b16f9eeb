package keys

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// start is when each test begins.
var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// describe names the keys of a use: "a:retired b:active".
func describe(rows []store.Key, use string) string {
	var parts []string
	for _, k := range rows {
		if k.Use == use {
			parts = append(parts, k.ID+":"+k.State)
		}
	}
	return strings.Join(parts, " ")
}

func TestPlanKeepsOneKeyActive(t *testing.T) {
	p := policy{algorithm: ES256, rotation: 100 * time.Minute, publish: 10 * time.Minute, overlap: 20 * time.Minute}
	key := func(id, state string, activates, gone time.Duration) store.Key {
		k := store.Key{ID: id, Use: UseToken, Algorithm: ES256, State: state, Activates: start.Add(activates)}
		if gone != 0 {
			k.Gone = start.Add(gone)
		}
		return k
	}
	active := func(age time.Duration) store.Key { return key("a", stateActive, -age, 0) }
	other := active(time.Minute)
	other.Algorithm = EdDSA
	for _, c := range []struct {
		name    string
		have    []store.Key
		force   bool
		want    string
		changed bool
	}{
		{"no keys", nil, false, "new1:active", true},
		{"no keys, forced", nil, true, "new1:active new2:next", true},
		{"young key", []store.Key{active(time.Minute)}, false, "a:active", false},
		{"young key, forced", []store.Key{active(time.Minute)}, true, "a:active new1:next", true},
		{"just before its successor is due", []store.Key{active(90*time.Minute - 1)}, false, "a:active", false},
		{"when its successor is due", []store.Key{active(90 * time.Minute)}, false, "a:active new1:next", true},
		{"of another algorithm", []store.Key{other}, false, "a:active new1:next", true},
		{"successor published", []store.Key{active(95 * time.Minute), key("b", stateNext, time.Nanosecond, 0)}, false, "a:active b:next", false},
		{"successor published, forced", []store.Key{active(time.Hour), key("b", stateNext, time.Minute, 0)}, true, "a:active b:next", false},
		{"successor activates", []store.Key{active(100 * time.Minute), key("b", stateNext, 0, 0)}, false, "a:retired b:active", true},
		{"no active key, successor not due", []store.Key{key("b", stateNext, time.Hour, 0)}, false, "b:active", true},
		{"retired key verifies", []store.Key{key("r", stateRetired, 0, 1), active(0)}, false, "r:retired a:active", false},
		{"retired key is gone", []store.Key{key("r", stateRetired, 0, -1), active(0)}, false, "a:active", true},
		{"two active keys", []store.Key{key("o", stateActive, 0, 0), active(0)}, false, "o:retired a:active", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			identity := active(time.Minute)
			identity.ID, identity.Use = "i", UseIdentity
			made := 0
			want, changed, err := plan(append(c.have, identity), start, p, c.force, func(use string) (store.Key, error) {
				if use == UseToken {
					made++
				}
				return store.Key{ID: fmt.Sprint("new", made), Use: use, Algorithm: ES256}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := describe(want, UseToken); got != c.want || changed != c.changed && !c.force {
				t.Errorf("plan %q, changed %v; want %q, %v", got, changed, c.want, c.changed)
			}
			for _, k := range want {
				if k.State == stateRetired && k.ID != "r" && !(k.Retired.Equal(start) && k.Gone.Equal(start.Add(p.overlap))) {
					t.Errorf("retired %v, gone %v", k.Retired, k.Gone)
				}
				if k.State == stateNext && k.ID != "b" && !k.Activates.Equal(start.Add(p.publish)) {
					t.Errorf("a successor activates at %v", k.Activates)
				}
			}
		})
	}
}
