// Package admin is the part of the admin API under /api/v1 that concerns the
// authorization server: clients, users, sessions, grants, keys, revocations
// and the audit log.
//
// It owns what an operator may change and that every change is audited. It
// does not decide who an operator is: whoever mounts the handler does, and
// says who it was with WithActor.
//
//	mux.Handle("/api/v1/", authenticated(admin.New(config)))
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/enrol"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Revoker logs revocations.
type Revoker interface {
	Revoke(ctx context.Context, level oauth.Level, id string, events ...store.AuditEvent) (oauth.Revocation, error)
	// Withdraw takes back what a subject allowed a client.
	Withdraw(ctx context.Context, subject, clientID string, events ...store.AuditEvent) error
}

// Rotator changes the signing keys.
type Rotator interface {
	// RotateNow begins a rotation; store.ErrExists while one is under way.
	RotateNow(ctx context.Context, events ...store.AuditEvent) error
	// Retire takes a key out of use at once; store.ErrNotFound.
	Retire(ctx context.Context, kid string, events ...store.AuditEvent) error
}

// Config is what an API needs.
type Config struct {
	Store   store.Store
	Clients *clients.Registry
	Users   *users.Registry
	Scopes  *scopes.Catalogue
	Revoker Revoker
	Enrol   *enrol.Enrol
	Keys    Rotator
	Tokens  *tokens.Issuer
	Audit   *audit.Log
	Logger  *slog.Logger
	Now     func() time.Time
	// Timeout bounds everything that a request waits for.
	Timeout time.Duration
}

type api struct{ Config }

// New returns the handler of all paths under /api/v1/.
func New(c Config) http.Handler {
	a := &api{c}
	mux := http.NewServeMux()
	for pattern, h := range map[string]web.Endpoint{
		"GET /api/v1/clients":                              a.listClients,
		"POST /api/v1/clients":                             a.addClient,
		"GET /api/v1/clients/{id}":                         a.showClient,
		"PUT /api/v1/clients/{id}":                         a.updateClient,
		"DELETE /api/v1/clients/{id}":                      a.removeClient,
		"POST /api/v1/clients/{id}/secret":                 a.rotateSecret,
		"DELETE /api/v1/clients/{id}/secret":               a.dropSecret,
		"POST /api/v1/clients/{id}/revoke":                 a.revokeClient,
		"GET /api/v1/users":                                a.listUsers,
		"POST /api/v1/users":                               a.addUser,
		"GET /api/v1/users/{subject}":                      a.showUser,
		"PATCH /api/v1/users/{subject}":                    a.updateUser,
		"DELETE /api/v1/users/{subject}":                   a.removeUser,
		"POST /api/v1/users/{subject}/revoke":              a.revokeUser,
		"DELETE /api/v1/users/{subject}/factors":           a.resetFactors,
		"POST /api/v1/users/{subject}/reset-password":      a.mailReset,
		"GET /api/v1/users/{subject}/sessions":             a.listSessions,
		"GET /api/v1/users/{subject}/grants":               a.listGrants,
		"GET /api/v1/users/{subject}/consents":             a.listConsents,
		"DELETE /api/v1/users/{subject}/consents/{client}": a.withdrawConsent,
		"GET /api/v1/sessions":                             a.listAllSessions,
		"DELETE /api/v1/sessions/{id}":                     a.endSession,
		"GET /api/v1/grants/{grant}":                       a.showGrant,
		"DELETE /api/v1/grants/{grant}":                    a.revokeGrant,
		"GET /api/v1/registration-tokens":                  a.listInitial,
		"POST /api/v1/registration-tokens":                 a.addInitial,
		"DELETE /api/v1/registration-tokens/{id}":          a.removeInitial,
		"GET /api/v1/keys":                                 a.listKeys,
		"POST /api/v1/keys/rotate":                         a.rotateKeys,
		"POST /api/v1/keys/{kid}/retire":                   a.retireKey,
		"GET /api/v1/revocations":                          a.listRevocations,
		"POST /api/v1/revocations":                         a.revoke,
		"POST /api/v1/tokens/inspect":                      a.inspectToken,
		"POST /api/v1/tokens/revoke":                       a.revokeToken,
		"GET /api/v1/audit":                                a.listAudit,
	} {
		mux.Handle(pattern, a.handler(h))
	}
	return mux
}

type actorKey struct{}

// WithActor says who makes the request, for the audit: static-token,
// client:ID or user:SUBJECT.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

func actor(ctx context.Context) string {
	if s, ok := ctx.Value(actorKey{}).(string); ok {
		return s
	}
	return audit.Unknown
}

// problem is an error for the operator (RFC 9457).
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	cause  error
}

func (p *problem) Error() string { return p.Title + ": " + p.Detail }
func (p *problem) Unwrap() error { return p.cause }

func refuse(status int, format string, args ...any) error {
	return &problem{Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// fromStore makes a store's answer the operator's.
func fromStore(err error, what string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound):
		return refuse(http.StatusNotFound, "there is no such %s", what)
	case errors.Is(err, store.ErrExists):
		return refuse(http.StatusConflict, "this %s exists already", what)
	}
	return err
}

func (a *api) handler(h web.Endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		ctx, cancel := context.WithTimeout(r.Context(), a.Timeout)
		defer cancel()
		err := h(w, r.WithContext(ctx))
		if err == nil {
			return
		}
		var p *problem
		if !errors.As(err, &p) {
			a.Logger.LogAttrs(ctx, slog.LevelWarn, "admin request failed",
				slog.String("path", r.URL.Path), slog.Any("error", err))
			p = &problem{
				Title: "Service Unavailable", Status: http.StatusServiceUnavailable,
				Detail: "the change may or may not have been made: look, then try again",
			}
		}
		body, err := json.Marshal(p)
		if err != nil {
			panic("admin: a problem does not encode: " + err.Error())
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(p.Status)
		_, _ = w.Write(body)
	})
}

// decode reads the request's JSON. A field that does not exist is an error.
func decode(r *http.Request, into any) error {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, "the content type must be application/json")
	}
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, web.MaxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		var syntax *json.SyntaxError
		var kind *json.UnmarshalTypeError
		switch {
		case errors.As(err, &syntax):
			return refuse(http.StatusBadRequest, "the content is not JSON (at byte %d)", syntax.Offset)
		case errors.As(err, &kind):
			return refuse(http.StatusBadRequest, "%s must not be a %s", kind.Field, kind.Value)
		}
		return refuse(http.StatusBadRequest, "the content could not be read: an unknown field, or too much")
	}
	if d.More() {
		return refuse(http.StatusBadRequest, "there is more than one JSON value")
	}
	return nil
}

// audited makes a change, which stores the event that it is given with it.
func (a *api) audited(r *http.Request, e store.AuditEvent, change func(store.AuditEvent) error) error {
	e.Outcome, e.Actor, e.IP = audit.Success, actor(r.Context()), web.ClientAddress(r)
	return a.Audit.With(r.Context(), e, change)
}

// number reads a number of the query.
func number(r *http.Request, name string, fallback, highest int64) (int64, error) {
	raw := r.URL.Query().Get(name)
	if raw == "" {
		return fallback, nil
	}
	n, err := strconv.ParseInt(raw, 10, 64)
	if err != nil || n < 0 || n > highest {
		return 0, refuse(http.StatusBadRequest, "%s must be a number from 0 to %d", name, highest)
	}
	return n, nil
}

// stamp is a time for JSON; the zero time is left out.
func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	u := t.UTC()
	return &u
}
