package admin

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
	"github.com/gatehouse/gatehouse/authserver/web"
)

type sessionView struct {
	ID       string     `json:"id"`
	Subject  string     `json:"subject"`
	ACR      string     `json:"acr,omitempty"`
	Agent    string     `json:"agent,omitempty"`
	AuthTime *time.Time `json:"auth_time"`
	Created  *time.Time `json:"created"`
	Expires  *time.Time `json:"expires"`
}

func showSessions(w http.ResponseWriter, live []store.Session) {
	views := make([]sessionView, 0, len(live))
	for _, s := range live {
		views = append(views, sessionView{s.ID, s.Subject, s.ACR, s.Agent, stamp(s.AuthTime), stamp(s.Created), stamp(s.Expires)})
	}
	web.WriteJSON(w, http.StatusOK, map[string]any{"sessions": views})
}

func (a *api) listSessions(w http.ResponseWriter, r *http.Request) error {
	live, err := a.Store.Sessions(r.Context(), r.PathValue("subject"), a.Now())
	if err != nil {
		return err
	}
	showSessions(w, live)
	return nil
}

// listAllSessions lists everybody's live sessions, a page at a time.
func (a *api) listAllSessions(w http.ResponseWriter, r *http.Request) error {
	limit, err := number(r, "limit", 100, 1000)
	if err != nil {
		return err
	}
	live, err := a.Store.LiveSessions(r.Context(), r.URL.Query().Get("after"), int(limit), a.Now())
	if err != nil {
		return err
	}
	showSessions(w, live)
	return nil
}

// grantView is a grant with refresh tokens.
type grantView struct {
	Grant     string     `json:"grant"`
	Client    string     `json:"client"`
	Subject   string     `json:"subject"`
	Session   string     `json:"session,omitempty"`
	Scopes    []string   `json:"scopes"`
	Refreshes int        `json:"refreshes"`
	Created   *time.Time `json:"created"`
	IdleUntil *time.Time `json:"idle_until"`
	Expires   *time.Time `json:"expires"`
	Revoked   *time.Time `json:"revoked,omitempty"`
}

func viewGrant(f store.Family) grantView {
	return grantView{f.Grant, f.ClientID, f.Subject, f.Session, list(f.Scopes), f.Generation - 1,
		stamp(f.Created), stamp(f.IdleUntil), stamp(f.Expires), stamp(f.Revoked)}
}

func (a *api) listGrants(w http.ResponseWriter, r *http.Request) error {
	live, err := a.Store.Families(r.Context(), r.PathValue("subject"), a.Now())
	if err != nil {
		return err
	}
	views := make([]grantView, 0, len(live))
	for _, f := range live {
		views = append(views, viewGrant(f))
	}
	web.WriteJSON(w, http.StatusOK, map[string]any{"grants": views})
	return nil
}

func (a *api) showGrant(w http.ResponseWriter, r *http.Request) error {
	f, err := a.Store.Family(r.Context(), r.PathValue("grant"))
	if err != nil {
		return fromStore(err, "grant")
	}
	web.WriteJSON(w, http.StatusOK, viewGrant(f))
	return nil
}

func (a *api) listConsents(w http.ResponseWriter, r *http.Request) error {
	given, err := a.Store.ConsentsOf(r.Context(), r.PathValue("subject"))
	if err != nil {
		return err
	}
	type view struct {
		Client  string     `json:"client"`
		Scopes  []string   `json:"scopes"`
		Granted *time.Time `json:"granted"`
	}
	views := make([]view, 0, len(given))
	for _, c := range given {
		views = append(views, view{c.ClientID, list(c.Scopes), stamp(c.Granted)})
	}
	web.WriteJSON(w, http.StatusOK, map[string]any{"consents": views})
	return nil
}

// withdrawConsent forgets what the user allowed a client, and revokes what the
// client has in the user's name.
func (a *api) withdrawConsent(w http.ResponseWriter, r *http.Request) error {
	subject, client := r.PathValue("subject"), r.PathValue("client")
	event := store.AuditEvent{Action: audit.ConsentRemoved, Subject: subject, Client: client}
	err := a.audited(r, event, func(e store.AuditEvent) error {
		return a.Revoker.Withdraw(r.Context(), subject, client, e)
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// tokenView says what a token is. An access token that is no valid one, and a
// refresh token that is spent or revoked, are inactive.
type tokenView struct {
	Active   bool       `json:"active"`
	Kind     string     `json:"kind,omitempty"` // access_token or refresh_token
	ID       string     `json:"jti,omitempty"`
	Subject  string     `json:"subject,omitempty"`
	Client   string     `json:"client,omitempty"`
	Scope    string     `json:"scope,omitempty"`
	Audience []string   `json:"audience,omitempty"`
	Grant    string     `json:"grant,omitempty"`
	Session  string     `json:"session,omitempty"`
	Issued   *time.Time `json:"issued,omitempty"`
	Expires  *time.Time `json:"expires,omitempty"`
}

// token looks at the token of the request's content.
func (a *api) token(r *http.Request) (v tokenView, err error) {
	var body struct {
		Token string `json:"token"`
	}
	if err := decode(r, &body); err != nil {
		return v, err
	}
	if body.Token == "" {
		return v, refuse(http.StatusBadRequest, "token is missing")
	}
	if refresh, ok := tokens.ParseRefresh(body.Token); ok {
		return a.refreshToken(r, refresh)
	}
	t, err := a.Tokens.ParseAccess(body.Token)
	if err != nil {
		return tokenView{}, nil
	}
	live, err := a.Tokens.Live(r.Context(), t)
	return tokenView{
		Active: live, Kind: "access_token", ID: t.ID, Subject: t.Subject, Client: t.ClientID, Scope: t.Scope,
		Audience: t.Audience, Grant: t.Grant, Session: t.Session, Issued: stamp(t.Issued), Expires: stamp(t.Expires),
	}, err
}

func (a *api) refreshToken(r *http.Request, t tokens.Refresh) (v tokenView, err error) {
	if !a.Tokens.Genuine(t) {
		return v, nil
	}
	f, err := a.Store.Family(r.Context(), t.Grant)
	if errors.Is(err, store.ErrNotFound) {
		return v, nil
	}
	if err != nil {
		return v, err
	}
	now := a.Now()
	return tokenView{
		Active: f.Revoked.IsZero() && t.Generation == f.Generation && f.Expires.After(now) && f.IdleUntil.After(now),
		Kind:   "refresh_token", Subject: f.Subject, Client: f.ClientID, Scope: strings.Join(f.Scopes, " "),
		Grant: f.Grant, Session: f.Session, Issued: stamp(f.Rotated), Expires: stamp(f.IdleUntil),
	}, nil
}

func (a *api) inspectToken(w http.ResponseWriter, r *http.Request) error {
	v, err := a.token(r)
	if err != nil {
		return err
	}
	web.WriteJSON(w, http.StatusOK, v)
	return nil
}

// revokeToken ends the grant of a token, or an access token without one.
func (a *api) revokeToken(w http.ResponseWriter, r *http.Request) error {
	v, err := a.token(r)
	switch {
	case err != nil:
		return err
	case v.Kind == "":
		return refuse(http.StatusNotFound, "this is no valid token of this server")
	case v.Grant != "":
		return a.revoked(w, r, oauth.LevelGrant, v.Grant)
	}
	return a.revoked(w, r, oauth.LevelToken, v.ID)
}
