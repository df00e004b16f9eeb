package server

import (
	"time"

	"github.com/gatehouse/gatehouse/gateway/pace"
)

// guard bounds how long a multiplexed stream waits for its client. Deadlines of
// the frame layers do not fit: they end a stream that nobody waits for too, and
// one that has passed is final.
type guard struct {
	now    func() time.Time
	rule   pace.Rule
	meter  pace.Meter
	expire func() // ends the wait with an error
	timer  *time.Timer
}

func newGuard(now func() time.Time, rule pace.Rule, expire func()) guard {
	return guard{now: now, rule: rule, meter: rule.Begin(), expire: expire}
}

// wait runs move, which waits for the client, as long as it may take for n bytes
// (0: any), and returns how many were moved. late tells that it took longer, and
// slow that this was too slow rather than silent.
func (g *guard) wait(n int, move func() (int, error)) (moved int, late, slow bool, err error) {
	slow = g.rule.Short(g.meter)
	patience, began := g.rule.Patience(g.meter, n), g.now()
	if g.timer == nil {
		g.timer = time.AfterFunc(patience, g.expire)
	} else {
		g.timer.Reset(patience)
	}
	moved, err = move()
	late = !g.timer.Stop()
	g.meter.Waited(&g.rule, int64(moved), g.now().Sub(began))
	return moved, late, slow && late, err
}
