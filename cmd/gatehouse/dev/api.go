package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

const maxBody = 1 << 20

// ServeHTTP answers the paths below /v1/ that routes names.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) { r.mux.ServeHTTP(w, req) }

func (r *Registry) routes() *http.ServeMux {
	mux := http.NewServeMux()
	for pattern, h := range map[string]func(*http.Request) (any, error){
		"PUT /v1/agent/service/register":           r.putService,
		"PUT /v1/agent/service/deregister/{id...}": r.putDeregister,
		"PUT /v1/agent/check/pass/{id...}":         r.putStatus(passing),
		"PUT /v1/agent/check/warn/{id...}":         r.putStatus(warning),
		"PUT /v1/agent/check/fail/{id...}":         r.putStatus(critical),
		"PUT /v1/agent/check/update/{id...}":       r.putUpdate,
		"GET /v1/agent/services":                   r.getAgentServices,
		"GET /v1/agent/checks":                     r.getAgentChecks,
		"GET /v1/status/leader":                    getLeader,
	} {
		mux.HandleFunc(pattern, answer(h))
	}
	for pattern, q := range map[string]query{
		"GET /v1/catalog/services":          {r.listServices, nil},
		"GET /v1/catalog/service/{name...}": {r.listCatalog, []string{"tag"}},
		"GET /v1/health/service/{name...}":  {r.listHealth, []string{"tag", "passing"}},
	} {
		mux.HandleFunc(pattern, r.blocking(q))
	}
	return mux
}

// refusal is an error with its status; any other error is a 400.
type refusal struct {
	status int
	text   string
}

func (e refusal) Error() string { return e.text }

// answer makes a handler of a function that returns what to write as JSON, or
// nil for an empty answer.
func answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		req.Body = http.MaxBytesReader(w, req.Body, maxBody)
		v, err := f(req)
		if err != nil {
			refuse(w, err)
			return
		}
		writeJSON(w, v)
	}
}

func refuse(w http.ResponseWriter, err error) {
	status := http.StatusBadRequest
	var r refusal
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &r):
		status = r.status
	case errors.As(err, &tooLarge):
		status = http.StatusRequestEntityTooLarge
	}
	http.Error(w, err.Error(), status)
}

func writeJSON(w http.ResponseWriter, v any) {
	if v == nil {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // fails only when the client has gone
}

func (r *Registry) putService(req *http.Request) (any, error) {
	if err := only(req, "replace-existing-checks"); err != nil {
		return nil, err
	}
	replace, err := flag(req, "replace-existing-checks")
	if err != nil {
		return nil, err
	}
	reg, err := decodeRegistration(req.Body)
	if err != nil {
		return nil, err
	}
	r.register(reg, replace)
	return nil, nil
}

func (r *Registry) putDeregister(req *http.Request) (any, error) {
	id := req.PathValue("id")
	if err := r.deregister(id); err != nil {
		return nil, refusal{http.StatusNotFound, fmt.Sprintf("%v %q", err, id)}
	}
	return nil, nil
}

func (r *Registry) putStatus(status string) func(*http.Request) (any, error) {
	return func(req *http.Request) (any, error) {
		if err := only(req, "note"); err != nil {
			return nil, err
		}
		return nil, r.beat(req.PathValue("id"), status, req.URL.Query().Get("note"))
	}
}

func (r *Registry) putUpdate(req *http.Request) (any, error) {
	var u struct{ Status, Output string }
	if err := decodeStrict(req.Body, &u); err != nil {
		return nil, err
	}
	if u.Status != passing && u.Status != warning && u.Status != critical {
		return nil, fmt.Errorf("invalid check status %q", u.Status)
	}
	return nil, r.beat(req.PathValue("id"), u.Status, u.Output)
}

func (r *Registry) beat(id, status, output string) error {
	switch err := r.heartbeat(id, status, output); {
	case errors.Is(err, errNoCheck):
		return refusal{http.StatusNotFound, fmt.Sprintf("%v %q", err, id)}
	case err != nil:
		return refusal{http.StatusInternalServerError, fmt.Sprintf("%v: %q", err, id)}
	}
	return nil
}

func (r *Registry) getAgentServices(req *http.Request) (any, error) {
	if err := only(req); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string]serviceView{}
	for id, s := range r.services {
		if !s.internal {
			all[id] = s.view()
		}
	}
	return all, nil
}

func (r *Registry) getAgentChecks(req *http.Request) (any, error) {
	if err := only(req); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string]checkView{}
	for id, c := range r.checks {
		all[id] = c.view()
	}
	return all, nil
}

func getLeader(req *http.Request) (any, error) { return "127.0.0.1:8300", only(req) }
