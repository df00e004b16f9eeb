package ratelimit

import (
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// onFailure is what a limit does while the store is away.
type onFailure uint8

const (
	failLocal onFailure = iota
	failOpen
	failClosed
)

// policy is one limit of a route, compiled. It is immutable.
type policy struct {
	// name identifies the limit over reloads and replicas.
	name  string
	hash  uint64
	limit Limit
	cost  int64
	by    subjectKind
	claim string
	// local counts in this process alone, exact asks the store for every
	// request.
	local, exact bool
	onFailure    onFailure
	// slack is the number of tokens by which leases may miss the limit, life
	// the nanoseconds in which the rate brings as many.
	slack int64
	life  int64
	// denyFloor is the shortest refusal without asking again, nanoseconds.
	denyFloor int64
	// fields is the RateLimit-Policy line and the RateLimit line up to the
	// number of remaining requests.
	fields               []byte
	refusal, unavailable *plugins.Error
}

// maxLimits bounds the limits of one route.
const maxLimits = 8

// policies compiles the route's limits, or tells every mistake in them.
func (p *Plugin) policies(r *routes.Route) ([]*policy, error) {
	var problems routes.Problems
	var out []*policy
	if len(r.RateLimits) > maxLimits {
		return nil, routes.Problems{{
			Pos:     r.RateLimits[maxLimits].Pos,
			Message: fmt.Sprintf("route %q: rate_limit: more than %d limits", r.Name, maxLimits),
		}}
	}
	for i, rl := range r.RateLimits {
		name, shown := "route/"+r.Name+"/"+strconv.Itoa(i), r.Name
		if rl.Name != "" {
			name, shown = "limit/"+rl.Name, rl.Name
		}
		pol, err := p.compile(rl, name, shown)
		if err == nil && r.Public && pol.by != byAddress && pol.by != byRoute {
			err = fmt.Errorf("by: %s: a public route does not know who calls; count by ip or route", rl.By)
		}
		if err != nil {
			problems = append(problems, routes.Problem{
				Pos:     rl.Pos,
				Message: fmt.Sprintf("route %q: rate_limit: %v", r.Name, err),
			})
			continue
		}
		out = append(out, pol)
	}
	if problems != nil {
		return nil, problems
	}
	return out, nil
}

func (p *Plugin) compile(rl *routes.RateLimit, name, shown string) (*policy, error) {
	pol := &policy{name: name, hash: maphash.String(p.seed, name), cost: max(1, int64(rl.Cost))}
	if err := pol.setBy(rl.By); err != nil {
		return nil, err
	}
	if err := pol.setLimit(rl); err != nil {
		return nil, err
	}
	switch rl.Mode {
	case "", "leased":
	case "exact":
		pol.exact = true
	case "local":
		pol.local = true
	default:
		return nil, fmt.Errorf("mode: unknown %q; leased, exact or local", rl.Mode)
	}
	switch rl.OnStoreFailure {
	case "", "local":
	case "open":
		pol.onFailure = failOpen
	case "closed":
		pol.onFailure = failClosed
	default:
		return nil, fmt.Errorf("on_store_failure: unknown %q; local, open or closed", rl.OnStoreFailure)
	}
	pol.local = pol.local || p.store == nil
	pol.setLease()
	pol.render(rl, shown)
	return pol, nil
}

func (pol *policy) setBy(by string) error {
	switch by {
	case "", "client":
		pol.by = byClient
	case "subject":
		pol.by = bySubject
	case "ip":
		pol.by = byAddress
	case "route":
		pol.by = byRoute
	default:
		claim, ok := strings.CutPrefix(by, "claim:")
		if !ok || claim == "" {
			return fmt.Errorf("by: unknown %q; client, subject, ip, claim:NAME or route", by)
		}
		pol.by, pol.claim = byClaim, claim
	}
	return nil
}

// maxSpan keeps every time exact in a double, which is what Lua counts with.
const maxSpan = int64(1e15)

// setLimit turns "limit per period" into whole microseconds per token, rounded
// up: the rate is never exceeded, and less than 1 % slower.
func (pol *policy) setLimit(rl *routes.RateLimit) error {
	limit, period := int64(rl.Limit), rl.Per.Microseconds()
	burst := int64(rl.Burst)
	if burst == 0 {
		burst = limit
	}
	switch {
	case limit < 1:
		return fmt.Errorf("limit: %d is less than 1", limit)
	case period < 1:
		return fmt.Errorf("per: %v is less than a microsecond", rl.Per)
	case burst < 1:
		return fmt.Errorf("burst: %d is less than 1", burst)
	case burst < pol.cost:
		return fmt.Errorf("cost: %d is more than the burst of %d, so no request could pass", pol.cost, burst)
	}
	interval := (period + limit - 1) / limit
	if loss := interval*limit - period; loss*100 > period {
		slow, fast := period/interval, int64(0)
		if interval > 1 {
			fast = period / (interval - 1)
		}
		if fast == 0 {
			return fmt.Errorf("limit: %d in %v is faster than one request per microsecond; write at most %d", limit, rl.Per, slow)
		}
		return fmt.Errorf("limit: %d in %v is no whole number of microseconds per request; write %d or %d", limit, rl.Per, slow, fast)
	}
	if interval > maxSpan/burst {
		return fmt.Errorf("burst: filling %d tokens at %d in %v takes more than 30 years", burst, limit, rl.Per)
	}
	pol.limit = Limit{Interval: interval, Burst: burst}
	return nil
}

// maxDenyFloor keeps long leases from making refusals coarse.
const maxDenyFloor = 50 * time.Millisecond

// setLease fixes by how much leases may miss the limit: shareOfWindow of the
// burst and one second's rate.
func (pol *policy) setLease() {
	perSecond := 1e6 / float64(pol.limit.Interval)
	slack := shareOfWindow * (float64(pol.limit.Burst) + perSecond)
	pol.slack = max(pol.cost, int64(slack))
	pol.life = int64(min(float64(maxLife), slack/perSecond*1e9))
	if pol.life < int64(minLife) {
		pol.exact = true
	}
	pol.denyFloor = min(pol.life/2, int64(maxDenyFloor), pol.limit.span()*1000/4)
}

// lease returns the life of a lease in nanoseconds and the tokens that one
// replica may hold. Either bounds what the replicas may admit too much by
// slack: a life of slack/rate, whatever they hold, or a share of slack each,
// however long, less what the rate brings while requests wait for an answer:
// what they wait for is debited before it is spent too. The second serves
// callers that are slow for their limit with fewer calls, while there are
// enough tokens for all replicas.
func (pol *policy) lease(nodes int64) (life, most int64, capped bool) {
	underWay := int64(patience/time.Microsecond)/pol.limit.Interval + 1
	if share := (pol.slack - underWay) / nodes; pol.life < int64(maxLife) && share >= minShare*pol.cost {
		return int64(maxLife), share, true
	}
	return pol.life, pol.slack, false
}

// render prepares the response fields of draft-ietf-httpapi-ratelimit-headers-11.
func (pol *policy) render(rl *routes.RateLimit, shown string) {
	name := quote(shown)
	// Both numbers are whole: a window under a second is told as one second.
	window := max(1, int64((rl.Per+time.Second-1)/time.Second))
	quota := int64(float64(rl.Limit) * float64(window) * float64(time.Second) / float64(rl.Per))
	pol.fields = fmt.Appendf(nil, "RateLimit-Policy: %s;q=%d;w=%d\r\nRateLimit: %s;r=", name, quota, window, name)
	pol.refusal = &plugins.Error{
		Status: 429,
		Code:   plugins.RateLimited,
		Detail: fmt.Sprintf("The limit is %d requests in %v; Retry-After tells when to come back.", rl.Limit, rl.Per),
	}
	pol.unavailable = &plugins.Error{Status: 503, Code: plugins.LimiterUnavailable}
}

// quote makes a structured field's string (RFC 9651, 3.3.3) of a name. It
// cannot hold anything but printable ASCII.
func quote(name string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(name) {
		switch {
		case c < ' ' || c > '~':
			c = '?'
		case c == '"' || c == '\\':
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	b.WriteByte('"')
	return b.String()
}
