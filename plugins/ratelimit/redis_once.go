package ratelimit

import (
	"context"
	"fmt"
	"time"
)

// Once records key for life in Redis and reports whether it was new there: one
// SET that only the first caller of all replicas can make. It is not about
// limits, but shares their connections and how failures of them are healed. An
// answer that got lost counts as an error, never as fresh.
func (r *Redis) Once(ctx context.Context, key string, life time.Duration) (fresh bool, err error) {
	client := r.client.Load()
	fresh, err = client.SetNX(ctx, key, 1, life).Result()
	if err != nil {
		if unfit(err) {
			r.reconnect(client)
		}
		return false, fmt.Errorf("record in redis: %w", err)
	}
	return fresh, nil
}
