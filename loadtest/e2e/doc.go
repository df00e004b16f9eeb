// Package e2e proves gatehouse as its users meet it: the built program, as
// processes on loopback ports, over real Consul, Redis and PostgreSQL, called
// through sockets by its own load, by a browser and by clients that others
// wrote.
//
// It owns the promises that need more than one part, or more than one process,
// to be kept or broken. What one part promises is tested beside that part; the
// processor time of a request is loadtest/bench.
//
//	go test -race ./loadtest/e2e
package e2e
