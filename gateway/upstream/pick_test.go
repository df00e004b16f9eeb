package upstream

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse/gatehouse/discovery"
)

// fakeService has instances with these weights, which nobody calls, and a
// clock that the test moves.
func fakeService(t *testing.T, cfg Config, weights ...int) (svc *Service, clock *time.Time) {
	t.Helper()
	now := time.Unix(1_700_000_000, 0)
	svc = NewService(cfg, func() time.Time { return now })
	svc.Update(fakeEndpoints(weights...))
	return svc, &now
}

func fakeEndpoints(weights ...int) []discovery.Endpoint {
	var eps []discovery.Endpoint
	for i, w := range weights {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 80)
		eps = append(eps, discovery.Endpoint{ID: fmt.Sprint("i", i+1), Addr: addr, Weight: w})
	}
	return eps
}

// shares picks n times, each request done at once, and returns each
// instance's part by its number.
func shares(svc *Service, n int, key func(i int) uint64) map[uint64]float64 {
	got := map[uint64]float64{}
	for i := range n {
		inst := svc.Pick(key(i), 0)
		got[inst.Number()] += 1 / float64(n)
		inst.Done(Success)
	}
	return got
}

func TestSharesFollowTheWeights(t *testing.T) {
	const n = 100_000
	for _, b := range []Balance{P2C, RoundRobin, Hash} {
		for _, weights := range [][]int{{1}, {1, 1}, {1, 1, 1, 1, 1}, {1, 3}, {1, 2, 7}, {100, 1}} {
			svc, _ := fakeService(t, Config{Balance: b}, weights...)
			total := 0
			for _, w := range weights {
				total += w
			}
			got := shares(svc, n, func(i int) uint64 { return mix(uint64(i)) })
			for i, w := range weights {
				want := float64(w) / float64(total)
				if diff := math.Abs(got[uint64(i+1)] - want); diff > 0.01 {
					t.Errorf("balance %d, weights %v: instance %d has %.3f, want %.3f", b, weights, i+1, got[uint64(i+1)], want)
				}
			}
		}
	}
}

func TestP2CPrefersTheLessLoaded(t *testing.T) {
	for _, weights := range [][]int{{1, 1}, {1, 1, 1, 1}, {1, 4}} {
		svc, _ := fakeService(t, Config{}, weights...)
		total := 0
		for _, w := range weights {
			total += w
		}
		for range 100 * total { // nothing is ever done
			svc.Pick(0, 0)
		}
		for i, st := range svc.Status().Instances {
			want := 100 * weights[i]
			if st.InFlight < want*8/10 || st.InFlight > want*12/10 {
				t.Errorf("weights %v: instance %d has %d in flight, want about %d", weights, i, st.InFlight, want)
			}
		}
	}
}

func TestRoundRobinTakesTurns(t *testing.T) {
	svc, _ := fakeService(t, Config{Balance: RoundRobin}, 1, 1, 1)
	for i := range 9 {
		inst := svc.Pick(0, 0)
		if inst.Number() != uint64(i%3+1) {
			t.Errorf("turn %d: instance %d", i, inst.Number())
		}
		inst.Done(Success)
	}
}

func TestHashKeepsKeysInPlace(t *testing.T) {
	svc, _ := fakeService(t, Config{Balance: Hash}, 1, 1, 1, 1)
	where := func(key uint64) uint64 {
		inst := svc.Pick(key, 0)
		defer inst.Done(Success)
		return inst.Number()
	}
	before := map[uint64]uint64{}
	for key := range uint64(1000) {
		before[key] = where(key)
	}
	svc.Update(fakeEndpoints(1, 1, 1)) // the fourth left
	moved := 0
	for key, was := range before {
		if now := where(key); was != 4 && now != was {
			t.Fatalf("key %d moved from %d to %d without need", key, was, now)
		} else if was == 4 {
			moved++
		}
	}
	if moved < 150 || moved > 350 {
		t.Errorf("%d of 1000 keys were on one of four", moved)
	}
}

func TestFailedInstanceIsAvoided(t *testing.T) {
	for _, b := range []Balance{P2C, RoundRobin, Hash} {
		for _, weights := range [][]int{{1, 1}, {1, 9}, {1, 1, 1}, {5, 1, 1}} {
			svc, _ := fakeService(t, Config{Balance: b}, weights...)
			for i := range 300 {
				avoid := uint64(i%len(weights) + 1)
				inst := svc.Pick(uint64(i), avoid)
				if inst.Number() == avoid {
					t.Fatalf("balance %d, weights %v: picked the one to avoid", b, weights)
				}
				inst.Done(Success)
			}
		}
		svc, _ := fakeService(t, Config{Balance: b}, 1)
		if inst := svc.Pick(0, 1); inst == nil || inst.Number() != 1 {
			t.Error("the only instance is not used")
		}
	}
	svc, _ := fakeService(t, Config{})
	if svc.Pick(0, 0) != nil {
		t.Error("an instance out of nothing")
	}
}

// fail lets the instance fail n times.
func fail(inst *Instance, n int) {
	for range n {
		inst.load.Add(onePick)
		inst.Done(Failure)
	}
}

func succeed(inst *Instance, n int) {
	for range n {
		inst.load.Add(onePick)
		inst.Done(Success)
	}
}

func none(int) uint64 { return 0 }

func TestConsecutiveFailuresEject(t *testing.T) {
	svc, _ := fakeService(t, Config{}, 1, 1, 1)
	bad := svc.instances[0]
	fail(bad, 4)
	succeed(bad, 1)
	fail(bad, 4)
	if got := shares(svc, 1000, none); got[1] == 0 {
		t.Fatal("ejected after four in a row")
	}
	fail(bad, 5)
	if got := shares(svc, 1000, none); got[1] != 0 {
		t.Errorf("an ejected instance has a share of %.2f", got[1])
	}
	if st := svc.Status().Instances[0]; st.Share != 0 || st.Ejections != 1 || st.Failures != 13 || st.EjectedUntil.IsZero() {
		t.Errorf("status %+v", st)
	}
}

func TestNeutralOutcomesSayNothing(t *testing.T) {
	svc, _ := fakeService(t, Config{}, 1, 1)
	bad := svc.instances[0]
	fail(bad, 4)
	for range 50 {
		bad.load.Add(onePick)
		bad.Done(Neutral)
	}
	if bad.health.phase.Load() != healthy {
		t.Fatal("ejected by neutral outcomes")
	}
	fail(bad, 1)
	if bad.inFlight() != 0 || bad.health.phase.Load() != ejected {
		t.Error("neutral outcomes broke the streak")
	}
}

func TestFailureRateEjects(t *testing.T) {
	svc, clock := fakeService(t, Config{}, 1, 1, 1)
	bad, good := svc.instances[0], svc.instances[1]
	for range 6 {
		for range 2 {
			fail(bad, 1)
			succeed(bad, 1)
			fail(good, 1)
			succeed(good, 2)
		}
		*clock = clock.Add(time.Second)
		svc.tick(*clock)
	}
	if got := shares(svc, 3000, none); got[1] != 0 || got[2] < 0.3 {
		t.Errorf("shares %v: the first failed every second time, the second every third", got)
	}
}

func TestAtMostHalfIsEjected(t *testing.T) {
	for n, most := range map[int]int{1: 0, 2: 1, 3: 1, 4: 2, 5: 2} {
		weights := make([]int, n)
		svc, _ := fakeService(t, Config{}, weights...)
		for _, inst := range svc.instances {
			fail(inst, 7)
		}
		if usable := len(shares(svc, 2000, none)); usable != n-most {
			t.Errorf("of %d all fail: %d are used, want %d", n, usable, n-most)
		}
	}
}

// One life of a failing instance: out, on probation, out for longer, back by
// and by.
func TestEjectedInstanceReturnsSlowly(t *testing.T) {
	svc, clock := fakeService(t, Config{}, 1, 1)
	bad := svc.instances[0]
	step := func(d time.Duration) {
		for end := clock.Add(d); clock.Before(end); {
			*clock = clock.Add(min(time.Second, end.Sub(*clock)))
			svc.tick(*clock)
		}
	}
	share := func() float64 {
		return float64(bad.health.shareLocked(*clock)) / fullShare
	}
	fail(bad, 5)
	step(3900 * time.Millisecond)
	if share() != 0 {
		t.Fatal("back before 80 % of 5 s")
	}
	step(2200 * time.Millisecond)
	if share() != 0.1 {
		t.Fatalf("share on probation is %v", share())
	}
	fail(bad, 1)
	step(7900 * time.Millisecond)
	if share() != 0 {
		t.Fatal("the second ejection is no longer than the first")
	}
	step(4200 * time.Millisecond)
	if got := shares(svc, 20_000, none); math.Abs(got[1]-0.1/1.1) > 0.02 && got[1] < 0.09 {
		t.Errorf("share on probation is %.3f of the requests", got[1])
	}
	// These requests were good, so the slow start has begun.
	step(15 * time.Second)
	if share() < 0.45 || share() > 0.55 {
		t.Errorf("share in the middle of the slow start is %v", share())
	}
	step(16 * time.Second)
	if got := shares(svc, 20_000, none); math.Abs(got[1]-0.5) > 0.02 {
		t.Errorf("share after the slow start is %.3f", got[1])
	}
	step(3 * forgiveAfter)
	if n := svc.Status().Instances[0].Ejections; n != 0 {
		t.Errorf("%d ejections are not forgiven", n)
	}
}

func TestProbationBeginsAnew(t *testing.T) {
	svc, clock := fakeService(t, Config{}, 1, 1)
	bad := svc.instances[0]
	pass := func() {
		*clock = bad.health.until
		svc.tick(*clock)
	}
	fail(bad, 30) // by their rate, these eject too
	pass()
	*clock = clock.Add(time.Second)
	svc.tick(*clock)
	if bad.health.phase.Load() != probation {
		t.Fatal("ejected again for the same failures")
	}
	succeed(bad, 2)
	fail(bad, 1)
	pass()
	succeed(bad, 2)
	if bad.health.phase.Load() != probation {
		t.Error("good requests of an earlier probation count")
	}
	succeed(bad, 1)
	if bad.health.phase.Load() != ramping {
		t.Error("three good requests do not end the probation")
	}
}

func TestEjectionIsBounded(t *testing.T) {
	svc, clock := fakeService(t, Config{}, 1, 1)
	bad := svc.instances[0]
	for range 100 {
		fail(bad, 5)
		until := bad.health.until
		if d := until.Sub(*clock); d > 360*time.Second || d < 4*time.Second {
			t.Fatalf("ejected for %v", d)
		}
		*clock = until
		svc.tick(*clock)
	}
}

func TestPanicUsesAllWhenTooFewAreLeft(t *testing.T) {
	svc, _ := fakeService(t, Config{}, 1, 1, 1, 1, 1)
	fail(svc.instances[0], 5)
	fail(svc.instances[1], 5)
	svc.Update(fakeEndpoints(1, 1, 1)) // two healthy ones leave: one of three is usable
	if got := shares(svc, 3000, none); len(got) != 3 || !svc.Status().Panic {
		t.Errorf("shares %v", got)
	}
}

func TestStatisticsSurviveAnUpdate(t *testing.T) {
	svc, _ := fakeService(t, Config{}, 1, 1, 1)
	fail(svc.instances[0], 5)
	svc.Update(fakeEndpoints(2, 1, 1, 1))
	if got := shares(svc, 1000, none); got[1] != 0 || got[4] == 0 {
		t.Errorf("shares %v", got)
	}
}

func TestRunReturnsTheEjectedAndEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := NewService(Config{}, time.Now)
		svc.Update(fakeEndpoints(1, 1))
		ctx, cancel := context.WithCancel(t.Context())
		end := make(chan error)
		go func() { end <- svc.Run(ctx) }()
		fail(svc.instances[0], 5)
		time.Sleep(3 * time.Second)
		if len(shares(svc, 100, none)) != 1 {
			t.Error("not ejected")
		}
		time.Sleep(4 * time.Second)
		if len(shares(svc, 1000, none)) != 2 {
			t.Error("did not return")
		}
		cancel()
		if err := <-end; err != context.Canceled {
			t.Error(err)
		}
	})
}
