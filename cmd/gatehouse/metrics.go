package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse/gatehouse/discovery"
	"github.com/gatehouse/gatehouse/discovery/consul"
	"github.com/gatehouse/gatehouse/gateway/server"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/auth"
	"github.com/gatehouse/gatehouse/plugins/breaker"
	"github.com/gatehouse/gatehouse/plugins/cache"
	"github.com/gatehouse/gatehouse/plugins/compress"
	"github.com/gatehouse/gatehouse/plugins/mirror"
	"github.com/gatehouse/gatehouse/plugins/ratelimit"
	"github.com/gatehouse/gatehouse/plugins/retry"
)

// scrape is a collector whose metrics are read when it is scraped.
type scrape struct {
	descs []*prometheus.Desc
	fill  func(add adder)
}

// adder emits one metric.
type adder func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string)

// Describe implements prometheus.Collector.
func (s scrape) Describe(c chan<- *prometheus.Desc) {
	for _, d := range s.descs {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (s scrape) Collect(c chan<- prometheus.Metric) {
	s.fill(func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, kind, value, labels...)
	})
}

const (
	gauge   = prometheus.GaugeValue
	counter = prometheus.CounterValue
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func registerDiscovery(r *prometheus.Registry, c *discovery.Cache, n *consul.Counters) {
	var (
		instances = desc("gateway_discovery_instances", "Instances in the last good set.", "service", "tag")
		age       = desc("gateway_discovery_index_age_seconds", "Time since the source last confirmed the set.", "service", "tag")
		stale     = desc("gateway_discovery_stale", "1 while the set is old or from disk.", "service", "tag")
		answers   = desc("gateway_discovery_answers_total", "Sets that the source gave, confirmations included.")
		failures  = desc("gateway_discovery_errors_total", "Requests to the source that failed.")
		refused   = desc("gateway_discovery_refused_total", "Answers of the source that were not believed.")
		filtered  = desc("gateway_discovery_acl_filtered_total", "Answers that lack what the token may not see.")
		resets    = desc("gateway_discovery_index_resets_total", "Times the source lost its state.")
		rejected  = desc("gateway_discovery_rejected_total", "Unusable instances left out of a set.")
	)
	r.MustRegister(scrape{descs: []*prometheus.Desc{instances, age, stale, answers, failures, refused, filtered, resets, rejected}, fill: func(add adder) {
		for _, s := range c.Status() {
			if s.Known {
				add(instances, gauge, float64(len(s.Endpoints)), s.Query.Service, s.Query.Tag)
				add(age, gauge, s.Age.Seconds(), s.Query.Service, s.Query.Tag)
			}
			add(stale, gauge, truth(s.Stale || !s.Known), s.Query.Service, s.Query.Tag)
		}
		add(answers, counter, float64(n.Answers.Load()))
		add(failures, counter, float64(n.Errors.Load()))
		add(refused, counter, float64(n.Refused.Load()))
		add(filtered, counter, float64(n.ACLFiltered.Load()))
		add(resets, counter, float64(n.IndexResets.Load()))
		add(rejected, counter, float64(n.Dropped.Load()))
	}})
}

func registerVerifier(r *prometheus.Registry, v *auth.Verifier) {
	var (
		held     = desc("gateway_issuer_keys", "Keys of an external issuer.", "issuer")
		fetched  = desc("gateway_issuer_keys_fetched_timestamp_seconds", "When the keys were last had.", "issuer")
		failures = desc("gateway_issuer_key_failures_total", "Attempts to have the keys that failed.", "issuer")
		unknown  = desc("gateway_issuer_unknown_keys_total", "Tokens refused because their key is unknown and a fetch was not due.", "issuer")
	)
	r.MustRegister(scrape{descs: []*prometheus.Desc{held, fetched, failures, unknown}, fill: func(add adder) {
		for _, s := range v.Status() {
			add(held, gauge, float64(s.Keys), s.Issuer)
			if !s.Fetched.IsZero() {
				add(fetched, gauge, float64(s.Fetched.Unix()), s.Issuer)
			}
			add(failures, counter, float64(s.Failures), s.Issuer)
			add(unknown, counter, float64(s.UnknownKeys), s.Issuer)
		}
	}})
}

func registerProofs(r *prometheus.Registry, p *auth.Proofs) {
	local := desc("gateway_dpop_local_total", "DPoP proofs that only this replica remembers, because Redis was away.")
	r.MustRegister(scrape{descs: []*prometheus.Desc{local}, fill: func(add adder) {
		add(local, counter, float64(p.Failed()))
	}})
}

func registerLimiter(r *prometheus.Registry, l *ratelimit.Plugin) {
	var (
		decided  = desc("gateway_ratelimit_decisions_total", "Decisions of limits, by result.", "result")
		fallback = desc("gateway_ratelimit_fallback_active", "1 while Redis is away and limits are counted locally.")
		without  = desc("gateway_ratelimit_fallback_decisions_total", "Decisions made without the Redis that should have been asked.")
		calls    = desc("gateway_ratelimit_store_calls_total", "Round trips to Redis, by result.", "result")
		nodes    = desc("gateway_ratelimit_nodes", "Replicas known to share the limits.")
		buckets  = desc("gateway_ratelimit_buckets", "Buckets kept in this process.")
	)
	r.MustRegister(scrape{descs: []*prometheus.Desc{decided, fallback, without, calls, nodes, buckets}, fill: func(add adder) {
		s := l.Stats()
		add(decided, counter, float64(s.Allowed), "allowed")
		add(decided, counter, float64(s.Denied), "denied")
		add(decided, counter, float64(s.Unavailable), "unavailable")
		add(fallback, gauge, truth(s.Down))
		add(without, counter, float64(s.Fallback))
		add(calls, counter, float64(s.Calls-s.Errors), "ok")
		add(calls, counter, float64(s.Errors), "error")
		add(nodes, gauge, float64(s.Nodes))
		add(buckets, gauge, float64(s.Buckets))
	}})
}

func registerBreakers(r *prometheus.Registry, b *breaker.Plugin) {
	var (
		state   = desc("gateway_breaker_state", "1 for the state that the service's breaker is in.", "service", "state")
		opened  = desc("gateway_breaker_opened_total", "Times the service's breaker opened.", "service")
		refused = desc("gateway_breaker_refused_total", "Requests refused because the breaker was open.", "service")
	)
	r.MustRegister(scrape{descs: []*prometheus.Desc{state, opened, refused}, fill: func(add adder) {
		for _, s := range b.Status() {
			for _, one := range []string{"closed", "half-open", "open"} {
				add(state, gauge, truth(s.State == one), s.Service, one)
			}
			add(opened, counter, float64(s.Opened), s.Service)
			add(refused, counter, float64(s.Refused), s.Service)
		}
	}})
}

func registerRetries(r *prometheus.Registry, p *retry.Plugin) {
	attempts := desc("gateway_retries_total", "Attempts that were repeated, or not because the budget was spent, by result.", "result")
	r.MustRegister(scrape{descs: []*prometheus.Desc{attempts}, fill: func(add adder) {
		repeated, exhausted := p.Stats()
		add(attempts, counter, float64(repeated), "repeated")
		add(attempts, counter, float64(exhausted), "budget_spent")
	}})
}

// registerPlugins shows what plugins count that have nothing else to be made
// from.
func registerPlugins(r *prometheus.Registry, list []plugins.Plugin) {
	for _, p := range list {
		switch p := p.(type) {
		case *cache.Plugin:
			registerCache(r, p)
		case *compress.Plugin:
			registerCompress(r, p)
		case *mirror.Plugin:
			registerMirror(r, p)
		}
	}
}

func registerCache(r *prometheus.Registry, p *cache.Plugin) {
	var (
		requests = desc("gateway_cache_requests_total", "GET and HEAD requests of routes with a cache, by result.", "result")
		entries  = desc("gateway_cache_entries", "Responses that are stored.")
		size     = desc("gateway_cache_bytes", "Bytes that stored responses take.")
	)
	r.MustRegister(scrape{descs: []*prometheus.Desc{requests, entries, size}, fill: func(add adder) {
		s := p.Stats()
		for result, n := range s.Results {
			add(requests, counter, float64(n), result)
		}
		add(entries, gauge, float64(s.Entries))
		add(size, gauge, float64(s.Bytes))
	}})
}

func registerCompress(r *prometheus.Registry, p *compress.Plugin) {
	var (
		responses = desc("gateway_compress_responses_total", "Responses that were encoded, by coding.", "encoding")
		size      = desc("gateway_compress_bytes_total", "Content of encoded responses, before (in) and afterwards (out).", "encoding", "direction")
	)
	r.MustRegister(scrape{descs: []*prometheus.Desc{responses, size}, fill: func(add adder) {
		for encoding, t := range p.Stats() {
			add(responses, counter, float64(t.Responses), encoding)
			add(size, counter, float64(t.In), encoding, "in")
			add(size, counter, float64(t.Out), encoding, "out")
		}
	}})
}

func registerMirror(r *prometheus.Registry, p *mirror.Plugin) {
	copies := desc("gateway_mirror_requests_total", "Copies of requests, by result.", "result")
	r.MustRegister(scrape{descs: []*prometheus.Desc{copies}, fill: func(add adder) {
		sent, failed, dropped := p.Stats()
		add(copies, counter, float64(sent), "sent")
		add(copies, counter, float64(failed), "failed")
		add(copies, counter, float64(dropped), "dropped")
	}})
}

// registerAccessLog shows what the log lost; l is nil where it is off.
func registerAccessLog(r *prometheus.Registry, l *server.AccessLog) {
	dropped := desc("gateway_log_dropped_total", "Lines of the access log lost because its sink was too slow.")
	r.MustRegister(scrape{descs: []*prometheus.Desc{dropped}, fill: func(add adder) {
		n := uint64(0)
		if l != nil {
			n = l.Dropped()
		}
		add(dropped, counter, float64(n))
	}})
}

func registerFeed(r *prometheus.Registry, i *issuer) {
	var (
		entries = desc("gateway_revocations", "Entries of the deny set.")
		applied = desc("gateway_revocation_seq", "The last entry of the revocation log that the edge applied.")
		lag     = desc("gateway_revocation_feed_age_seconds", "Time since the edge last knew that it has every revocation.")
		gaps    = desc("gateway_revocation_gaps_total", "Entries that the stream skipped and the log had to give.")
		rewinds = desc("gateway_revocation_rewinds_total", "Times the log ended before what had been applied.")
		keys    = desc("authserver_keys_generation", "Changes of the set of verifying keys.")
		queued  = desc("authserver_audit_queued", "Audit events that wait for the store.")
		dropped = desc("authserver_audit_dropped_total", "Audit events that are in the process log only, because the queue was full.")
	)
	r.MustRegister(scrape{descs: []*prometheus.Desc{entries, applied, lag, gaps, rewinds, keys, queued, dropped}, fill: func(add adder) {
		s := i.follower.Status()
		add(entries, gauge, float64(i.denied.Len()))
		add(applied, gauge, float64(s.Applied))
		if !s.LogContact.IsZero() {
			add(lag, gauge, time.Since(s.LogContact).Seconds())
		}
		add(gaps, counter, float64(s.Gaps))
		add(rewinds, counter, float64(s.Rewinds))
		add(keys, counter, float64(i.ring.Generation()))
		waiting, lost := i.server.Audit()
		add(queued, gauge, float64(waiting))
		add(dropped, counter, float64(lost))
	}})
}
