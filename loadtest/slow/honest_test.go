package slow

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

// side is a gateway before an origin of its own.
type side struct{ gw *rig.Gateway }

func newSide(t *testing.T) side {
	t.Helper()
	o, err := rig.NewOrigin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	o.Forget()
	// More than the kernel may take for a client that does not.
	const size = 1 << 20
	large := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("a", size))
	o.Reset(func(c *rig.Conn) {
		for {
			m, err := c.ReadRequest()
			if err != nil {
				return
			}
			if strings.Contains(m.Line, "/large") {
				c.Say(large)
				continue
			}
			c.Say(rig.OK)
		}
	})
	return side{rig.Run(t, rig.Options{Config: fmt.Sprintf(config, o.Addr)})}
}

func (s side) url(path string) string { return "http://" + s.gw.Addr + path }

// counted adds up the requests that were ended for one of reasons.
func (s side) counted(t *testing.T, reasons []string) (sum float64) {
	t.Helper()
	for _, reason := range reasons {
		sum += s.gw.Metric(t, "gateway_refusals_total", `reason="`+reason+`"`)
	}
	return sum
}

// cutsOff waits until that many requests were ended for one of reasons and as
// many connections are gone, and reports whether they were in time.
func (s side) cutsOff(t *testing.T, reasons []string, want float64) bool {
	t.Helper()
	for deadline := time.Now().Add(50 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if s.counted(t, reasons) >= want && s.gw.Metric(t, "gateway_connections") < many/4 {
			return true
		}
	}
	return false
}

// latencies are those of the honest requests to one URL; failed is the first
// failure.
type latencies struct {
	all    []time.Duration
	failed error
}

func (l latencies) p99() time.Duration {
	if len(l.all) == 0 {
		return 0
	}
	slices.Sort(l.all)
	return l.all[len(l.all)*99/100]
}

// call is callUntil for d.
func call(t *testing.T, d time.Duration, urls ...string) []latencies {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return callUntil(ctx, urls...)
}

// callUntil calls each URL steadily until ctx ends: four clients with a request
// every 20 ms, one of them on a new connection each time.
func callUntil(ctx context.Context, urls ...string) []latencies {
	const clients, every = 4, 20 * time.Millisecond
	result := make([]latencies, len(urls))
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	for i, url := range urls {
		for n := range clients {
			wg.Go(func() {
				client := &http.Client{Timeout: rig.Patience, Transport: &http.Transport{DisableKeepAlives: n == 0}}
				defer client.CloseIdleConnections()
				tick := time.NewTicker(every)
				defer tick.Stop()
				for {
					select {
					case <-ctx.Done():
						return
					case <-tick.C:
					}
					took, err := get(client, url)
					mu.Lock()
					result[i].all = append(result[i].all, took)
					if err != nil && result[i].failed == nil {
						result[i].failed = err
					}
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	return result
}

func get(client *http.Client, url string) (time.Duration, error) {
	began := time.Now()
	resp, err := client.Get(url)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || string(content) != "ok") {
		err = fmt.Errorf("%d %q", resp.StatusCode, content)
	}
	return time.Since(began), err
}
