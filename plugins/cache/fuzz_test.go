package cache

import (
	"strings"
	"testing"
	"time"
)

// FuzzDirectives: whatever Cache-Control says, names are in lower case and
// without a comma, and times are between 0 and what RFC 9111, 1.2.2 wants to be
// held.
func FuzzDirectives(f *testing.F) {
	for _, seed := range []string{
		"max-age=60", "max-age=60, max-age=5", `max-age="60"`, "s-maxage=-1", "max-age=99999999999", "no-cache, no-store,private",
		`private="set-cookie, x"`, ",,=,a=b=c", "MAX-AGE = 5", "public; max-age=5", "max-age",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		d := directives(value)
		for name := range d {
			if name == "" || name != strings.ToLower(name) || strings.Contains(name, ",") {
				t.Fatalf("%q: the name %q", value, name)
			}
			if life, ok := d.seconds(name); !ok || life < 0 || life >= (1<<31)*time.Second {
				t.Fatalf("%q: %s is %v, %v", value, name, life, ok)
			}
		}
	})
}
