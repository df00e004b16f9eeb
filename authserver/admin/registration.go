package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// initialView is an initial access token as the API shows it.
type initialView struct {
	ID      string     `json:"id"`
	Name    string     `json:"name,omitempty"`
	Scopes  []string   `json:"scopes,omitempty"`
	Uses    int        `json:"uses"`
	Created *time.Time `json:"created"`
	Expires *time.Time `json:"expires"`
	// Token is shown once, where it was made.
	Token string `json:"token,omitempty"`
}

func showInitial(t store.InitialToken) initialView {
	return initialView{t.ID, t.Name, t.Scopes, t.Uses, stamp(t.Created), stamp(t.Expires), ""}
}

const (
	defaultInitialLife = 24 * time.Hour
	maxInitialLife     = 366 * 24 * time.Hour
	maxInitialUses     = 100000
)

// addInitial makes an initial access token, with which clients can register
// themselves (RFC 7591, 3).
func (a *api) addInitial(w http.ResponseWriter, r *http.Request) error {
	v := struct {
		Name      string   `json:"name"`
		Scopes    []string `json:"scopes"`
		Uses      int      `json:"uses"`
		ExpiresIn int64    `json:"expires_in"` // seconds
	}{Uses: 1, ExpiresIn: int64(defaultInitialLife / time.Second)}
	if err := decode(r, &v); err != nil {
		return err
	}
	if v.Uses < 1 || v.Uses > maxInitialUses {
		return refuse(http.StatusBadRequest, "uses must be from 1 to %d", maxInitialUses)
	}
	if v.ExpiresIn < 1 || v.ExpiresIn > int64(maxInitialLife/time.Second) {
		return refuse(http.StatusBadRequest, "expires_in must be from 1 second to 366 days")
	}
	for _, s := range v.Scopes {
		if !a.Scopes.Known(s) || len(scopes.Personal([]string{s})) == 0 {
			return refuse(http.StatusBadRequest, "scope %q does not exist, or is not one to give away", s)
		}
	}
	var id [12]byte
	var secret [32]byte
	rand.Read(id[:]) // never fails
	rand.Read(secret[:])
	token := "ghi_" + base64.RawURLEncoding.EncodeToString(secret[:])
	now := a.Now()
	t := store.InitialToken{
		ID: "it_" + base64.RawURLEncoding.EncodeToString(id[:]), Hash: sha256.Sum256([]byte(token)), Name: v.Name,
		Scopes: v.Scopes, Created: now, Expires: now.Add(time.Duration(v.ExpiresIn) * time.Second), Uses: v.Uses,
	}
	err := a.audited(r, store.AuditEvent{Action: audit.InitialAdded, Reason: t.ID}, func(e store.AuditEvent) error {
		return a.Store.AddInitialToken(r.Context(), t, e)
	})
	if err != nil {
		return fromStore(err, "token")
	}
	shown := showInitial(t)
	shown.Token = token
	web.WriteJSON(w, http.StatusCreated, shown)
	return nil
}

func (a *api) listInitial(w http.ResponseWriter, r *http.Request) error {
	all, err := a.Store.InitialTokens(r.Context())
	if err != nil {
		return err
	}
	views := make([]initialView, 0, len(all))
	for _, t := range all {
		views = append(views, showInitial(t))
	}
	web.WriteJSON(w, http.StatusOK, map[string]any{"registration_tokens": views})
	return nil
}

func (a *api) removeInitial(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	err := a.audited(r, store.AuditEvent{Action: audit.InitialRemoved, Reason: id}, func(e store.AuditEvent) error {
		return a.Store.RemoveInitialToken(r.Context(), id, e)
	})
	if err != nil {
		return fromStore(err, "registration token")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
