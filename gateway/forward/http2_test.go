package forward

import (
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

func TestGRPCTimeoutIsReadAsTheSpecificationHasIt(t *testing.T) {
	f := func(value string, want time.Duration, ok bool) {
		t.Helper()
		got, there := grpcTimeout(plugintest.New("POST", "a", "/", "grpc-timeout: "+value))
		if got != want || there != ok {
			t.Errorf("%q: %v %v, want %v %v", value, got, there, want, ok)
		}
	}
	f("1H", time.Hour, true)
	f("2M", 2*time.Minute, true)
	f("3S", 3*time.Second, true)
	f("250m", 250*time.Millisecond, true)
	f("7u", 7*time.Microsecond, true)
	f("99999999n", 99999999, true)
	f("99999999H", 1<<63-1, true)
	f("0S", 0, true)
	f("999999999S", 0, false)
	f("S", 0, false)
	f("1", 0, false)
	f("1s", 0, false)
	f("-1S", 0, false)
	f("1.5S", 0, false)
	if _, ok := grpcTimeout(plugintest.New("POST", "a", "/")); ok {
		t.Error("a timeout that nobody set")
	}
}
