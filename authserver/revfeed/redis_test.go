package revfeed

import (
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store/sqlstore"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// cluster is two replicas over one store and one Redis, each with a relay and
// a follower.
type cluster struct {
	t         *testing.T
	redis     *servers.Server
	stores    []*sqlstore.Store
	edges     []*edge
	followers []*Follower
}

func newCluster(t *testing.T, dsn string) *cluster {
	t.Helper()
	c := &cluster{t: t, redis: servers.Redis(t)}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	for range 2 {
		s, err := sqlstore.Open(ctx, dsn, sqlstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		stream := stream(t, c.redis)
		e := &edge{}
		relay := NewRelay(RelayConfig{Log: s, Redis: stream})
		follower := NewFollower(FollowerConfig{Log: s, Redis: stream, Apply: e.apply})
		s.OnRevoke(func() { relay.Wake(); follower.Wake() })
		running.Go(func() { _ = relay.Run(ctx) })    // ends with ctx
		running.Go(func() { _ = follower.Run(ctx) }) // ends with ctx
		running.Go(func() { _ = s.Listen(ctx, relay.Wake) })
		t.Cleanup(func() { cancel(); running.Wait(); s.Close() })
		<-follower.Ready()
		c.stores, c.edges, c.followers = append(c.stores, s), append(c.edges, e), append(c.followers, follower)
	}
	return c
}

func stream(t *testing.T, server *servers.Server) *Redis {
	t.Helper()
	r, err := NewRedis("redis://" + server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// revoke revokes a token at the first replica and returns how long the edge of
// the second one takes to know.
func (c *cluster) revoke(within time.Duration) time.Duration {
	c.t.Helper()
	now := time.Now()
	r, err := c.stores[0].Revoke(c.t.Context(), oauth.Revocation{
		Level: oauth.LevelToken, ID: fmt.Sprint("jti-", now.UnixNano()), Expires: now.Add(time.Hour)}, now)
	if err != nil {
		c.t.Fatal(err)
	}
	committed := time.Now()
	for !c.edges[1].has(r.Seq, r.Seq) {
		if time.Since(committed) > within {
			c.t.Fatalf("entry %d is not at the edge after %v; %+v", r.Seq, within, c.followers[1].Status())
		}
		time.Sleep(200 * time.Microsecond)
	}
	return time.Since(committed)
}

// revokeMany reports the delays of n revocations, sorted.
func (c *cluster) revokeMany(n int, within time.Duration) []time.Duration {
	c.t.Helper()
	var delays []time.Duration
	for range n {
		delays = append(delays, c.revoke(within))
	}
	slices.Sort(delays)
	return delays
}

// slack is what a machine that is busy with other tests adds to any bound.
const slack = 3 * time.Second

func TestRevocationReachesTheOtherEdgeByTheStream(t *testing.T) {
	for name, dsn := range map[string]func(t *testing.T) string{
		"SQLite":   func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "db") },
		"Postgres": func(t *testing.T) string { return servers.Postgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, dsn(t))
			d := c.revokeMany(100, 250*time.Millisecond+slack)
			t.Logf("median %v, p99 %v", d[50], d[98])
			if d[50] > 250*time.Millisecond {
				t.Errorf("median %v: the stream does not work", d[50])
			}
			if s := c.followers[1].Status(); s.StreamContact.IsZero() || s.LogContact.IsZero() {
				t.Errorf("status %+v", s)
			}
		})
	}
}

func TestRevocationReachesTheOtherEdgeWhateverRedisDoes(t *testing.T) {
	c := newCluster(t, "sqlite:"+filepath.Join(t.TempDir(), "db"))
	admin := redis.NewClient(&redis.Options{Addr: c.redis.Addr})
	defer admin.Close()
	for _, fault := range []struct {
		name       string
		begin, end func()
	}{
		{"FLUSHALL", func() { must(t, admin.FlushAll(t.Context()).Err()) }, nil},
		{"hanging", c.redis.Pause, c.redis.Resume},
		{"refusing", c.redis.Stop, c.redis.Restart},
		{"restarted empty", c.redis.Restart, nil},
		{"last entry deleted", func() {
			last, err := admin.XRevRangeN(t.Context(), streamKey, "+", "-", 1).Result()
			must(t, err)
			for _, m := range last {
				must(t, admin.XDel(t.Context(), streamKey, m.ID).Err())
			}
		}, nil},
		{"forged entry far ahead", func() {
			must(t, admin.XAdd(t.Context(), &redis.XAddArgs{Stream: streamKey, ID: "1000000-7", Values: []string{"x", "y"}}).Err())
		}, nil},
	} {
		fault.begin()
		t.Logf("%s: %v", fault.name, c.revokeMany(3, 1500*time.Millisecond+slack)[2])
		if fault.end != nil {
			fault.end()
		}
		c.followsStreamAgain(admin, fault.name)
	}
}

// followsStreamAgain waits until entries reach the edge by the stream.
func (c *cluster) followsStreamAgain(admin *redis.Client, after string) {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		c.revoke(1500*time.Millisecond + slack)
		s := c.followers[1].Status()
		top, err := (&Redis{admin}).Top(c.t.Context())
		c.followers[1].mu.Lock()
		seen := c.followers[1].seen
		c.followers[1].mu.Unlock()
		if err == nil && top == s.Applied && seen == top {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("after %s: stream at %d (%v), edge %+v", after, top, err, s)
		}
	}
}

func TestRevocationReachesTheEdgeByTheLogAlone(t *testing.T) {
	s, err := sqlstore.Open(t.Context(), "sqlite::memory:", sqlstore.Options{})
	must(t, err)
	defer s.Close()
	e := &edge{}
	f := NewFollower(FollowerConfig{Log: s, Apply: e.apply})
	s.OnRevoke(f.Wake)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	defer func() { cancel(); <-done }()
	<-f.Ready()
	c := &cluster{t: t, stores: []*sqlstore.Store{s}, edges: []*edge{nil, e}, followers: []*Follower{nil, f}}
	d := c.revokeMany(50, 250*time.Millisecond+slack)
	t.Logf("median %v, max %v", d[25], d[49])
}

func TestStreamCarriesEntriesUnchanged(t *testing.T) {
	s := stream(t, servers.Redis(t))
	ctx := t.Context()
	if top, err := s.Top(ctx); top != 0 || err != nil {
		t.Errorf("new stream: top %d, %v", top, err)
	}
	want := []oauth.Revocation{
		{Seq: 1, Level: oauth.LevelSubject, ID: "usr_ü \r\n", NotBefore: time.Unix(1767323045, 0).UTC(), Expires: time.UnixMicro(1767323045123456).UTC()},
		{Seq: 5, Level: oauth.LevelToken, ID: "jti", Expires: time.UnixMicro(1767323045000000).UTC()},
	}
	for _, e := range want {
		must(t, s.Add(ctx, e))
		if s.Add(ctx, e) == nil {
			t.Error("an entry was taken twice")
		}
	}
	if s.Add(ctx, oauth.Revocation{Seq: 4}) == nil {
		t.Error("an entry was taken out of order")
	}
	got, last, err := s.Read(ctx, 0, time.Second)
	if err != nil || last != 5 || !reflect.DeepEqual(got, want) {
		t.Errorf("have %+v, last %d, %v\nwant %+v", got, last, err, want)
	}
	got, last, err = s.Read(ctx, 5, time.Millisecond)
	if err != nil || last != 0 || got != nil {
		t.Errorf("at the end: %+v, %d, %v", got, last, err)
	}
	if top, err := s.Top(ctx); top != 5 || err != nil {
		t.Errorf("top %d, %v", top, err)
	}
	must(t, s.Reset(ctx))
	if top, err := s.Top(ctx); top != 0 || err != nil {
		t.Errorf("after reset: top %d, %v", top, err)
	}
}

func TestHangingRedisIsGivenUpSoon(t *testing.T) {
	server := servers.Redis(t)
	s := stream(t, server)
	if _, err := s.Top(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.Pause()
	began := time.Now()
	if _, _, err := s.Read(t.Context(), 0, 100*time.Millisecond); err == nil {
		t.Error("a hanging server answered")
	}
	if d := time.Since(began); d > 350*time.Millisecond+slack {
		t.Errorf("gave up after %v", d)
	}
}

func TestRedisURL(t *testing.T) {
	f := func(url, want string) {
		t.Helper()
		o, err := redisOptions(url)
		var got string
		if err == nil {
			got = fmt.Sprint(o.Addrs, " ", o.MasterName, " ", o.DB, " ", o.Username, ":", o.Password, " ", o.TLSConfig != nil)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error holds the password: %v", url, err)
		}
		if got != want {
			t.Errorf("%s: %q, %v; want %q", url, got, err, want)
		}
	}
	f("redis://127.0.0.1:6380/3", "[127.0.0.1:6380]  3 : false")
	f("redis://", "[localhost:6379]  0 : false")
	f("redis://[::1]", "[[::1]:6379]  0 : false")
	f("rediss://u:p%40ss@cache.example", "[cache.example:6379]  0 u:p@ss true")
	f("redis+sentinel://:pw@a,b:26380/main/2", "[a:26379 b:26380] main 2 :pw false")
	f("rediss+sentinel://a/main", "[a:26379] main 0 : true")
	for _, bad := range []string{"", "hunter2", "http://h", "redis://a,b:hunter2@c,d", "redis://:hunter2@h/x", "redis://:hunter2@h/1/2",
		"redis://:hunter2@h/0?db=1", "redis://:hunter2%zz@h", "redis+sentinel://:hunter2@h", "redis+cluster://:hunter2@h"} {
		f(bad, "")
	}
}

func FuzzRedisURL(f *testing.F) {
	f.Add("redis+sentinel://u:p@a,b:1/main/2")
	f.Fuzz(func(t *testing.T, url string) {
		if o, err := redisOptions(url); err == nil && len(o.Addrs) == 0 {
			t.Errorf("%q has no address", url)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
