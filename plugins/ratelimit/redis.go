package ratelimit

import (
	"context"
	_ "embed" // the scripts
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

//go:embed redis.lua
var askScript string

//go:embed redis_heartbeat.lua
var heartbeatScript string

const (
	replicasKey = "rl:replicas"
	// replicaLife is how long a replica counts after its last heartbeat.
	replicaLife = 5 * heartbeatEvery
	// reconnectEvery bounds how often all connections are thrown away.
	reconnectEvery = time.Second
)

// Redis is the Store of replicas that share a Redis server. One Ask is one
// round trip, however many buckets it is for.
type Redis struct {
	connect   func() *redis.Client
	ask       *redis.Script
	heartbeat *redis.Script
	batches   sync.Pool // of *redisBatch

	client atomic.Pointer[redis.Client]
	mu     sync.Mutex // guards last and the change of client
	last   time.Time
}

// NewRedis returns the store at a URL: redis://, rediss:// (TLS) or
// redis+sentinel://host:port,host:port/MASTER/DB. It does not dial. Close it
// after the Plugin's Run has returned.
func NewRedis(url string) (*Redis, error) {
	connect, err := redisClient(url)
	if err != nil {
		return nil, err
	}
	// go-redis prints every failed dial to standard error, hundreds a second
	// while a server is away. All that it prints also comes back as an error.
	logging.Disable()
	r := &Redis{
		connect:   connect,
		ask:       redis.NewScript(askScript),
		heartbeat: redis.NewScript(heartbeatScript),
	}
	r.batches.New = func() any { return &redisBatch{} }
	r.client.Store(connect())
	return r, nil
}

// Close closes the connections.
func (r *Redis) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.client.Load().Close()
}

// redisBatch holds the commands of one call. Their arguments point into it, so
// a batch that is used again allocates little.
type redisBatch struct {
	slots []*redisSlot
	cmds  []redis.Cmder
}

type redisSlot struct {
	ask    StoreAsk
	lifeUS int64
	script string // a digest, or the whole text
	cmd    *redis.IntSliceCmd
}

func newRedisSlot() *redisSlot {
	s := &redisSlot{}
	a := &s.ask
	s.cmd = redis.NewIntSliceCmd(context.Background(), "evalsha", &s.script, 1, &a.Bucket,
		&a.Limit.Interval, &a.Limit.Burst, &a.Ask.Want, &a.Ask.Least, &a.Ask.Need, &a.Ask.Debt, &s.lifeUS, &a.Replica)
	return s
}

// set prepares the slot for a; whole sends the script's text instead of its
// digest.
func (s *redisSlot) set(a *StoreAsk, script string, whole bool) {
	s.ask, s.script, s.lifeUS = *a, script, a.Life.Microseconds()
	s.cmd.Args()[0] = "evalsha"
	if whole {
		s.cmd.Args()[0] = "eval"
	}
	s.cmd.SetErr(nil)
}

// Ask implements Store.
func (r *Redis) Ask(ctx context.Context, asks []StoreAsk) error {
	batch := r.batches.Get().(*redisBatch)
	defer r.batches.Put(batch)
	for len(batch.slots) < len(asks) {
		batch.slots = append(batch.slots, newRedisSlot())
	}
	if err := r.exec(ctx, batch, asks, false); err != nil {
		return err
	}
	// A restart or failover lost the script: nothing was debited for the asks
	// that say so, and they go again with its text.
	for i := range asks {
		if asks[i].Err != nil && redis.HasErrorPrefix(asks[i].Err, "NOSCRIPT") {
			return r.exec(ctx, batch, asks, true)
		}
	}
	return nil
}

// exec sends the asks, or with again those without a script, and fills them in.
func (r *Redis) exec(ctx context.Context, batch *redisBatch, asks []StoreAsk, again bool) error {
	client := r.client.Load()
	script := r.ask.Hash()
	if again {
		script = askScript
	}
	pipe := client.Pipeline()
	batch.cmds = batch.cmds[:0]
	for i := range asks {
		if again && !(asks[i].Err != nil && redis.HasErrorPrefix(asks[i].Err, "NOSCRIPT")) {
			continue
		}
		batch.slots[i].set(&asks[i], script, again)
		batch.cmds = append(batch.cmds, batch.slots[i].cmd)
	}
	if err := pipe.BatchProcess(ctx, batch.cmds...); err != nil {
		return err
	}
	_, err := pipe.Exec(ctx)
	if err != nil && !isReply(err) {
		return fmt.Errorf("ask redis: %w", err)
	}
	for i := range asks {
		if again && asks[i].Err == nil {
			continue
		}
		if err := batch.slots[i].answer(&asks[i]); unfit(err) {
			r.reconnect(client)
			return fmt.Errorf("ask redis: %w", err)
		}
	}
	return nil
}

// answer moves the slot's reply to a.
func (s *redisSlot) answer(a *StoreAsk) error {
	a.Err = s.cmd.Err()
	if a.Err != nil {
		return a.Err
	}
	v := s.cmd.Val()
	if len(v) != 6 || v[0] < 0 || v[0] > a.Ask.Want || v[1] < 0 || v[2] < 0 || v[3] < 0 {
		a.Err = errors.New("redis: the script's answer makes no sense")
		return a.Err
	}
	a.Grant = Grant{Tokens: v[0], Free: v[1], Retry: v[2], Reset: v[3]}
	return nil
}

// isReply tells an error that Redis answered from one of the connection.
func isReply(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) && !errors.Is(err, redis.Nil)
}

// unfit tells the replies of a server that takes no writes (now, or any more).
// A connection to a demoted master would stay so for ever.
func unfit(err error) bool {
	if err == nil {
		return false
	}
	for _, prefix := range []string{"READONLY", "LOADING", "NOREPLICAS", "MASTERDOWN", "OOM", "MISCONF", "NOAUTH", "WRONGPASS", "NOPERM"} {
		if strings.HasPrefix(err.Error(), prefix+" ") {
			return true
		}
	}
	return false
}

// reconnect replaces the client that proved unfit, so that the next call
// resolves and dials anew.
func (r *Redis) reconnect(unfit *redis.Client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client.Load() != unfit || time.Since(r.last) < reconnectEvery {
		return
	}
	r.last = time.Now()
	r.client.Store(r.connect())
	unfit.Close()
}

// Heartbeat implements Store.
func (r *Redis) Heartbeat(ctx context.Context, replica string) (int, error) {
	client := r.client.Load()
	n, err := r.heartbeat.Run(ctx, client, []string{replicasKey}, replica, replicaLife.Milliseconds()).Int()
	if err != nil {
		if unfit(err) {
			r.reconnect(client)
		}
		return 0, fmt.Errorf("heartbeat to redis: %w", err)
	}
	return n, nil
}
