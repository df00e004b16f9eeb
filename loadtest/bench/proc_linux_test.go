package main

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// burn runs for some processor time.
func burn(t *testing.T, d time.Duration) {
	t.Helper()
	begin, err := threadTime()
	for now := begin; err == nil && now-begin < d; now, err = threadTime() {
	}
	if err != nil {
		t.Error(err)
	}
}

func TestProcessorTimeCountsEndedThreads(t *testing.T) {
	const spent = 60 * time.Millisecond
	self := []int{os.Getpid()}
	before, err := processorTime(self)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		burn(t, spent)
	}()
	<-done
	after, err := processorTime(self)
	if err != nil {
		t.Fatal(err)
	}
	if got := after - before; got < spent {
		t.Errorf("counted %v, a thread alone ran %v", got, spent)
	}
	// The account in ticks, which getrusage gives, must tell about the same.
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	ticks := time.Duration(u.Utime.Nano() + u.Stime.Nano())
	if d := ticks - after; d < -100*time.Millisecond || d > 100*time.Millisecond {
		t.Errorf("processor clock %v, resource usage %v", after, ticks)
	}
	if _, err := processorTime([]int{1 << 22}); err == nil {
		t.Error("a process that is not there has a clock")
	}
}

func TestMemoryAndStolenTimeAreReadable(t *testing.T) {
	if m, err := memory([]int{os.Getpid()}); err != nil || m < 1<<20 {
		t.Errorf("memory %d, %v", m, err)
	}
	if d, err := stolen(-1); err != nil || d < 0 {
		t.Errorf("stolen %v, %v", d, err)
	}
	if _, err := stolen(1 << 20); err == nil {
		t.Error("a core that is not there loses no time")
	}
}

func TestStopEndsTheWholeGroup(t *testing.T) {
	// The shell ignores SIGTERM, and so does what it starts.
	c, err := start(t.TempDir(), "stubborn", -1, nil, "/bin/sh", "-c", "trap '' TERM; sleep 60 & sleep 60")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	err = c.until(t.Context(), "start its children", func() (err error) {
		if pids, err = tree(c.cmd.Process.Pid); err == nil && len(pids) < 3 {
			err = errors.New("too few")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	c.stop()
	for _, pid := range pids {
		deadline := time.Now().Add(time.Minute)
		for running(pid) && time.Now().Before(deadline) {
			runtime.Gosched()
		}
		if running(pid) {
			t.Errorf("process %d still runs", pid)
		}
	}
}

// running tells a live process from one that is gone or only not waited for.
func running(pid int) bool {
	stat, err := os.ReadFile("/proc/" + commas([]int{pid}) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestStartRunsTheChildOnItsCore(t *testing.T) {
	all, err := chooseCores(true)
	if err != nil {
		t.Fatal(err)
	}
	c, err := chooseCores(false)
	if err != nil {
		t.Fatal(err)
	}
	if !c.pinned {
		t.Skip("only one core is allowed")
	}
	dir := t.TempDir()
	kid, err := start(dir, "mask", c.proxy, []string{"WORD=heard"}, "/bin/sh", "-c", "grep Cpus_allowed_list /proc/self/status; echo $WORD; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	<-kid.ended
	failure := kid.alive()
	if failure == nil || !strings.Contains(failure.Error(), "Cpus_allowed_list:\t"+commas([]int{c.proxy})+"\nheard") {
		t.Errorf("got %v", failure)
	}
	if err := kid.listens(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "mask ended (exit status 3)") {
		t.Errorf("got %v", err)
	}
	var now unix.CPUSet
	if err := unix.SchedGetaffinity(0, &now); err != nil || now != all.allowed {
		t.Errorf("the thread that started it stays on %v, %v", now, err)
	}
	kid.stop() // one that has ended is no trouble
}

func TestPinAndUnpin(t *testing.T) {
	c, err := chooseCores(false)
	if err != nil {
		t.Fatal(err)
	}
	if !c.pinned {
		t.Skip("only one core is allowed")
	}
	if c.load == c.proxy {
		t.Fatalf("load and proxy share core %d", c.load)
	}
	check := func(want int) {
		t.Helper()
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(syscall.Gettid(), &set); err != nil || set.Count() != want {
			t.Errorf("%d cores are allowed, want %d (%v)", set.Count(), want, err)
		}
	}
	if err := c.pin(); err != nil {
		t.Error(err)
	}
	check(1)
	if err := c.unpin(); err != nil {
		t.Error(err)
	}
	check(c.allowed.Count())
}

func TestFreePortsDiffer(t *testing.T) {
	ports, err := freePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ports)
	if len(slices.Compact(ports)) != 20 {
		t.Error(ports)
	}
}
