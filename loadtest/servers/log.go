package servers

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// shownLines is how much of a log is shown when a test fails.
const shownLines = 15

// ShowLog shows the end of a process's log beside a test that has failed. It
// goes out at once and not with what the test reports, which go test keeps
// until the test's end: so the reason stands after the logs, not before them.
func ShowLog(t testing.TB, name, log string) {
	fmt.Fprintf(os.Stderr, "%s: end of the log of %s:\n%s\n", t.Name(), name, lastLines(log))
}

// lastLines is the end of a log, without the lines that a Consul agent writes
// every second about a service whose process a test has killed.
func lastLines(log string) string {
	var kept []string
	for line := range strings.Lines(log) {
		if line = strings.TrimRight(line, "\r\n"); line != "" && !strings.Contains(line, "Check is now critical") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept[max(0, len(kept)-shownLines):], "\n")
}
