package ratelimit

import (
	"time"

	"github.com/gatehouse/gatehouse/routes"
)

// Keyed is one limit for callers that are no exchange's: whoever asks names
// them. It shares the store, and so the count, with the replicas.
type Keyed struct {
	plugin *Plugin
	policy *policy
}

// Keyed returns the limit called name; what its By says does not count.
func (p *Plugin) Keyed(name string, rl routes.RateLimit) (*Keyed, error) {
	rl.By = "client"
	pol, err := p.compile(&rl, "keyed/"+name, name)
	if err != nil {
		return nil, err
	}
	return &Keyed{p, pol}, nil
}

// Take counts a request of key and returns how long key has to wait where that
// is one too many; 0: it is not.
func (k *Keyed) Take(key string) time.Duration {
	var deadline int64
	d := k.plugin.take(k.policy, &subject{kind: byClient, value: key}, &deadline)
	if d.verdict == allowed {
		return 0
	}
	return max(time.Duration(d.retry), time.Millisecond)
}
