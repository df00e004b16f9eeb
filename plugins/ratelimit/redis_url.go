package ratelimit

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// A limiter's Redis answers at once or not at all: go-redis's own times
// (seconds, with retries) would hold requests while packets are dropped.
const (
	redisDial        = 100 * time.Millisecond
	redisReadWrite   = callTimeout
	redisPoolWait    = 10 * time.Millisecond
	redisIdleConns   = 4
	redisIdleTimeout = 5 * time.Minute
)

// redisClient checks a Redis URL and returns what makes clients for it. Its
// errors do not hold the URL, which may contain a password.
func redisClient(raw string) (func() *redis.Client, error) {
	scheme, hosts, rest := cutHosts(raw)
	u, err := url.Parse(rest)
	if err != nil {
		return nil, errors.New("the URL cannot be parsed")
	}
	u.Scheme, u.Host = scheme, hosts
	switch scheme {
	case "redis", "rediss":
		if strings.Contains(hosts, ",") {
			return nil, errors.New("several addresses mean a cluster, which is not supported; use one address or redis+sentinel://")
		}
		return singleRedis(u)
	case "redis+sentinel", "rediss+sentinel":
		return sentinelRedis(u)
	case "redis+cluster", "rediss+cluster":
		return nil, errors.New("a cluster is not supported; use one server or redis+sentinel://")
	}
	return nil, fmt.Errorf("unknown scheme %q; redis, rediss or redis+sentinel", u.Scheme)
}

// cutHosts takes the list of hosts out of a URL, because package url takes only
// one host. rest has none in its place.
func cutHosts(raw string) (scheme, hosts, rest string) {
	scheme, after, ok := strings.Cut(raw, "://")
	if !ok {
		return "", "", ""
	}
	end := strings.IndexAny(after, "/?#")
	if end < 0 {
		end = len(after)
	}
	start := strings.LastIndexByte(after[:end], '@') + 1
	return scheme, after[start:end], "redis://" + after[:start] + after[end:]
}

func singleRedis(u *url.URL) (func() *redis.Client, error) {
	if len(u.Query()) > 0 {
		return nil, errors.New("the URL takes no options after '?'")
	}
	host, addr, err := hostPort(u.Host, "6379")
	if err != nil {
		return nil, err
	}
	db, err := database(strings.Trim(u.Path, "/"))
	if err != nil {
		return nil, err
	}
	password, _ := u.User.Password()
	return func() *redis.Client {
		return redis.NewClient(&redis.Options{
			Addr: addr, Username: u.User.Username(), Password: password, DB: db,
			TLSConfig:   tlsFor(u.Scheme, host),
			DialTimeout: redisDial, DialerRetries: 1,
			ReadTimeout: redisReadWrite, WriteTimeout: redisReadWrite,
			MaxRetries: -1, ContextTimeoutEnabled: true,
			PoolSize: redisPool(), PoolTimeout: redisPoolWait, MinIdleConns: redisIdleConns,
			ConnMaxIdleTime: redisIdleTimeout, PipelinePoolSize: -1,
			Protocol: 2, DisableIdentity: true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		})
	}, nil
}

func sentinelRedis(u *url.URL) (func() *redis.Client, error) {
	if len(u.Query()) > 0 {
		return nil, errors.New("the URL takes no options after '?'")
	}
	master, rest, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	if master == "" {
		return nil, errors.New("name the master: redis+sentinel://host:port,host:port/MASTER")
	}
	db, err := database(rest)
	if err != nil {
		return nil, err
	}
	var sentinels []string
	for _, h := range strings.Split(u.Host, ",") {
		_, addr, err := hostPort(h, "26379")
		if err != nil {
			return nil, err
		}
		sentinels = append(sentinels, addr)
	}
	password, _ := u.User.Password()
	return func() *redis.Client {
		return redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: master, SentinelAddrs: sentinels,
			Username: u.User.Username(), Password: password, DB: db,
			TLSConfig:   tlsFor(u.Scheme, ""),
			DialTimeout: redisDial, DialerRetries: 1,
			ReadTimeout: redisReadWrite, WriteTimeout: redisReadWrite,
			MaxRetries: -1, ContextTimeoutEnabled: true,
			PoolSize: redisPool(), PoolTimeout: redisPoolWait, MinIdleConns: redisIdleConns,
			ConnMaxIdleTime: redisIdleTimeout, PipelinePoolSize: -1,
			Protocol: 2, DisableIdentity: true,
		})
	}, nil
}

// redisPool is enough for every worker and the watch, with some to spare for
// connections that are being replaced.
func redisPool() int { return max(2*(urgentWorkers+2), runtime.GOMAXPROCS(0)) }

func tlsFor(scheme, host string) *tls.Config {
	if !strings.HasPrefix(scheme, "rediss") {
		return nil
	}
	return &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
}

// hostPort splits an address and puts in what is left out.
func hostPort(s, port string) (host, addr string, err error) {
	host = s
	if h, p, err := net.SplitHostPort(s); err == nil {
		host, port = h, p
	}
	host = strings.Trim(host, "[]")
	if host == "" {
		host = "localhost"
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", "", fmt.Errorf("%q is not a port", port)
	}
	return host, net.JoinHostPort(host, port), nil
}

func database(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not the number of a database", s)
	}
	return n, nil
}
