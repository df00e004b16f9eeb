package routes

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// route makes a route of "GET,HEAD host,host /path"; "-" is any.
func route(t testing.TB, line int, spec string) *Route {
	t.Helper()
	parts := strings.Fields(spec)
	if len(parts) != 3 {
		t.Fatalf("bad route %q", spec)
	}
	list := func(s string) []string {
		if s == "-" {
			return nil
		}
		return strings.Split(s, ",")
	}
	return &Route{
		Pos:     Pos{File: "routes.yaml", Line: line, Column: 5},
		Name:    spec,
		Methods: list(parts[0]), Hosts: list(parts[1]), Path: parts[2],
	}
}

func tableOf(t testing.TB, specs ...string) (*Table, error) {
	t.Helper()
	var rs []*Route
	for i, s := range specs {
		rs = append(rs, route(t, i+1, s))
	}
	return NewTable(rs)
}

func TestMatchFollowsSpecificity(t *testing.T) {
	table, err := tableOf(t,
		"- - /**",
		"GET - /orders/**",
		"- - /orders/{id}",
		"- - /orders/*",
		"- - /orders/new",
		"POST - /orders",
		"- - /a/{x}/**",
		"- - /a/*/c",
		"- api.example.com /orders/{id}",
		"GET *.example.com /orders/{id}",
		"- *.eu.example.com /orders/{id}",
		"GET,HEAD m.test /both",
		"GET m.test /both",
		"- m.test /both",
		"GET m.test /only",
		"PUT,POST m.test /only/**",
	)
	if err != nil {
		t.Fatal(err)
	}
	f := func(request, want string) {
		t.Helper()
		method, url, _ := strings.Cut(request, " ")
		host, path, _ := strings.Cut(url, "/")
		m := table.Match([]byte(host), []byte(method), []byte("/"+path))
		got := "none"
		if m.Route != nil {
			got = m.Route.Name
		} else if m.Allow != "" {
			got = "405 " + m.Allow
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", request, got, want)
		}
	}
	f("GET h.test/", "- - /**")
	f("GET h.test/orders", "GET - /orders/**")
	f("GET h.test/orders/", "GET - /orders/**")
	f("HEAD h.test/orders", "- - /**") // GET does not imply HEAD
	f("POST h.test/orders", "POST - /orders")
	f("GET h.test/orders/new", "- - /orders/new")
	f("GET h.test/orders/7", "- - /orders/{id}")
	f("GET h.test/orders/7/", "GET - /orders/**")
	f("GET h.test/orders/7/items", "GET - /orders/**")
	f("GET h.test/ordersx", "- - /**")
	f("GET h.test/Orders/new", "- - /**")
	f("GET h.test/a/b/c", "- - /a/*/c") // fewer requests, so more specific
	f("GET h.test/a/b/d", "- - /a/{x}/**")
	f("GET h.test/a/", "- - /**") // {x} is never empty

	f("GET api.example.com/orders/7", "- api.example.com /orders/{id}")
	f("GET www.example.com/orders/7", "GET *.example.com /orders/{id}")
	f("GET a.b.example.com/orders/7", "GET *.example.com /orders/{id}")
	f("GET a.eu.example.com/orders/7", "- *.eu.example.com /orders/{id}")
	f("GET eu.example.com/orders/7", "GET *.example.com /orders/{id}")
	f("GET example.com/orders/7", "- - /orders/{id}")
	f("GET notexample.com/orders/7", "- - /orders/{id}")
	f("PUT www.example.com/orders/7", "- - /orders/{id}") // a wider host has the method
	f("GET api.example.com/other", "- - /**")             // a wider host has the path
	f("GET /orders/7", "- - /orders/{id}")                // no host at all

	f("GET m.test/both", "GET m.test /both")
	f("HEAD m.test/both", "GET,HEAD m.test /both")
	f("BREW m.test/both", "- m.test /both")
}

func TestMatchListsTheMethodsOfAllRoutesOfAPath(t *testing.T) {
	table, err := tableOf(t,
		"GET m.test /only",
		"PUT,POST m.test /only/**",
		"DELETE *.test /only",
	)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if m := table.Match([]byte("m.test"), []byte("BREW"), []byte("/only")); m.Route != nil || m.Allow != "DELETE, GET, POST, PUT" {
			t.Fatalf("got %+v", m)
		}
	}
	if m := table.Match([]byte("m.test"), []byte("GET"), []byte("/none")); m != (Match{}) {
		t.Fatalf("got %+v", m)
	}
	if m := table.Match([]byte("x.m.test"), []byte("GET"), []byte("/only")); m.Allow != "DELETE" {
		t.Fatalf("got %+v", m)
	}
}

func TestNewTableNamesConflicts(t *testing.T) {
	f := func(want string, specs ...string) {
		t.Helper()
		_, err := tableOf(t, specs...)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want %q", specs, got, want)
		}
	}
	f(`routes.yaml:2:5: route "GET - /a" conflicts with route "GET - /a" at routes.yaml:1:5: both match GET /a, and neither is more specific`, "GET - /a", "GET - /a")
	f("both match GET /a/b/c,", "- - /a/{x}/c", "- - /a/b/{y}")
	f("both match GET /a/x/b", "- - /{x}/b", "- - /a/{x}/b", "- - /{y}/{z}/b", "- - /a/*/**", "- - /{q}/x/b")
	f("both match POST a.test/a,", "GET,POST a.test /a", "POST,PUT - /a", "POST,PUT b.test,a.test /a")
	f("both match GET x.a.test/a,", "- *.a.test /a", "- *.a.test /a")
	f("both match GET /x/b/", "- - /*/b/**", "- - /x/{y}/")
	f("", "GET - /a/{x}/c", "POST - /a/b/{y}")
	f("", "- a.test /a/{x}/c", "- - /a/b/{y}")
	f("", "- - /a/{x}", "- - /a/*", "- - /a/**", "- - /**", "- - /a/b", "GET - /a/b", "GET,HEAD - /a/b")
	f("", "- - /a/{x}/", "- - /a/{y}")

	f(`path "a" must start with /`, "- - a")
	f(`is not canonical and would never match; write "/a/b"`, "- - /a//b/../b")
	f(`write "/admin"`, "- - /%61dmin")
	f("holds a character or an escape that no request may hold", "- - /a#b")
	f("** may only be the last segment", "- - /a/**/b")
	f("match whole segments only", "- - /a*")
	f("match whole segments only", "- - /a/{id}.json")
	f("{id} stands there twice", "- - /{id}/{id}")
	f("is not a parameter", "- - /{}")
	f("is not a parameter", "- - /{1x}")
	f("needs allow_encoded_slash", "- - /a%2Fb")
	f(`host "A.test" must be written "a.test"`, "- A.test /")
	f("a wildcard is the whole first label", "- a.*.test /")
	f("a port cannot be matched", "- a.test:80 /")
	f("is not a host name", "- a_!b /")
	f(`host "a.test" stands there twice`, "- a.test,a.test /")
	f(`method "get" must be in upper case`, "get - /")
	f("CONNECT is never routed", "CONNECT - /")
	f(`method "GET" stands there twice`, "GET,GET - /")
}

func TestNewTableRefusesMoreMethodsThanBits(t *testing.T) {
	var specs []string
	for i := range 63 {
		specs = append(specs, fmt.Sprintf("M%d - /a", i))
	}
	table, err := tableOf(t, specs...)
	if err != nil {
		t.Fatal(err)
	}
	if m := table.Match(nil, []byte("M62"), []byte("/a")); m.Route == nil || m.Route.Name != "M62 - /a" {
		t.Fatalf("got %+v", m)
	}
	if _, err := tableOf(t, append(specs, "X - /a")...); err == nil {
		t.Fatal("the 64th method was accepted")
	}
}

// naive matches by trying every route.
func naive(routes []*Route, host, method, path string) (best *Route, allow []string) {
	bestKey := ""
	for _, r := range routes {
		hosts := r.Hosts
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		for _, h := range hosts {
			key, ok := naiveHost(h, host)
			if !ok {
				continue
			}
			pathKey, ok := naivePath(r.Path, path)
			if !ok {
				continue
			}
			if len(r.Methods) > 0 && !slices.Contains(r.Methods, method) {
				allow = append(allow, r.Methods...)
				continue
			}
			count := len(r.Methods)
			if count == 0 {
				count = 99
			}
			key += " " + pathKey + fmt.Sprintf(" %02d", count)
			if best == nil || key < bestKey {
				best, bestKey = r, key
			}
		}
	}
	if best != nil {
		return best, nil
	}
	slices.Sort(allow)
	return nil, slices.Compact(allow)
}

func naiveHost(pattern, host string) (key string, ok bool) {
	suffix, wildcard := strings.CutPrefix(pattern, "*")
	switch {
	case pattern == "":
		return "z", true
	case !wildcard:
		return "a", pattern == host
	}
	return fmt.Sprintf("b%03d", 999-len(suffix)), strings.HasSuffix(host, suffix) && host != suffix
}

// naivePath gives a key that is smaller for the pattern that wins: first one
// letter per segment for the set of paths, then {id} before *.
func naivePath(pattern, path string) (key string, ok bool) {
	tie := ""
	ps, ss := strings.Split(pattern, "/")[1:], strings.Split(path, "/")[1:]
	for i, p := range ps {
		if p == "**" {
			return key + "d " + tie, true
		}
		if i == len(ss) {
			return "", false
		}
		switch {
		case p == "*":
			key, tie = key+"b", tie+"2"
			ok = ss[i] != ""
		case strings.HasPrefix(p, "{"):
			key, tie = key+"b", tie+"1"
			ok = ss[i] != ""
		default:
			key += "a"
			ok = p == ss[i]
		}
		if !ok {
			return "", false
		}
	}
	return key + "a " + tie, len(ps) == len(ss)
}

func TestMatchAgreesWithNaiveMatcher(t *testing.T) {
	word := rapid.SampledFrom([]string{"a", "b", "c"})
	segment := rapid.SampledFrom([]string{"a", "b", "c", "a", "b", "{x}", "*"})
	host := rapid.SampledFrom([]string{"", "a.test", "b.a.test", "*.test", "*.a.test"})
	methods := rapid.SampledFrom([][]string{nil, {"GET"}, {"GET", "HEAD"}, {"POST"}, {"PUT", "POST", "GET"}})
	rapid.Check(t, func(rt *rapid.T) {
		var kept []*Route
		for i := range rapid.IntRange(1, 25).Draw(rt, "routes") {
			r := &Route{Name: fmt.Sprint(i), Methods: methods.Draw(rt, "methods")}
			if h := host.Draw(rt, "host"); h != "" {
				r.Hosts = []string{h}
			}
			for n, s := range rapid.SliceOfN(segment, 0, 4).Draw(rt, "path") {
				if s == "{x}" {
					s = fmt.Sprintf("{x%d}", n)
				}
				r.Path += "/" + s
			}
			r.Path += rapid.SampledFrom([]string{"", "/", "/**"}).Draw(rt, "end")
			if r.Path == "" {
				r.Path = "/"
			}
			if _, err := NewTable(append(slices.Clone(kept), r)); err == nil {
				kept = append(kept, r)
			}
		}
		table, err := NewTable(kept)
		if err != nil {
			rt.Fatal(err)
		}
		for range 20 {
			h := rapid.SampledFrom([]string{"", "a.test", "b.a.test", "c.b.a.test", "x.test", "test", "other"}).Draw(rt, "request host")
			m := rapid.SampledFrom([]string{"GET", "HEAD", "POST", "PUT", "BREW"}).Draw(rt, "method")
			p := "/" + strings.Join(rapid.SliceOfN(word, 0, 5).Draw(rt, "request path"), "/")
			if p != "/" && rapid.Bool().Draw(rt, "slash") {
				p += "/"
			}
			want, allow := naive(kept, h, m, p)
			got := table.Match([]byte(h), []byte(m), []byte(p))
			if got.Route != want || got.Allow != strings.Join(allow, ", ") {
				rt.Fatalf("%s %s%s: got %+v, want %+v, %v", m, h, p, got, want, allow)
			}
		}
	})
}

func manyRoutes(t testing.TB, n int) *Table {
	t.Helper()
	specs := []string{"- - /**"}
	for i := range n {
		specs = append(specs, fmt.Sprintf("GET,HEAD h%d.example.com,api.example.com /service%d/{id}/items/**", i%100, i))
	}
	table, err := tableOf(t, specs...)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

var matchRequests = [][3]string{
	{"api.example.com", "GET", "/service7/123/items/9"},
	{"h7.example.com", "HEAD", "/service7/123/items"},
	{"other.example.org", "GET", "/anything/below"},
	{"api.example.com", "POST", "/service7/123/items/9"},
}

func TestMatchDoesNotAllocate(t *testing.T) {
	tables := []*Table{manyRoutes(t, 1000)}
	refusing, err := tableOf(t, "GET,HEAD - /service7/**")
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range append(tables, refusing) {
		for _, r := range matchRequests {
			host, method, path := []byte(r[0]), []byte(r[1]), []byte(r[2])
			if n := testing.AllocsPerRun(100, func() { table.Match(host, method, path) }); n != 0 {
				t.Errorf("%v: %v allocations", r, n)
			}
		}
	}
}

func TestMatchIsSafeForConcurrentUse(t *testing.T) {
	table := manyRoutes(t, 100)
	refusing, err := tableOf(t, "GET - /a/**", "PUT - /a/b", "POST,PATCH - /a/{x}")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if table.Match([]byte("api.example.com"), []byte("GET"), []byte("/service7/1/items")).Route == nil {
					t.Error("no route")
				}
				if m := refusing.Match(nil, []byte("BREW"), []byte("/a/b")); m.Allow != "GET, PATCH, POST, PUT" {
					t.Errorf("got %+v", m)
				}
				if m := refusing.Match(nil, []byte("BREW"), []byte("/a/c")); m.Allow != "GET, PATCH, POST" {
					t.Errorf("got %+v", m)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 1000, 10000} {
		table := manyRoutes(b, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			host, method, path := []byte(matchRequests[0][0]), []byte(matchRequests[0][1]), []byte(matchRequests[0][2])
			b.ReportAllocs()
			for b.Loop() {
				if table.Match(host, method, path).Route == nil {
					b.Fatal("no route")
				}
			}
		})
	}
}

func BenchmarkNewTable(b *testing.B) {
	for b.Loop() {
		manyRoutes(b, 10000)
	}
}

func TestParametersDoNotHideARoute(t *testing.T) {
	all, admin := &Route{Path: "/**"}, &Route{Path: "/admin/**"}
	odd := &Route{Path: "/odd;v=1", Index: 2}
	table, err := NewTable([]*Route{all, admin, odd})
	if err != nil {
		t.Fatal(err)
	}
	f := func(path string, want bool) {
		t.Helper()
		r := table.Match(nil, []byte("GET"), []byte(path)).Route
		if got := table.Shadowed(r, nil, []byte("GET"), []byte(path)); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	f("/a", false)
	f("/a;b=c/d;e", false)
	f("/admin/x;y", false)
	f("/odd;v=1", false)
	f("/admin;x", true)
	f("/admin;x/y", true)
	f("/admin;/y", true)
	f("/;x/admin/y", true)
}
