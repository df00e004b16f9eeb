package main

import (
	"fmt"

	"github.com/gatehouse/gatehouse/authserver/grants"
	"github.com/gatehouse/gatehouse/plugins/ratelimit"
	"github.com/gatehouse/gatehouse/routes"
)

// limits are counted by one limiter for routes and for the token endpoint.
type limits struct {
	limiter *ratelimit.Plugin
	redis   *ratelimit.Redis // nil: this process counts for itself
}

func newLimits(file *routes.File) (*limits, error) {
	l := &limits{}
	config := ratelimit.Config{}
	if url := file.Redis.Reveal(); url != "" {
		var err error
		if l.redis, err = ratelimit.NewRedis(url); err != nil {
			return nil, fmt.Errorf("redis: %w", err)
		}
		config.Store = l.redis
	}
	l.limiter = ratelimit.New(config)
	return l, nil
}

func (l *limits) close() {
	if l.redis != nil {
		_ = l.redis.Close()
	}
}

// tokens are the limits of the token endpoint.
func (l *limits) tokens(t routes.TokenLimits) (g grants.Limits, err error) {
	for name, one := range map[string]struct {
		limit routes.TokenLimit
		to    *grants.Limiter
	}{"address": {t.Address, &g.Address}, "client": {t.Client, &g.Client}, "user": {t.User, &g.Subject}} {
		if one.limit.Limit == 0 {
			continue
		}
		keyed, err := l.limiter.Keyed("token/"+name, routes.RateLimit{Limit: one.limit.Limit, Per: one.limit.Per, Burst: one.limit.Burst})
		if err != nil {
			return g, fmt.Errorf("token_limits: %s: %w", name, err)
		}
		*one.to = keyed
	}
	return g, nil
}
