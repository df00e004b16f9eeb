package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse/gatehouse/gateway"
	"github.com/gatehouse/gatehouse/gateway/server"
)

// Services shows the state of services and their instances.
type Services struct {
	read func() []gateway.ServiceStatus
}

// NewServices makes a collector that asks read at each scrape.
func NewServices(read func() []gateway.ServiceStatus) *Services { return &Services{read} }

var (
	inFlight = prometheus.NewDesc("gateway_upstream_inflight", "Requests under way, by service.", []string{"service"}, nil)
	usable   = prometheus.NewDesc("gateway_upstream_instances", "Instances by service and state (usable, ejected).", []string{"service", "state"}, nil)
	panicked = prometheus.NewDesc("gateway_upstream_panic", "1 while so few instances are usable that all are used.", []string{"service"}, nil)
	pending  = prometheus.NewDesc("gateway_upstream_pending", "Requests that wait for a connection, by service.", []string{"service"}, nil)
	pooled   = prometheus.NewDesc("gateway_upstream_connections", "Connections by service and state (idle, busy).", []string{"service", "state"}, nil)
)

// Describe implements prometheus.Collector.
func (s *Services) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{inFlight, usable, panicked, pending, pooled} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Services) Collect(c chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	for _, service := range s.read() {
		flying, ejected, idle, busy, alarm := 0, 0, 0, 0, 0
		for _, i := range service.Instances {
			flying += i.InFlight
			idle += i.Idle
			busy += i.Open - i.Idle
			if !i.EjectedUntil.IsZero() {
				ejected++
			}
		}
		if service.Panic {
			alarm = 1
		}
		gauge(inFlight, flying, service.Name)
		gauge(usable, len(service.Instances)-ejected, service.Name, "usable")
		gauge(usable, ejected, service.Name, "ejected")
		gauge(panicked, alarm, service.Name)
		gauge(pending, service.Pending, service.Name)
		gauge(pooled, idle, service.Name, "idle")
		gauge(pooled, busy, service.Name, "busy")
	}
}

// Connections shows the clients' side.
type Connections struct{ read func() server.Status }

// NewConnections makes a collector that asks read at each scrape.
func NewConnections(read func() server.Status) *Connections { return &Connections{read} }

var (
	open      = prometheus.NewDesc("gateway_connections", "Client connections that are open.", nil, nil)
	refused   = prometheus.NewDesc("gateway_connections_refused_total", "Client connections over a limit (max_connections, max_connections_per_address).", []string{"limit"}, nil)
	tunnels   = prometheus.NewDesc("gateway_tunnels", "WebSocket tunnels that are open.", nil, nil)
	tooMany   = prometheus.NewDesc("gateway_tunnels_refused_total", "WebSocket tunnels over the limit.", nil, nil)
	streams   = prometheus.NewDesc("gateway_streams", "Requests under way over HTTP/2 and HTTP/3.", nil, nil)
	surplus   = prometheus.NewDesc("gateway_http2_streams_refused_total", "HTTP/2 streams over the limit of their connection.", nil, nil)
	floods    = prometheus.NewDesc("gateway_http2_floods_total", "HTTP/2 connections that were ended for a flood of frames.", nil, nil)
	malformed = prometheus.NewDesc("gateway_malformed_requests_total", "Requests that the gate turned away.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *Connections) Describe(c chan<- *prometheus.Desc) {
	c <- open
	c <- refused
	c <- tunnels
	c <- tooMany
	c <- malformed
	c <- streams
	c <- surplus
	c <- floods
}

// Collect implements prometheus.Collector.
func (s *Connections) Collect(c chan<- prometheus.Metric) {
	v := s.read()
	c <- prometheus.MustNewConstMetric(open, prometheus.GaugeValue, float64(v.Connections))
	c <- prometheus.MustNewConstMetric(refused, prometheus.CounterValue, float64(v.Refused), "max_connections")
	c <- prometheus.MustNewConstMetric(refused, prometheus.CounterValue, float64(v.RefusedOfAddress), "max_connections_per_address")
	c <- prometheus.MustNewConstMetric(tunnels, prometheus.GaugeValue, float64(v.Tunnels))
	c <- prometheus.MustNewConstMetric(tooMany, prometheus.CounterValue, float64(v.TunnelsRefused))
	c <- prometheus.MustNewConstMetric(malformed, prometheus.CounterValue, float64(v.Malformed))
	c <- prometheus.MustNewConstMetric(streams, prometheus.GaugeValue, float64(v.Streams))
	c <- prometheus.MustNewConstMetric(surplus, prometheus.CounterValue, float64(v.StreamsRefused))
	c <- prometheus.MustNewConstMetric(floods, prometheus.CounterValue, float64(v.Floods))
}
