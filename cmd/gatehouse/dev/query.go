package dev

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	defaultWait = 5 * time.Minute
	maxWait     = 10 * time.Minute
)

// query is one endpoint that can wait: what it lists, and its parameters
// besides those of every query. list runs under the lock and returns the index
// of what it lists.
type query struct {
	list   func(*http.Request) (any, uint64, error)
	params []string
}

// blocking makes a handler that waits, when asked to, until the index is
// another one. An index from before a restart does not wait.
func (r *Registry) blocking(q query) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		index, wait, err := waitOf(req, q.params)
		if err != nil {
			refuse(w, err)
			return
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		for timeout := false; ; {
			r.mu.Lock()
			v, now, err := q.list(req)
			changed := r.changed
			r.mu.Unlock()
			if err != nil {
				refuse(w, err)
				return
			}
			if index == 0 || now != index || timeout {
				w.Header().Set("X-Consul-Index", strconv.FormatUint(now, 10))
				w.Header().Set("X-Consul-KnownLeader", "true")
				w.Header().Set("X-Consul-LastContact", "0")
				writeJSON(w, v)
				return
			}
			select {
			case <-changed:
			case <-timer.C:
				timeout = true
			case <-r.closed:
				timeout = true
			case <-req.Context().Done():
				return
			}
		}
	}
}

// waitOf reads the parameters of every query. There is one node that knows all,
// so stale and consistent answers are the same.
func waitOf(req *http.Request, params []string) (index uint64, wait time.Duration, err error) {
	if err := only(req, append(params, "index", "wait", "stale", "consistent", "dc")...); err != nil {
		return 0, 0, err
	}
	v := req.URL.Query()
	if v.Has("stale") && v.Has("consistent") {
		return 0, 0, errors.New("cannot specify ?stale with ?consistent, conflicting semantics")
	}
	if dc := v.Get("dc"); dc != "" && dc != datacenter {
		return 0, 0, refusal{http.StatusInternalServerError, "no path to datacenter"}
	}
	if s := v.Get("index"); s != "" {
		if index, err = strconv.ParseUint(s, 10, 64); err != nil {
			return 0, 0, errors.New("invalid index")
		}
	}
	wait = defaultWait
	if s := v.Get("wait"); s != "" {
		if wait, err = time.ParseDuration(s); err != nil {
			return 0, 0, errors.New("invalid wait time")
		}
	}
	return index, min(wait, maxWait), nil
}

// only refuses parameters that would have no effect. A token and the wish for
// pretty JSON may stand everywhere: there are no ACLs to obey.
func only(req *http.Request, known ...string) error {
	for name := range req.URL.Query() {
		if name != "token" && name != "pretty" && !slices.Contains(known, name) {
			return fmt.Errorf("parameter %q is not supported by the development registry", name)
		}
	}
	return nil
}

// flag reads a boolean parameter that may stand without a value.
func flag(req *http.Request, name string) (bool, error) {
	v := req.URL.Query()
	if !v.Has(name) {
		return false, nil
	}
	if v.Get(name) == "" {
		return true, nil
	}
	b, err := strconv.ParseBool(v.Get(name))
	if err != nil {
		return false, fmt.Errorf("invalid value for ?%s", name)
	}
	return b, nil
}

func (r *Registry) listServices(*http.Request) (any, uint64, error) {
	all := map[string][]string{}
	for _, s := range r.services {
		tags := append(all[s.Name], s.Tags...)
		slices.Sort(tags)
		all[s.Name] = slices.Compact(tags)
	}
	for name, tags := range all {
		if tags == nil {
			all[name] = []string{}
		}
	}
	return all, r.index, nil
}

func (r *Registry) listCatalog(req *http.Request) (any, uint64, error) {
	name := req.PathValue("name")
	if name == "" {
		return nil, 0, errors.New("missing service name")
	}
	all := []catalogView{}
	for _, s := range r.instancesLocked(name) {
		if s.hasTags(req.URL.Query()["tag"]) {
			all = append(all, s.catalogView())
		}
	}
	return all, r.indexLocked(name), nil
}

func (r *Registry) listHealth(req *http.Request) (any, uint64, error) {
	name := req.PathValue("name")
	if name == "" {
		return nil, 0, errors.New("missing service name")
	}
	passingOnly, err := flag(req, "passing")
	if err != nil {
		return nil, 0, err
	}
	all := []healthView{}
	for _, s := range r.instancesLocked(name) {
		v := healthView{Node: node, Service: s.view(), Checks: []checkView{nodeCheck}}
		ok := s.hasTags(req.URL.Query()["tag"])
		for _, c := range r.checksLocked(s) {
			v.Checks = append(v.Checks, c.view())
			ok = ok && (!passingOnly || c.status == passing)
		}
		if ok {
			all = append(all, v)
		}
	}
	return all, r.indexLocked(name), nil
}

// indexLocked is the index of a service. One that never was has 1, so that a
// query for it waits for its first instance and for nothing else.
func (r *Registry) indexLocked(name string) uint64 { return max(1, r.byName[name]) }

// hasTags tells whether the instance has all tags, whatever their case.
func (s *service) hasTags(tags []string) bool {
	for _, want := range tags {
		if !slices.ContainsFunc(s.Tags, func(have string) bool { return strings.EqualFold(have, want) }) {
			return false
		}
	}
	return true
}

func cloneMeta(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}
