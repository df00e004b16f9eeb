package ratelimit

import (
	"time"

	"github.com/gatehouse/gatehouse/routes"
)

// Slack is by how much leases may miss a limit: min(rate·life, nodes·most +
// rate·patience).
func Slack(p *Plugin, rl *routes.RateLimit, nodes int) float64 {
	pol, err := p.compile(rl, "", "")
	if err != nil {
		panic(err)
	}
	life, most, capped := pol.lease(int64(nodes))
	slack := time.Duration(life).Seconds() * 1e6 / float64(pol.limit.Interval)
	if capped {
		slack = min(slack, float64(int64(nodes)*most)+patience.Seconds()*1e6/float64(pol.limit.Interval))
	}
	return slack
}
