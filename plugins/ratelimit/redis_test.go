package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse/gatehouse/loadtest/servers"
)

func TestRedisURLs(t *testing.T) {
	for url, want := range map[string]string{
		"redis://127.0.0.1:6379/0":                      "",
		"redis://localhost":                             "",
		"redis://[::1]:6379/3":                          "",
		"redis://user:p%40ss@10.0.0.1:6380/1":           "",
		"rediss://redis.example:6379":                   "",
		"redis+sentinel://10.0.0.1:26379,10.0.0.2/main": "",
		"redis+sentinel://:pw@s1:1,s2:2,s3/main/2":      "",
		"redis+sentinel://10.0.0.1:26379":               "name the master",
		"redis://10.0.0.1,10.0.0.2":                     "cluster",
		"redis+cluster://10.0.0.1":                      "cluster",
		"http://10.0.0.1":                               "unknown scheme",
		"10.0.0.1:6379":                                 "unknown scheme",
		"":                                              "unknown scheme",
		"redis://10.0.0.1/zero":                         "number of a database",
		"redis://10.0.0.1/-1":                           "number of a database",
		"redis://10.0.0.1:port":                         "not a port",
		"redis://10.0.0.1:70000":                        "not a port",
		"redis://10.0.0.1?read_timeout=5s":              "no options",
		"redis://u:hunter2%zz@10.0.0.1/":                "cannot be parsed",
	} {
		store, err := NewRedis(url)
		if store != nil {
			store.Close()
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: error %v, want %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error shows the password: %v", url, err)
		}
	}
}

// raw returns a store and a client of a Redis server of its own.
func raw(t *testing.T) (*Redis, *redis.Client) {
	t.Helper()
	addr := servers.Redis(t).Addr
	store, err := NewRedis("redis://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	// A loaded machine holds up Redis, too: what is tested here is not time.
	store.Close()
	store.connect = func() *redis.Client {
		return redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, PipelinePoolSize: -1})
	}
	store.client.Store(store.connect())
	client := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { store.Close(); client.Close() })
	return store, client
}

// TestScriptAgreesWithDecide runs the same calls through the script and through
// Decide, which gets the time and the number of active replicas that the script
// used.
func TestScriptAgreesWithDecide(t *testing.T) {
	_, client := raw(t)
	ctx := context.Background()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for bucket := range 60 {
		l := Limit{Interval: 1 + rnd.Int64N(5000), Burst: 1 + rnd.Int64N(200)}
		if bucket%10 == 0 {
			l = Limit{Interval: 1 + rnd.Int64N(1e9), Burst: 1 + rnd.Int64N(1e6)}
		}
		key := fmt.Sprintf("rl:{%x}:test", bucket)
		life := []int64{0, 500, 100_000}[bucket%3]
		asked := map[string]int64{}
		var tat int64
		for call := range 40 {
			a := Ask{Want: rnd.Int64N(l.Burst + 1), Debt: max(0, rnd.Int64N(12)-8)}
			a.Least = 1 + rnd.Int64N(max(1, a.Want))
			a.Need = max(0, rnd.Int64N(a.Want+4)-3)
			replica := fmt.Sprintf("%x", 10+rnd.IntN(4))
			v, err := client.Eval(ctx, askScript, []string{key},
				l.Interval, l.Burst, a.Want, a.Least, a.Need, a.Debt, life, replica).Int64Slice()
			if err != nil {
				t.Fatal(err)
			}
			now, active := v[4], v[5]
			if life > 0 {
				asked[replica] = now
				for id, at := range asked {
					if now-at >= life {
						delete(asked, id)
					}
				}
				if active != int64(len(asked)) {
					t.Fatalf("bucket %d call %d: %d replicas active, want %d", bucket, call, active, len(asked))
				}
				a.Active = active
			}
			var want Grant
			tat, want = Decide(l, tat, now, a)
			if got := (Grant{Tokens: v[0], Free: v[1], Retry: v[2], Reset: v[3]}); got != want {
				t.Fatalf("bucket %d call %d: %+v of %+v: script %+v, Decide %+v", bucket, call, a, l, got, want)
			}
			if call%7 == 0 {
				time.Sleep(time.Duration(rnd.IntN(1500)) * time.Microsecond)
			}
		}
	}
}

func TestBucketsExpireWhenFull(t *testing.T) {
	store, client := raw(t)
	ctx := context.Background()
	asks := []StoreAsk{
		{Bucket: "exact", Replica: "a", Limit: Limit{Interval: 1000, Burst: 100}, Ask: Ask{Want: 50, Least: 50}},
		{Bucket: "leased", Replica: "a", Limit: Limit{Interval: 1000, Burst: 100}, Ask: Ask{Want: 10, Least: 1}, Life: 100 * time.Millisecond},
		{Bucket: "refused", Replica: "a", Limit: Limit{Interval: 1000, Burst: 1}, Ask: Ask{Want: 2, Least: 2}},
	}
	asked := time.Now()
	if err := store.Ask(ctx, asks); err != nil {
		t.Fatal(err)
	}
	for i := range asks {
		if asks[i].Err != nil {
			t.Fatal(asks[i].Err)
		}
		// Never shorter than the bucket takes to fill, or the debit is lost.
		ttl, err := client.PTTL(ctx, asks[i].Bucket).Result()
		if err != nil {
			t.Fatal(err)
		}
		reset := time.Duration(asks[i].Grant.Reset) * time.Microsecond
		passed := time.Since(asked) + time.Millisecond // it is told in whole ones
		if asks[i].Grant.Tokens > 0 && (ttl < reset-passed || ttl > reset+asks[i].Life+20*time.Millisecond) {
			t.Errorf("%s lives for %v, the bucket is full in %v", asks[i].Bucket, ttl, reset)
		}
	}
	if n := client.Exists(ctx, "refused").Val(); n != 0 {
		t.Error("a refusal was stored")
	}
}

func TestOneBadKeyFailsAlone(t *testing.T) {
	store, client := raw(t)
	ctx := context.Background()
	client.LPush(ctx, "list", "not a bucket")
	client.Set(ctx, "text", "not a number", 0)
	l := Limit{Interval: 60e6, Burst: 10}
	asks := []StoreAsk{
		{Bucket: "good", Replica: "a", Limit: l, Ask: Ask{Want: 1, Least: 1}},
		{Bucket: "list", Replica: "a", Limit: l, Ask: Ask{Want: 1, Least: 1}},
		{Bucket: "text", Replica: "a", Limit: l, Ask: Ask{Want: 1, Least: 1}},
	}
	for range 2 { // with the text of the script, then with its digest
		if err := store.Ask(ctx, asks); err != nil {
			t.Fatal(err)
		}
		if asks[0].Err != nil || asks[1].Err == nil || asks[2].Err != nil {
			t.Fatalf("errors %v, %v, %v", asks[0].Err, asks[1].Err, asks[2].Err)
		}
	}
	if asks[0].Grant.Free != 8 || asks[2].Grant.Free != 8 {
		t.Errorf("free %d and %d, want 8: each call debits once", asks[0].Grant.Free, asks[2].Grant.Free)
	}
}

func TestHeartbeatCountsReplicas(t *testing.T) {
	store, client := raw(t)
	ctx := context.Background()
	for i, replica := range []string{"a", "b", "a", "c"} {
		n, err := store.Heartbeat(ctx, replica)
		if want := []int{1, 2, 2, 3}[i]; n != want || err != nil {
			t.Fatalf("heartbeat of %s: %d replicas, error %v; want %d", replica, n, err, want)
		}
	}
	client.ZAdd(ctx, replicasKey, redis.Z{Score: 1, Member: "long gone"})
	if n, err := store.Heartbeat(ctx, "a"); n != 3 || err != nil {
		t.Fatalf("%d replicas, error %v; a dead one counts", n, err)
	}
}

func TestServerThatTakesNoWritesIsLeft(t *testing.T) {
	store, client := raw(t)
	ctx := context.Background()
	if err := client.Do(ctx, "REPLICAOF", "127.0.0.1", "1").Err(); err != nil {
		t.Fatal(err)
	}
	before := store.client.Load()
	asks := []StoreAsk{{Bucket: "b", Replica: "a", Limit: Limit{Interval: 1000, Burst: 10}, Ask: Ask{Want: 1, Least: 1}}}
	if err := store.Ask(ctx, asks); err == nil || !strings.Contains(err.Error(), "READONLY") {
		t.Fatalf("error %v, want READONLY", err)
	}
	if store.client.Load() == before {
		t.Error("the connections to a read-only server were kept")
	}
	client.Do(ctx, "REPLICAOF", "NO", "ONE")
	if err := store.Ask(ctx, asks); err != nil || asks[0].Err != nil {
		t.Errorf("after the server takes writes: %v, %v", err, asks[0].Err)
	}
}

func TestAsksAllocateLittle(t *testing.T) {
	store, _ := raw(t)
	ctx := context.Background()
	asks := make([]StoreAsk, 32)
	for i := range asks {
		asks[i] = StoreAsk{Bucket: fmt.Sprintf("rl:{%x}:b", i), Replica: "a", Limit: Limit{Interval: 10, Burst: 1e6},
			Ask: Ask{Want: 10, Least: 1}, Life: 100 * time.Millisecond}
	}
	n := testing.AllocsPerRun(200, func() {
		if err := store.Ask(ctx, asks); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%.1f allocations for 32 buckets in one round trip", n)
	if n > 4*32 {
		t.Errorf("%.1f allocations for %d buckets", n, len(asks))
	}
}

func FuzzRedisURL(f *testing.F) {
	for _, seed := range []string{"redis://u:p@h:1/2", "redis+sentinel://a,b:2/m/1", "rediss://[::1]", "://", "redis://@/%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, url string) {
		const password = "s3cr3t-w0rd"
		_, _ = redisClient(url)
		if _, err := redisClient("redis://u:" + password + "@" + url); err != nil && strings.Contains(err.Error(), password) {
			t.Errorf("the error shows the password: %v", err)
		}
	})
}

func TestRedisRecordsAKeyOnce(t *testing.T) {
	store, client := raw(t)
	f := func(key string, life time.Duration, want bool) {
		t.Helper()
		fresh, err := store.Once(t.Context(), key, life)
		if err != nil || fresh != want {
			t.Errorf("%s: fresh %v, %v", key, fresh, err)
		}
	}
	f("dpop:a", time.Minute, true)
	f("dpop:a", time.Minute, false)
	f("dpop:b", time.Minute, true)
	if left := client.PTTL(t.Context(), "dpop:a").Val(); left <= 0 || left > time.Minute {
		t.Errorf("the key stays for %v", left)
	}
}
