package revfeed

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

const (
	streamKey = "rev"
	// streamLength is about how many entries the stream keeps. An edge that was
	// away for longer reads the log.
	streamLength = 10000
	// redisDial and redisTimeout bound a connection's making and a command; the
	// defaults of go-redis, seconds and with retries, would stop the feed for as
	// long while packets are dropped.
	redisDial    = 100 * time.Millisecond
	redisTimeout = 250 * time.Millisecond
)

// Redis is the stream that edges hear of revocations by.
type Redis struct{ client redis.UniversalClient }

// NewRedis returns the stream at a URL: redis://, rediss:// (TLS) or
// redis+sentinel://host:port,host:port/MASTER/DB. It does not dial. Errors do
// not hold the URL, which may contain a password.
func NewRedis(rawURL string) (*Redis, error) {
	o, err := redisOptions(rawURL)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = redisDial, redisTimeout, redisTimeout, redisTimeout
	o.DialerRetries, o.MaxRetries, o.PoolSize = 1, -1, 4
	o.ContextTimeoutEnabled = true // else a blocking read would wait for ten seconds more
	o.Protocol, o.DisableIdentity = 2, true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return &Redis{redis.NewUniversalClient(o)}, nil
}

// redisOptions reads the address out of a URL. Package url takes one host only,
// so a list of them is taken out first.
func redisOptions(rawURL string) (*redis.UniversalOptions, error) {
	scheme, rest, found := strings.Cut(rawURL, "://")
	if !found {
		return nil, errors.New("want a URL: redis://, rediss:// or redis+sentinel://")
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	begin := strings.LastIndexByte(rest[:end], '@') + 1
	hosts := strings.Split(rest[begin:end], ",")
	u, err := url.Parse("redis://" + rest[:begin] + "host" + rest[end:])
	if err != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the URL is malformed, or has options, which none of ours has")
	}
	path := strings.Split(strings.Trim(u.Path, "/"), "/")
	o := &redis.UniversalOptions{Username: u.User.Username()}
	o.Password, _ = u.User.Password()
	port := "6379"
	switch scheme {
	case "redis", "rediss":
		if len(hosts) > 1 {
			return nil, errors.New("several addresses mean a cluster, which is not supported; use one address or redis+sentinel://")
		}
	case "redis+sentinel", "rediss+sentinel":
		port = "26379"
		if o.MasterName, path = path[0], path[1:]; o.MasterName == "" {
			return nil, errors.New("name the master: redis+sentinel://host:port,host:port/MASTER")
		}
	default:
		return nil, fmt.Errorf("unknown scheme %.20q (want redis, rediss or redis+sentinel)", scheme)
	}
	if len(path) > 0 && path[0] != "" {
		if o.DB, err = strconv.Atoi(path[0]); err != nil || o.DB < 0 || len(path) > 1 {
			return nil, errors.New("after the address comes the number of a database")
		}
	}
	for _, h := range hosts {
		if h == "" {
			h = "localhost"
		}
		if _, _, err := net.SplitHostPort(h); err != nil {
			h = net.JoinHostPort(strings.Trim(h, "[]"), port)
		}
		o.Addrs = append(o.Addrs, h)
	}
	if strings.HasPrefix(scheme, "rediss") {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if o.MasterName == "" {
			o.TLSConfig.ServerName, _, _ = net.SplitHostPort(o.Addrs[0])
		}
	}
	return o, nil
}

// Close closes the connections.
func (r *Redis) Close() error { return r.client.Close() }

// Top returns the last number that the stream ever had; 0 for a new one.
func (r *Redis) Top(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	n, err := r.client.Exists(ctx, streamKey).Result()
	if err != nil || n == 0 {
		return 0, err
	}
	info, err := r.client.XInfoStream(ctx, streamKey).Result()
	if err != nil {
		return 0, err
	}
	return number(info.LastGeneratedID)
}

// Add appends an entry under its number.
func (r *Redis) Add(ctx context.Context, e oauth.Revocation) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	var notBefore int64
	if !e.NotBefore.IsZero() {
		notBefore = e.NotBefore.Unix()
	}
	return r.client.XAdd(ctx, &redis.XAddArgs{
		Stream: streamKey, MaxLen: streamLength, Approx: true, ID: strconv.FormatUint(e.Seq, 10) + "-0",
		Values: []any{"level", string(e.Level), "id", e.ID, "nbf", notBefore, "exp", e.Expires.UnixMicro()},
	}).Err()
}

// Reset removes the stream.
func (r *Redis) Reset(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	return r.client.Del(ctx, streamKey).Err()
}

// Read returns the entries above after; it waits for the first. What it cannot
// read it leaves out, and counts in last.
func (r *Redis) Read(ctx context.Context, after uint64, wait time.Duration) (entries []oauth.Revocation, last uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, wait+redisTimeout)
	defer cancel()
	streams, err := r.client.XRead(ctx, &redis.XReadArgs{
		// The highest id that begins with after: more than one entry may.
		Streams: []string{streamKey, strconv.FormatUint(after, 10) + "-" + strconv.FormatUint(math.MaxUint64, 10)},
		Count:   page, Block: wait,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	for _, s := range streams {
		for _, m := range s.Messages {
			seq, err := number(m.ID)
			if err != nil {
				return nil, 0, err
			}
			last = max(last, seq)
			if e, ok := entry(seq, m.Values); ok {
				entries = append(entries, e)
			}
		}
	}
	return entries, last, nil
}

// number is the first part of an id of a stream.
func number(id string) (uint64, error) {
	first, _, _ := strings.Cut(id, "-")
	n, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("redis: malformed id of a stream: %.40q", id)
	}
	return n, nil
}

func entry(seq uint64, values map[string]any) (e oauth.Revocation, ok bool) {
	level, ok1 := values["level"].(string)
	id, ok2 := values["id"].(string)
	nbf, _ := values["nbf"].(string)
	exp, _ := values["exp"].(string)
	notBefore, err1 := strconv.ParseInt(nbf, 10, 64)
	expires, err2 := strconv.ParseInt(exp, 10, 64)
	if !ok1 || !ok2 || id == "" || err1 != nil || err2 != nil {
		return e, false
	}
	e = oauth.Revocation{Seq: seq, Level: oauth.Level(level), ID: id, Expires: time.UnixMicro(expires).UTC()}
	if notBefore != 0 {
		e.NotBefore = time.Unix(notBefore, 0).UTC()
	}
	return e, true
}
