package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tree returns pid and all its descendants.
func tree(pid int) ([]int, error) {
	parents := map[int][]int{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it ended meanwhile
		}
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			return nil, err
		}
		// The name in parentheses may hold anything; state and parent follow the last one.
		rest := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(rest) < 2 {
			continue
		}
		parent, err := strconv.Atoi(rest[1])
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		parents[parent] = append(parents[parent], child)
	}
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, parents[pids[i]]...)
	}
	return pids, nil
}

// processorTime is the time that the processes have run, in user and kernel
// mode, over all their threads, ended ones too. It is the kernel's nanosecond
// account (the process clock of clock_getcpuclockid), not one of ticks.
func processorTime(pids []int) (time.Duration, error) {
	const scheduler = 2 // CPUCLOCK_SCHED of a whole process
	var sum time.Duration
	for _, pid := range pids {
		var t unix.Timespec
		if err := unix.ClockGettime(int32(^pid<<3|scheduler), &t); err != nil {
			return 0, fmt.Errorf("reading the processor clock of process %d: %w", pid, err)
		}
		sum += time.Duration(t.Nano())
	}
	return sum, nil
}

// threadTime is the time that the calling thread has run.
func threadTime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0, fmt.Errorf("reading the thread's clock: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

// ownTime is the processor time of this process.
func ownTime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0, fmt.Errorf("reading the process's clock: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

// stolen is the time that the host has withheld from a core of this virtual
// machine, or from all of them (core < 0). The processor clocks leave it out.
func stolen(core int) (time.Duration, error) {
	name := "cpu"
	if core >= 0 {
		name += strconv.Itoa(core)
	}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("reading the stolen time: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 8 && words[0] == name {
			ticks, err := strconv.Atoi(words[8])
			return time.Duration(ticks) * (time.Second / 100), err // USER_HZ is 100 on every platform of ours
		}
	}
	return 0, fmt.Errorf("no line %q in /proc/stat", name)
}

// memory is the proportional set size of the processes in bytes: a page that
// two of them share counts once.
func memory(pids []int) (int, error) {
	sum := 0
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, fmt.Errorf("reading the memory of a proxy: %w", err)
		}
		kib, err := field(string(text), "Pss:")
		if err != nil {
			return 0, err
		}
		sum += kib << 10
	}
	return sum, nil
}

// field returns the number after a name in a file of lines "name number …".
func field(text, name string) (int, error) {
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == name {
			return strconv.Atoi(words[1])
		}
	}
	return 0, fmt.Errorf("no line %q", name)
}

// cores says where things run. Unpinned, everything may run everywhere.
type cores struct {
	pinned      bool
	proxy, load int
	allowed     unix.CPUSet
}

// chooseCores takes the last allowed core for the proxies and the first, which
// more often serves interrupts, for all else.
func chooseCores(free bool) (cores, error) {
	var c cores
	if err := unix.SchedGetaffinity(0, &c.allowed); err != nil {
		return c, fmt.Errorf("reading the allowed cores: %w", err)
	}
	if free || c.allowed.Count() < 2 {
		return c, nil
	}
	c.pinned, c.load = true, -1
	for cpu, left := 0, c.allowed.Count(); left > 0; cpu++ {
		if c.allowed.IsSet(cpu) {
			left--
			c.proxy = cpu
			if c.load < 0 {
				c.load = cpu
			}
		}
	}
	return c, nil
}

// pin puts every thread of this process on one core, new threads inherit it;
// without pinning it does nothing.
func (c cores) pin() error {
	if !c.pinned {
		return nil
	}
	var set unix.CPUSet
	set.Set(c.load)
	return affinity(&set)
}

// unpin takes pin back.
func (c cores) unpin() error {
	if !c.pinned {
		return nil
	}
	return affinity(&c.allowed)
}

// affinity sets that of all threads; twice, because a thread that the first
// pass did not list yet may descend from one that it had not reached.
func affinity(set *unix.CPUSet) error {
	for range 2 {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("listing threads: %w", err)
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				return err
			}
			if err := unix.SchedSetaffinity(tid, set); err != nil && err != unix.ESRCH {
				return fmt.Errorf("pinning a thread: %w", err)
			}
		}
	}
	return nil
}
