package ratelimit

import (
	"time"

	"github.com/gatehouse/gatehouse/routes"
)

// LeaseBounds tells the life and the most tokens of a limit's leases.
func LeaseBounds(p *Plugin, rl *routes.RateLimit) (life time.Duration, most int64) {
	pol, err := p.compile(rl, "", "")
	if err != nil {
		panic(err)
	}
	return time.Duration(pol.life), pol.most
}
