package admin

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Requests counts exchanges. It is the server's Recorder and a Prometheus
// collector. Series are by route, never by path; an unknown method is _OTHER,
// so a client cannot make new ones (their number is at most routes × methods ×
// statuses × reasons that occurred).
type Requests struct {
	// live finds the series of a route of the running configuration.
	live atomic.Pointer[map[*routes.Route]*routeSeries]

	mu     sync.Mutex
	byName map[string]*routeSeries
	none   *routeSeries // exchanges without a route
}

// routeSeries are the series of one route, over reloads.
type routeSeries struct {
	name, service string
	protected     atomic.Bool
	mu            sync.Mutex
	series        atomic.Pointer[[]*series] // copied on write; few
}

// key tells the series of a route apart.
type key struct {
	method  string // a constant
	status  int
	reason  string // a constant
	shadow  string // a constant
	forward bool   // an instance was asked
}

type series struct {
	key
	took, overhead, upstream *histogram
	in, out                  atomic.Int64
}

// NewRequests makes an empty set.
func NewRequests() *Requests {
	m := &Requests{byName: map[string]*routeSeries{}, none: newRouteSeries("", "")}
	m.live.Store(&map[*routes.Route]*routeSeries{})
	return m
}

func newRouteSeries(name, service string) *routeSeries {
	s := &routeSeries{name: name, service: service}
	s.series.Store(new([]*series))
	return s
}

// Retain prepares the series of live and forgets those of routes that are gone.
func (m *Requests) Retain(live []*routes.Route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	byRoute, byName := map[*routes.Route]*routeSeries{}, map[string]*routeSeries{}
	for _, r := range live {
		s := m.byName[r.Name]
		if s == nil || s.service != r.Service {
			s = newRouteSeries(r.Name, r.Service)
		}
		s.protected.Store(!r.Public)
		byRoute[r], byName[r.Name] = s, s
	}
	m.byName = byName
	m.live.Store(&byRoute)
}

// Record implements server.Recorder.
func (m *Requests) Record(x *plugins.Exchange, took time.Duration) {
	of := m.none
	if x.Route != nil {
		if s := (*m.live.Load())[x.Route]; s != nil {
			of = s
		} else {
			// A request of the configuration before last: count it where its
			// route's name is still known.
			of = m.late(x.Route)
		}
	}
	r := &x.Record
	s := of.find(key{method(x.Method), r.Status, r.Reason, r.ShadowReason, r.Attempts > 0})
	s.took.observe(took)
	if s.forward {
		s.upstream.observe(r.Upstream)
		took -= r.Upstream
	}
	s.overhead.observe(took)
	if r.BytesIn > 0 {
		s.in.Add(r.BytesIn)
	}
	s.out.Add(r.BytesOut)
}

func (m *Requests) late(r *routes.Route) *routeSeries {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.byName[r.Name]; s != nil {
		return s
	}
	return m.none
}

func (r *routeSeries) find(k key) *series {
	for _, s := range *r.series.Load() {
		if s.key == k {
			return s
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := *r.series.Load()
	for _, s := range old {
		if s.key == k {
			return s
		}
	}
	s := &series{key: k, took: newHistogram(requestBounds), overhead: newHistogram(overheadBounds), upstream: newHistogram(requestBounds)}
	next := append(old[:len(old):len(old)], s)
	r.series.Store(&next)
	return s
}

func method(m []byte) string {
	switch string(m) {
	case "GET":
		return "GET"
	case "HEAD":
		return "HEAD"
	case "POST":
		return "POST"
	case "PUT":
		return "PUT"
	case "PATCH":
		return "PATCH"
	case "DELETE":
		return "DELETE"
	case "OPTIONS":
		return "OPTIONS"
	case "TRACE":
		return "TRACE"
	case "CONNECT":
		return "CONNECT"
	}
	return "_OTHER"
}

var (
	serverDuration = prometheus.NewDesc("http_server_request_duration_seconds", "Duration of HTTP requests, by route.",
		[]string{"http_request_method", "http_route", "http_response_status_code", "error_type"}, nil)
	clientDuration = prometheus.NewDesc("http_client_request_duration_seconds", "Time until a service's response head, by service.",
		[]string{"http_request_method", "server_address", "http_response_status_code"}, nil)
	overhead = prometheus.NewDesc("gateway_overhead_seconds", "Time spent inside the gateway, without the service's, by route.",
		[]string{"http_route"}, nil)
	decisions = prometheus.NewDesc("gateway_auth_decisions_total", "Decisions about access, by route and reason.",
		[]string{"http_route", "decision", "reason", "mode"}, nil)
	refusals = prometheus.NewDesc("gateway_refusals_total", "Requests that the gateway answered itself with an error, by reason.",
		[]string{"http_route", "reason"}, nil)
	content = prometheus.NewDesc("gateway_content_bytes_total", "Content of requests (in) and responses (out), by route.",
		[]string{"http_route", "direction"}, nil)
)

// Describe implements prometheus.Collector.
func (m *Requests) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{serverDuration, clientDuration, overhead, decisions, refusals, content} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Requests) Collect(c chan<- prometheus.Metric) {
	m.mu.Lock()
	all := []*routeSeries{m.none}
	for _, s := range m.byName {
		all = append(all, s)
	}
	m.mu.Unlock()
	clients := map[[3]string]*totals{}
	for _, r := range all {
		r.collect(c, clients)
	}
	for labels, t := range clients {
		c <- t.metric(clientDuration, labels[:]...)
	}
}

func (r *routeSeries) collect(c chan<- prometheus.Metric, clients map[[3]string]*totals) {
	type served struct {
		method string
		status int
		reason string
	}
	took, inside := map[served]*totals{}, &totals{}
	decided, refused := map[[3]string]uint64{}, map[string]uint64{}
	var in, out int64
	for _, s := range *r.series.Load() {
		status := strconv.Itoa(s.status)
		n := &totals{}
		n.add(s.took)
		sum := entry(took, served{s.method, s.status, s.reason})
		sum.add(s.took)
		inside.add(s.overhead)
		if s.forward {
			entry(clients, [3]string{s.method, r.service, status}).add(s.upstream)
		}
		if r.protected.Load() {
			decided[verdict(s.key)] += n.count()
		}
		if s.reason != "" {
			refused[s.reason] += n.count()
		}
		in, out = in+s.in.Load(), out+s.out.Load()
	}
	if inside.counts == nil {
		return
	}
	for k, t := range took {
		c <- t.metric(serverDuration, k.method, r.name, strconv.Itoa(k.status), k.reason)
	}
	c <- inside.metric(overhead, r.name)
	for k, n := range decided {
		c <- prometheus.MustNewConstMetric(decisions, prometheus.CounterValue, float64(n), r.name, k[0], k[1], k[2])
	}
	for reason, n := range refused {
		c <- prometheus.MustNewConstMetric(refusals, prometheus.CounterValue, float64(n), r.name, reason)
	}
	c <- prometheus.MustNewConstMetric(content, prometheus.CounterValue, float64(in), r.name, "in")
	c <- prometheus.MustNewConstMetric(content, prometheus.CounterValue, float64(out), r.name, "out")
}

func entry[K comparable](m map[K]*totals, k K) *totals {
	t := m[k]
	if t == nil {
		t = &totals{}
		m[k] = t
	}
	return t
}

// verdict is decision, reason and mode of a series of a protected route.
func verdict(k key) [3]string {
	switch {
	case k.shadow != "":
		return [3]string{"deny", k.shadow, "shadow"}
	case plugins.AccessReason(k.reason):
		return [3]string{"deny", k.reason, "enforce"}
	}
	return [3]string{"allow", "", "enforce"}
}
