package upstream

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// The rules of ejection (docs/reliability): what ejects an instance, for how
// long, and how it comes back.
const (
	ejectStreak  = 5 // consecutive failures
	ejectMinimum = 20
	ejectWindow  = 10 // samples, one a second: half of ejectMinimum failed
	ejectFor     = 5 * time.Second
	ejectMost    = 300 * time.Second
	ejectJitter  = 0.2

	// probesNeeded good requests end the probation; then slowStart begins.
	probesNeeded = 3
	slowStart    = 30 * time.Second
	fullShare    = 100
	firstShare   = 10
	// forgiveAfter is how long a good instance waits until one earlier
	// ejection no longer lengthens the next.
	forgiveAfter = 60 * time.Second

	tickEvery = time.Second
)

// Phases of an instance.
const (
	healthy uint32 = iota
	// ejected: no requests until health.until.
	ejected
	// probation: a first share of requests; one failure ejects again.
	probation
	// ramping: the share grows with time.
	ramping
)

// health is what is known about an instance's conduct. phase and streak are
// read on the request path; the rest is guarded by Service.mu, which is taken
// only when the phase is about to change.
type health struct {
	phase  atomic.Uint32
	streak atomic.Uint32

	ejections int
	probes    int
	until     time.Time // end of the ejection
	since     time.Time // begin of the ramp, or of the good conduct
	samples   [ejectWindow]sample
	next      int
}

// sample is a reading of an instance's counters.
type sample struct{ requests, failures uint32 }

// shareLocked is the part of its weight that the instance gets, in hundredths.
func (h *health) shareLocked(now time.Time) uint64 {
	switch h.phase.Load() {
	case ejected:
		return 0
	case probation:
		return firstShare
	case ramping:
		grown := int64(fullShare) * int64(now.Sub(h.since)) / int64(slowStart)
		return uint64(min(max(grown, firstShare), fullShare))
	}
	return fullShare
}

// eject is called when inst failed often enough.
func (s *Service) eject(inst *Instance) {
	now := s.now()
	s.mu.Lock()
	done := s.ejectLocked(inst, now)
	s.mu.Unlock()
	if done {
		// Run has to learn the new end of an ejection.
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// ejectLocked ejects inst unless that would leave too few: at most half of
// the instances are ejected at a time.
func (s *Service) ejectLocked(inst *Instance, now time.Time) bool {
	h := &inst.health
	count := 1
	member := false
	for _, other := range s.instances {
		member = member || other == inst
		if other.health.phase.Load() == ejected {
			count++
		}
	}
	if !member || h.phase.Load() == ejected || 2*count > len(s.instances) {
		return false
	}
	h.ejections++
	base := min(ejectFor*time.Duration(min(h.ejections, int(ejectMost/ejectFor))), ejectMost)
	h.until = now.Add(time.Duration(float64(base) * (1 - ejectJitter + 2*ejectJitter*rand.Float64())))
	h.phase.Store(ejected)
	s.publishLocked(now)
	return true
}

// probed counts a good request of an instance on probation.
func (s *Service) probed(inst *Instance) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &inst.health
	if h.phase.Load() != probation {
		return
	}
	if h.probes++; h.probes == probesNeeded {
		h.since = now
		h.phase.Store(ramping)
		s.publishLocked(now)
	}
}

// judgeLocked moves every instance to the phase that is due and returns the
// time until something may be due again.
func (s *Service) judgeLocked(now time.Time) time.Duration {
	wait := tickEvery
	sampling := now.Sub(s.lastSample) >= tickEvery*9/10
	if sampling {
		s.lastSample = now
	}
	changed := false
	for _, inst := range s.instances {
		h := &inst.health
		if sampling && inst.sampleLocked() && h.phase.Load() != ejected {
			s.ejectLocked(inst, now)
		}
		switch h.phase.Load() {
		case ejected:
			if left := h.until.Sub(now); left > 0 {
				wait = min(wait, left)
				break
			}
			h.probes = 0
			inst.resetSamplesLocked()
			h.phase.Store(probation)
			changed = true
		case ramping:
			changed = true
			if now.Sub(h.since) >= slowStart {
				h.since = now
				h.phase.Store(healthy)
			}
		case healthy:
			if h.ejections > 0 && now.Sub(h.since) >= forgiveAfter {
				h.since = now
				h.ejections--
			}
		}
	}
	if changed {
		s.publishLocked(now)
	}
	return wait
}

// sampleLocked notes the counters and reports whether at least half of enough
// requests of the window failed.
func (i *Instance) sampleLocked() bool {
	h := &i.health
	now := i.reading()
	then := h.samples[h.next]
	h.samples[h.next] = now
	h.next = (h.next + 1) % ejectWindow
	requests, failures := now.requests-then.requests, now.failures-then.failures
	return requests >= ejectMinimum && 2*failures >= requests
}

// resetSamplesLocked begins a new window.
func (i *Instance) resetSamplesLocked() {
	now := i.reading()
	for j := range i.health.samples {
		i.health.samples[j] = now
	}
}

// reading has the finished requests: those in flight are no verdict yet.
func (i *Instance) reading() sample {
	return sample{i.requests() - uint32(i.inFlight()), uint32(i.failures.Load())}
}
