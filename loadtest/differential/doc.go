// Package differential puts the gateway in front of proxies and servers that
// others wrote (nginx, haproxy, apache2, varnish, caddy, node) and sends it the
// corpus of loadtest/desync: what the gateway takes for one message, whoever
// stands behind must take for one too.
//
// It owns the comparison of what a client sent, what arrived at the origin, and
// whose answers came back. It does not own the corpus, nor what the gateway alone
// does with it, which is loadtest/edge. Everything here is tests.
//
//	go test ./loadtest/differential -run 'TestDifferential/haproxy/clte-plain'
package differential
