// Package admin is the operators' side of a gateway: health, metrics, reload
// and the admin API's own part, on a listener that clients do not reach.
//
// It owns who may use it, the metrics of requests, and the endpoints below. The
// authorization server's part of the API comes as a handler from cmd.
//
//	a := admin.New(admin.Config{Token: "…", Ready: ready, Reload: reload})
//	http.Serve(ln, a.Handler())
package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/gatehouse/gatehouse/gateway"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Config is what the admin listener shows and does. Ready, Reload, Routes and
// Services are required.
type Config struct {
	// Token admits to everything; empty: there is none.
	Token string
	// Verify finds out whose access token a request holds, and refuses one that
	// may not look, or that may not change anything where changes is true. Its
	// errors are *plugins.Error. nil: access tokens do not admit; without Token
	// the API is off then.
	Verify func(r *http.Request, changes bool) (*plugins.Principal, error)
	// Ready returns nil while the edge can serve, else the reason.
	Ready func() error
	// AuthServerReady is the same for the authorization server; nil: there is
	// none in this process.
	AuthServerReady func(context.Context) error
	// Reload reads the configuration again.
	Reload   func(context.Context) error
	Routes   func() []*routes.Route
	Services func() []gateway.ServiceStatus
	// AuthServer handles the authorization server's part of /api/v1/.
	AuthServer http.Handler
	Registry   *prometheus.Registry
}

// Admin serves the operators.
type Admin struct{ cfg Config }

// New makes an Admin.
func New(c Config) *Admin { return &Admin{c} }

// Handler returns everything that the admin listener serves.
func (a *Admin) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { ready(w, a.cfg.Ready()) })
	mux.HandleFunc("GET /readyz/authserver", func(w http.ResponseWriter, r *http.Request) {
		if a.cfg.AuthServerReady == nil {
			text(w, http.StatusNotFound, "no authorization server runs in this process")
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		ready(w, a.cfg.AuthServerReady(ctx))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.cfg.Registry, promhttp.HandlerOpts{}))
	api := http.NewServeMux()
	api.HandleFunc("POST /api/v1/config/reload", a.reload)
	api.HandleFunc("GET /api/v1/routes", a.routes)
	api.HandleFunc("GET /api/v1/services", a.services)
	if a.cfg.AuthServer != nil {
		api.Handle("/api/v1/", a.cfg.AuthServer)
	}
	mux.Handle("/api/v1/", a.admit(api, changes))
	profiles := http.NewServeMux()
	profiles.HandleFunc("GET /debug/pprof/", pprof.Index)
	profiles.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	profiles.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	// A profile costs time and tells more than any list does.
	mux.Handle("/debug/pprof/", a.admit(profiles, func(*http.Request) bool { return true }))
	return mux
}

func ready(w http.ResponseWriter, err error) {
	if err != nil {
		text(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	text(w, http.StatusOK, "ok")
}

func text(w http.ResponseWriter, status int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(s + "\n"))
}

// changes reports whether a request can change something.
func changes(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return false
	}
	// A token has to be in the content: addresses are logged on their way.
	return r.URL.Path != "/api/v1/tokens/inspect"
}

type actorKey struct{}

// staticToken is the actor that holds the static token.
const staticToken = "static-token"

// Actor is who makes a request that was admitted, as the audit names it:
// static-token, or client:ID for the holder of an access token.
func Actor(ctx context.Context) string {
	actor, _ := ctx.Value(actorKey{}).(string)
	return actor
}

// admit lets holders of the static token pass, and those of access tokens with
// the scope for what they do.
func (a *Admin) admit(next http.Handler, changes func(*http.Request) bool) http.Handler {
	want := sha256.Sum256([]byte(a.cfg.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		actor := staticToken
		if !a.static(r, want) {
			who, err := a.verify(r, changes(r))
			if err != nil {
				render(w, err)
				return
			}
			actor = "client:" + who.ClientID
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), actorKey{}, actor)))
	})
}

// static compares digests, so that the time tells nothing about the token.
func (a *Admin) static(r *http.Request, want [sha256.Size]byte) bool {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got := sha256.Sum256([]byte(given))
	return a.cfg.Token != "" && strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

func (a *Admin) verify(r *http.Request, changes bool) (*plugins.Principal, error) {
	if a.cfg.Verify == nil {
		return nil, &plugins.Error{
			Status: http.StatusUnauthorized, Code: plugins.TokenInvalid, Detail: "The admin API wants the token of admin.token.",
			Header: [][2]string{{"WWW-Authenticate", "Bearer"}},
		}
	}
	return a.cfg.Verify(r, changes)
}

// render writes a refusal as the gateway's other listeners do.
func render(w http.ResponseWriter, err error) {
	var refusal *plugins.Error
	if !errors.As(err, &refusal) {
		refusal = &plugins.Error{Status: http.StatusInternalServerError, Code: plugins.Internal}
	}
	for _, field := range refusal.Header {
		w.Header().Add(field[0], field[1])
	}
	refuse(w, refusal.Status, refusal.Code, refusal.Detail)
}

func refuse(w http.ResponseWriter, status int, reason, detail string) {
	problem := map[string]any{
		"type": "urn:gatehouse:problem:" + reason, "title": plugins.Title(reason), "status": status, "reason": reason,
	}
	if detail != "" {
		problem["detail"] = detail
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(problem)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (a *Admin) reload(w http.ResponseWriter, r *http.Request) {
	if err := a.cfg.Reload(r.Context()); err != nil {
		refuse(w, http.StatusUnprocessableEntity, "config_invalid", err.Error())
		return
	}
	answer(w, map[string]string{"status": "reloaded"})
}

// RouteView is a route as operators see it, in the API and on the terminal.
type RouteView struct {
	Name    string   `json:"name"`
	Hosts   []string `json:"hosts,omitempty"`
	Path    string   `json:"path"`
	Methods []string `json:"methods,omitempty"`
	Service string   `json:"service"`
	Access  string   `json:"access"`
	Limits  []string `json:"limits,omitempty"`
	Mode    string   `json:"mode,omitempty"`
	Source  string   `json:"source"`
}

// View describes a route.
func View(r *routes.Route) RouteView {
	v := RouteView{
		Name: r.Name, Hosts: r.Hosts, Path: r.Path, Methods: r.Methods, Service: r.Service,
		Access: "public", Mode: r.Mode, Source: r.Pos.String(),
	}
	switch {
	case r.APIKey != nil && len(r.APIKey.Scopes) > 0:
		v.Access = "API key with scopes " + strings.Join(r.APIKey.Scopes, " ")
	case r.APIKey != nil:
		v.Access = "any API key"
	case r.Auth != nil:
		switch {
		case len(r.Auth.Scopes) > 0:
			v.Access = "scopes " + strings.Join(r.Auth.Scopes, " ")
		case len(r.Auth.AnyScopes) > 0:
			v.Access = "any of " + strings.Join(r.Auth.AnyScopes, " ")
		default:
			v.Access = "any valid token"
		}
		if r.Auth.MTLS != "" {
			v.Access += " and a client certificate"
		}
	}
	for _, l := range r.RateLimits {
		v.Limits = append(v.Limits, limit(l))
	}
	return v
}

func limit(l *routes.RateLimit) string {
	s, _ := json.Marshal(l.Limit)
	out := string(s) + " per " + l.Per.String() + " by " + l.By
	if l.Name != "" {
		out = l.Name + ": " + out
	}
	return out
}

func (a *Admin) routes(w http.ResponseWriter, _ *http.Request) {
	list := []RouteView{}
	for _, r := range a.cfg.Routes() {
		list = append(list, View(r))
	}
	answer(w, list)
}

type instanceView struct {
	ID           string     `json:"id"`
	Address      string     `json:"address"`
	Weight       int        `json:"weight"`
	InFlight     int        `json:"in_flight"`
	Failures     uint64     `json:"failures"`
	EjectedUntil *time.Time `json:"ejected_until,omitempty"`
}

type serviceView struct {
	Name      string         `json:"name"`
	Panic     bool           `json:"panic"`
	Instances []instanceView `json:"instances"`
}

func (a *Admin) services(w http.ResponseWriter, _ *http.Request) {
	list := []serviceView{}
	for _, s := range a.cfg.Services() {
		v := serviceView{Name: s.Name, Panic: s.Panic, Instances: []instanceView{}}
		for _, i := range s.Instances {
			view := instanceView{ID: i.ID, Address: i.Addr.String(), Weight: i.Weight, InFlight: i.InFlight, Failures: i.Failures}
			if !i.EjectedUntil.IsZero() {
				view.EjectedUntil = &i.EjectedUntil
			}
			v.Instances = append(v.Instances, view)
		}
		list = append(list, v)
	}
	answer(w, list)
}
