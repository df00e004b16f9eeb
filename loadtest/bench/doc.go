// Command bench measures what gatehouse costs beside nginx and haproxy.
//
// It owns the whole experiment: it builds gatehouse, starts the proxies, an
// origin, an issuer and redis-server on loopback, pins each proxy to one core
// and everything else to another, checks that the protected routes really
// refuse, and drives interleaved rounds of the same request bytes through each
// proxy. It asserts no ratio and knows no package of gatehouse: what it measures
// is the program that it starts. Linux only, for pinning and processor clocks.
//
//	go run ./loadtest/bench                     # seven rounds of 2.5 s each
//	go run ./loadtest/bench -only nginx,enforced -perf perf.data
//	go run ./loadtest/bench -free               # both cores for everybody
//	go run ./loadtest/bench -write              # puts the table into loadtest/README.md
package main
