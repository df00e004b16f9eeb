package authbench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// signature is the processor time of one ES256 signature on the servers' core
// now: what else a server costs is told as a multiple of it, which depends
// less on the machine and on who else uses it.
func signature() (cost time.Duration, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return 0, err
	}
	content := make([]byte, 500) // as long as a token's
	err = onServersCore(func() error {
		const n = 1000
		begin := threadTime()
		for range n {
			digest := sha256.Sum256(content)
			if _, err := ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
				return err
			}
		}
		cost = (threadTime() - begin) / n
		return nil
	})
	return cost, err
}

func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // every kernel has it
	return time.Duration(t.Nano())
}

// onServersCore runs f on the last core, if there is more than one.
func onServersCore(f func() error) error {
	last := runtime.NumCPU() - 1
	if last == 0 {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	one.Set(last)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return err
	}
	err := f()
	if e := unix.SchedSetaffinity(0, &before); err == nil {
		err = e
	}
	return err
}

func table(rows []*row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s · %s, %d cores · %s · each server on one core, PostgreSQL 15 (fsync off) and the load on another · median of %d rounds, %d callers\n\n",
		time.Now().UTC().Format("2006-01-02"), processor(), runtime.NumCPU(), runtime.Version(), len(rows[0].rounds), callers)
	b.WriteString("| endpoint | processor µs/request (min–max) | ÷ one ES256 signature | requests/s | p50 | p99 |\n| --- | ---: | ---: | ---: | ---: | ---: |\n")
	for _, r := range rows {
		costs := sorted(r.rounds, func(r result) float64 { return float64(r.cost) / 1e3 })
		fmt.Fprintf(&b, "| %s | %.1f (%.1f–%.1f) | %.2f | %.0f | %.2f ms | %.2f ms |\n", r.title,
			middle(costs), costs[0], costs[len(costs)-1],
			middle(sorted(r.rounds, func(r result) float64 { return float64(r.cost) / float64(r.sign) })),
			middle(sorted(r.rounds, func(r result) float64 { return r.rate })),
			middle(sorted(r.rounds, func(r result) float64 { return r.p50.Seconds() * 1e3 })),
			middle(sorted(r.rounds, func(r result) float64 { return r.p99.Seconds() * 1e3 })))
	}
	signs := []float64{}
	for _, r := range rows {
		for _, round := range r.rounds {
			signs = append(signs, float64(round.sign)/1e3)
		}
	}
	slices.Sort(signs)
	fmt.Fprintf(&b, "\nOne ES256 signature: %.1f µs (%.1f–%.1f).\n", middle(signs), signs[0], signs[len(signs)-1])
	return b.String()
}

// processor is the machine's, as the kernel names it.
func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func sorted(of []result, figure func(result) float64) []float64 {
	var all []float64
	for _, r := range of {
		all = append(all, figure(r))
	}
	slices.Sort(all)
	return all
}

func middle(sorted []float64) float64 { return sorted[len(sorted)/2] }
