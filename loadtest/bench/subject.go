package main

import (
	"fmt"
	"slices"
	"strings"
)

// subject is one row of the table: a proxy, and what is asked of it.
type subject struct {
	name, title string
	server      string // the process that serves it
	port        func(place) int
	path        string
	freshEvery  int  // every n-th request carries a token never seen before
	protected   bool // must refuse what is not allowed
	version     int  // of HTTP, over TLS; 0: HTTP/1.1 without TLS
	base        string
}

// yardstick is the subject that the others are divided by, but for those that
// name another base.
const yardstick = "nginx"

func subjects() []subject {
	const plain, guard = "/plain/items/1", "/guard/items/1"
	gatehouse := func(p place) int { return p.Gatehouse }
	return []subject{
		{name: yardstick, title: "nginx, plain", server: "nginx", path: plain,
			port: func(p place) int { return p.Nginx }},
		{name: "plain", title: "gatehouse, plain", server: "gatehouse", path: plain, port: gatehouse},
		{name: "enforced", title: "gatehouse, enforced", server: "gatehouse", path: guard, port: gatehouse, protected: true},
		{name: "fresh", title: "gatehouse, enforced, 5 % new tokens", server: "gatehouse", path: guard, port: gatehouse,
			protected: true, freshEvery: 20},
		{name: "haproxy", title: "haproxy, JWT, scope and limit", server: "haproxy", path: guard,
			port: func(p place) int { return p.Haproxy }, protected: true},
		{name: "nginx-tls", title: "nginx, TLS, HTTP/1.1", server: "nginx", path: plain, version: 1, base: "nginx-tls",
			port: func(p place) int { return p.NginxTLS }},
		{name: "tls", title: "gatehouse, TLS, HTTP/1.1, enforced", server: "gatehouse", path: guard, version: 1, base: "nginx-tls",
			port: func(p place) int { return p.GatehouseTLS }},
		{name: "nginx-h2", title: "nginx, TLS, HTTP/2", server: "nginx", path: plain, version: 2, base: "nginx-h2",
			port: func(p place) int { return p.NginxTLS }},
		{name: "h2", title: "gatehouse, TLS, HTTP/2, enforced", server: "gatehouse", path: guard, version: 2, base: "nginx-h2",
			port: func(p place) int { return p.GatehouseTLS }},
		{name: "haproxy-plain", title: "haproxy, plain", server: "haproxy", path: plain,
			port: func(p place) int { return p.HaproxyPlain }},
	}
}

// selected returns the subjects of a comma list; an empty one means all but
// haproxy-plain, whose figures say little beside those of nginx.
func selected(only string) ([]subject, error) {
	all := subjects()
	if only == "" {
		return all[:len(all)-1], nil
	}
	var some []subject
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(s subject) bool { return s.name == name })
		if i < 0 {
			var names []string
			for _, s := range all {
				names = append(names, s.name)
			}
			return nil, fmt.Errorf("unknown proxy %q (there are: %s)", name, strings.Join(names, ", "))
		}
		if slices.ContainsFunc(some, func(s subject) bool { return s.name == name }) {
			return nil, fmt.Errorf("proxy %q stands twice in the list", name)
		}
		some = append(some, all[i])
	}
	return some, nil
}

// processes returns the processes that the subjects need, each once.
func processes(of []subject) []string {
	var names []string
	for _, s := range of {
		if !slices.Contains(names, s.server) {
			names = append(names, s.server)
		}
	}
	return names
}
