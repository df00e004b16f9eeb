package routes

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Secret is a value that never prints itself: every verb of fmt, encoding/json
// and log/slog show "[secret]", or nothing where it is empty. Reveal is the
// only way to the value.
type Secret string

const hidden = "[secret]"

// Reveal returns the value. Do not put it into an error, a log or a metric.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalText hides the value from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Format hides the value from the verbs that fmt does not pass to String: %d
// of a string prints it.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') || verb == 'q' {
		io.WriteString(f, s.GoString())
		return
	}
	io.WriteString(f, s.String())
}

// Secrets is one secret or a list of them.
type Secrets []Secret

// Size is a number of bytes. In YAML: 65536, 64kB (1000), 64KiB (1024).
type Size int64

var sizeUnits = []struct {
	suffix string
	factor int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9},
	{"B", 1},
	{"", 1},
}

// UnmarshalText reads a plain number of bytes or one with a unit.
func (s *Size) UnmarshalText(text []byte) error {
	t := string(text)
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(t, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.factor {
			break
		}
		*s = Size(n * u.factor)
		return nil
	}
	return fmt.Errorf("%q is not a size; write bytes, or a number with kB, MB, GB, KiB, MiB or GiB", t)
}

func (s Size) String() string {
	for _, u := range []int{2, 1, 0} {
		if f := sizeUnits[u].factor; s != 0 && int64(s)%f == 0 {
			return strconv.FormatInt(int64(s)/f, 10) + sizeUnits[u].suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Percent is a fraction of one, written with a percent sign: 50% is 0.5.
type Percent float64

// UnmarshalText reads a number with a percent sign, at most 100%. A number
// without the sign is refused, because 1 could mean 1% or all.
func (p *Percent) UnmarshalText(text []byte) error {
	number, ok := strings.CutSuffix(string(text), "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if !ok || err != nil || !(f >= 0 && f <= 100) {
		return fmt.Errorf("%q is not a percentage; write 0%% to 100%%, with the sign", text)
	}
	*p = Percent(f / 100)
	return nil
}

func (p Percent) String() string {
	return strconv.FormatFloat(float64(p)*100, 'f', -1, 64) + "%"
}
