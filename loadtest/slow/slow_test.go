package slow

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/rig"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

func TestMain(m *testing.M) { rig.Main(m) }

// many is the number of slow connections.
const many = 1000

var (
	colours   = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")
	available = regexp.MustCompile(`service available: +YES`)
)

// config has deadlines that are over before an attack is.
const config = `
server: {header_timeout: 6s, body_idle_timeout: 3s, write_idle_timeout: 3s, rate_grace: 2s, drain_delay: 1ms, drain_timeout: 1s}
services:
  a: {targets: ["http://%s"], breaker: off, retries: {attempts: 1}, timeouts: {request: 60s, idle: 60s}}
routes:
  - {name: all, path: /**, service: a, public: true}
`

// TestSlowConnections attacks a gateway three ways with a thousand connections,
// which its deadlines and minimum rates have to end, while honest clients call.
// None of their requests may fail, and their p99 may be twice what it is when
// all is quiet.
//
// A machine that others use makes p99 jump for reasons of its own. So quiet is
// the worst of three: right before the attack, right behind it, and at a second
// gateway that nobody attacks, called at the same time; a difference below floor
// counts for nothing; and the comparison, and nothing else, has four tries.
func TestSlowConnections(t *testing.T) {
	tool := servers.Need(t, "slowhttptest", "slowhttptest")
	roomForConnections(t)
	attacked, twin := newSide(t), newSide(t)
	for _, attack := range []struct {
		name string
		args []string
		// reasons are those of the refusals that count the connections.
		reasons []string
	}{
		{"head", []string{"-H", "-i", "10"}, []string{"request_timeout"}},
		{"body", []string{"-B", "-i", "10", "-s", "8192"}, []string{"request_timeout", "request_too_slow"}},
		{"read", []string{"-X", "-n", "10", "-z", "16", "-w", "16", "-y", "64"}, []string{"response_too_slow", "client_gone"}},
	} {
		t.Run(attack.name, func(t *testing.T) {
			var slowed string
			for range 4 {
				before := call(t, 2*time.Second, attacked.url("/small"))[0]
				counted := attacked.counted(t, attack.reasons)
				under := make(chan []latencies, 1)
				ctx, stop := context.WithCancel(t.Context())
				go func() { under <- callUntil(ctx, attacked.url("/small"), twin.url("/small")) }()
				end := slowhttptest(t, tool, append(attack.args, "-u", attacked.url("/large"))...)
				cut := attacked.cutsOff(t, attack.reasons, counted+many*99/100) // the few that never came about are no fault
				output := end()
				stop()
				during := <-under
				after := call(t, 2*time.Second, attacked.url("/small"))[0]

				for what, l := range map[string]latencies{"before": before, "during the attack": during[0], "at the gateway beside": during[1], "behind": after} {
					if l.failed != nil {
						t.Errorf("%s an honest request of %d failed: %v", what, len(l.all), l.failed)
					}
				}
				if !cut || !available.MatchString(output) {
					t.Errorf("%v connections ended and counted, or slowhttptest found no service:\n%s", attacked.counted(t, attack.reasons)-counted, output)
				}
				if t.Failed() {
					return
				}
				quiet := max(before.p99(), after.p99(), during[1].p99())
				limit := max(2*quiet, quiet+floor())
				slowed = fmt.Sprintf("p99 of %d honest requests %v; quiet: %v before, %v behind, %v at the gateway beside",
					len(during[0].all), during[0].p99(), before.p99(), after.p99(), during[1].p99())
				t.Log(slowed)
				if during[0].p99() <= limit {
					return
				}
			}
			t.Errorf("the attack slows honest clients: %s", slowed)
		})
	}
}

// floor is how much longer than in quiet an honest request may always take. What
// the attacked gateway has to do costs ten times as much with the race detector.
func floor() time.Duration {
	if rig.RaceEnabled {
		return 50 * time.Millisecond
	}
	return 5 * time.Millisecond
}

// roomForConnections lets this process and its children open enough files.
func roomForConnections(t *testing.T) {
	t.Helper()
	const files = 8192
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < files {
		servers.Missing(t, "a process may open %d files only", limit.Max)
	}
	// Also where it is high already: a child gets the limit that was set last,
	// not the one that the Go runtime raised for itself.
	limit.Cur = max(limit.Cur, files)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}

// slowhttptest begins an attack. end ends it, where it has not ended because
// no slow connection was left, and returns what the program said last.
func slowhttptest(t *testing.T, tool string, args ...string) (end func() string) {
	t.Helper()
	args = append([]string{"-c", fmt.Sprint(many), "-r", "300", "-l", "60", "-p", "20"}, args...)
	cmd := exec.Command(tool, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceValue(func() string {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		text := colours.ReplaceAllString(out.String(), "")
		return text[max(0, len(text)-1000):]
	})
	t.Cleanup(func() { end() })
	return end
}
