package upstream

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"sort"
	"time"
)

// view is what Pick needs, immutable: a Pick is one atomic load and no look at
// any instance's health.
type view struct {
	slots []slot
	total uint64
	even  bool // all weights are equal
	panic bool
}

// slot is a usable instance. weight is in hundredths because of the slow
// start; upto is the sum of the weights up to and with this one.
type slot struct {
	inst         *Instance
	weight, upto uint64
}

// publishLocked makes a new view from the instances and their health.
func (s *Service) publishLocked(now time.Time) {
	v := &view{even: true}
	for _, inst := range s.instances {
		if share := inst.health.shareLocked(now); share > 0 {
			v.add(inst, share)
		}
	}
	// So few may only be left when the healthy ones were deregistered: then
	// the judgement about the rest is worth less than their capacity.
	if 2*len(v.slots) < len(s.instances) {
		v = &view{even: true, panic: true}
		for _, inst := range s.instances {
			v.add(inst, fullShare)
		}
	}
	s.view.Store(v)
}

func (v *view) add(inst *Instance, share uint64) {
	weight := uint64(inst.weight) * share
	if len(v.slots) > 0 && weight != v.slots[0].weight {
		v.even = false
	}
	v.total += weight
	v.slots = append(v.slots, slot{inst, weight, v.total})
}

// Pick chooses an instance for one request and counts the request as in
// flight, so Done must follow. key matters to Hash only. avoid is the Number
// of an instance that just failed (0: none): it is chosen only if there is no
// other. nil means that the service has no instances.
func (s *Service) Pick(key, avoid uint64) *Instance {
	v := s.view.Load()
	n := len(v.slots)
	if n == 0 {
		return nil
	}
	i := 0
	if n > 1 {
		switch s.cfg.Balance {
		case RoundRobin:
			i = v.turn(s.turns.Add(1) - 1)
		case Hash:
			i = v.owner(key, avoid)
		default:
			i = v.lessLoaded(rand.Uint64(), avoid)
		}
		if avoid != 0 && v.slots[i].inst.number == avoid {
			i = (i + 1) % n
		}
	}
	inst := v.slots[i].inst
	inst.load.Add(onePick)
	return inst
}

// lessLoaded draws two slots by weight and returns the one with fewer requests
// in flight per weight. On a tie the first drawn wins, so that shares follow
// the weights when nothing is loaded.
func (v *view) lessLoaded(random, avoid uint64) int {
	n := uint64(len(v.slots))
	var a, b int
	if v.even {
		// Without replacement.
		a = int((random >> 32) * n >> 32)
		b = int((random & math.MaxUint32) * (n - 1) >> 32)
		if b >= a {
			b++
		}
	} else {
		a, b = v.draw(random), v.draw(random*0x9E3779B97F4A7C15^random>>29)
	}
	sa, sb := &v.slots[a], &v.slots[b]
	switch avoid {
	case sa.inst.number:
		return b
	case sb.inst.number:
		return a
	}
	if uint64(sa.inst.inFlight())*sb.weight <= uint64(sb.inst.inFlight())*sa.weight {
		return a
	}
	return b
}

// draw maps the range of x onto the slots in proportion to their weights.
func (v *view) draw(x uint64) int {
	point, _ := bits.Mul64(x, v.total)
	return sort.Search(len(v.slots)-1, func(i int) bool { return v.slots[i].upto > point })
}

// turn is the slot of the nth request. Multiples of the golden ratio fill an
// interval evenly, so every prefix of the sequence is close to the weights.
func (v *view) turn(n uint64) int {
	if v.even {
		return int(n % uint64(len(v.slots)))
	}
	return v.draw(n * 0x9E3779B97F4A7C15)
}

// owner is the slot with the highest weighted rendezvous score for key, other
// than the one to avoid.
func (v *view) owner(key, avoid uint64) int {
	best, top := 0, math.Inf(-1)
	for i := range v.slots {
		if v.slots[i].inst.number == avoid {
			continue
		}
		u := (float64(mix(key^v.slots[i].inst.seed)>>11) + 0.5) / (1 << 53)
		if score := -float64(v.slots[i].weight) / math.Log(u); score > top {
			best, top = i, score
		}
	}
	return best
}

// mix spreads every bit of x over the result (the finaliser of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
