// Package authbench measures what the authorization server's endpoints cost,
// beside npm oidc-provider on the same machine: processor time per request of
// each server, pinned to one core, with PostgreSQL and the load on another.
//
// Its test does all of it in small on every run, so that the measurement works
// when it is wanted; `make bench-authserver` does it in full and puts the table
// into loadtest/README.md. It does not own the edge's bench (loadtest/bench).
package authbench
