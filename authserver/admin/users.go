package admin

import (
	"errors"
	"net/http"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

type userView struct {
	Subject     string     `json:"subject,omitempty"` // empty: declared, and never signed in
	Name        string     `json:"name"`
	Email       string     `json:"email,omitempty"`
	DisplayName string     `json:"display_name,omitempty"`
	Disabled    bool       `json:"disabled,omitempty"`
	Declared    bool       `json:"declared"`
	Created     *time.Time `json:"created,omitempty"`
}

func showUser(u store.User) userView {
	return userView{u.Subject, u.Name, u.Email, u.DisplayName, u.Disabled, u.Declared, stamp(u.Created)}
}

func (a *api) listUsers(w http.ResponseWriter, r *http.Request) error {
	all, err := a.Users.All(r.Context())
	if err != nil {
		return err
	}
	views := make([]userView, 0, len(all))
	for _, u := range all {
		views = append(views, showUser(u))
	}
	web.WriteJSON(w, http.StatusOK, map[string]any{"users": views})
	return nil
}

// user returns the user of the path, the disabled too.
func (a *api) user(r *http.Request) (store.User, error) {
	u, err := a.Store.UserBySubject(r.Context(), r.PathValue("subject"))
	return u, fromStore(err, "user")
}

// storedUser is user for changes; declared ones are read-only.
func (a *api) storedUser(r *http.Request) (store.User, error) {
	u, err := a.user(r)
	if err == nil && u.Declared {
		err = refuse(http.StatusConflict, "user %q is declared in the configuration: change it there", u.Name)
	}
	return u, err
}

func (a *api) showUser(w http.ResponseWriter, r *http.Request) error {
	u, err := a.user(r)
	if err != nil {
		return err
	}
	web.WriteJSON(w, http.StatusOK, showUser(u))
	return nil
}

func (a *api) addUser(w http.ResponseWriter, r *http.Request) error {
	var v struct {
		Name        string `json:"name"`
		Password    string `json:"password"`
		Email       string `json:"email"`
		DisplayName string `json:"display_name"`
	}
	if err := decode(r, &v); err != nil {
		return err
	}
	u, err := a.Users.New(r.Context(), store.User{Name: v.Name, Email: v.Email, DisplayName: v.DisplayName}, v.Password)
	if err == nil {
		err = a.audited(r, store.AuditEvent{Action: audit.UserAdded, Subject: u.Subject}, func(e store.AuditEvent) error {
			return a.Store.AddUser(r.Context(), u, e)
		})
	}
	switch {
	case errors.Is(err, users.ErrPassword), errors.Is(err, users.ErrName):
		return refuse(http.StatusBadRequest, "%v", err)
	case err != nil:
		return fromStore(err, "user")
	}
	web.WriteJSON(w, http.StatusCreated, showUser(u))
	return nil
}

// updateUser changes what is given. A new password or disabling the user ends
// everything that the user has.
func (a *api) updateUser(w http.ResponseWriter, r *http.Request) error {
	u, err := a.storedUser(r)
	if err != nil {
		return err
	}
	var v struct {
		Password    *string `json:"password"`
		Email       *string `json:"email"`
		DisplayName *string `json:"display_name"`
		Disabled    *bool   `json:"disabled"`
	}
	if err := decode(r, &v); err != nil {
		return err
	}
	if v.Email != nil {
		u.Email = *v.Email
	}
	if v.DisplayName != nil {
		u.DisplayName = *v.DisplayName
	}
	end := v.Password != nil || v.Disabled != nil && *v.Disabled
	if v.Disabled != nil {
		u.Disabled = *v.Disabled
	}
	if v.Password != nil {
		if u.PasswordHash, err = a.Users.Hash(r.Context(), *v.Password); errors.Is(err, users.ErrPassword) {
			return refuse(http.StatusBadRequest, "%v", err)
		} else if err != nil {
			return err
		}
	}
	err = a.audited(r, store.AuditEvent{Action: audit.UserUpdated, Subject: u.Subject}, func(e store.AuditEvent) error {
		return a.Store.UpdateUser(r.Context(), u, e)
	})
	if err != nil {
		return fromStore(err, "user")
	}
	if end {
		if _, err := a.revokeAudited(r, oauth.LevelSubject, u.Subject); err != nil {
			return err
		}
	}
	web.WriteJSON(w, http.StatusOK, showUser(u))
	return nil
}

// removeUser first disables the user and revokes what the user has, so that
// nothing is left behind if the removal does not come through.
func (a *api) removeUser(w http.ResponseWriter, r *http.Request) error {
	u, err := a.storedUser(r)
	if err != nil {
		return err
	}
	u.Disabled = true
	if err := a.Store.UpdateUser(r.Context(), u); err != nil {
		return fromStore(err, "user")
	}
	if _, err := a.revokeAudited(r, oauth.LevelSubject, u.Subject); err != nil {
		return err
	}
	err = a.audited(r, store.AuditEvent{Action: audit.UserRemoved, Subject: u.Subject}, func(e store.AuditEvent) error {
		return a.Store.RemoveUser(r.Context(), u.Subject, e)
	})
	if err != nil {
		return fromStore(err, "user")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// revokeUser ends everything that the user has; declared ones too.
func (a *api) revokeUser(w http.ResponseWriter, r *http.Request) error {
	u, err := a.user(r)
	if err != nil {
		return err
	}
	return a.revoked(w, r, oauth.LevelSubject, u.Subject)
}

func (a *api) listSessions(w http.ResponseWriter, r *http.Request) error {
	live, err := a.Store.Sessions(r.Context(), r.PathValue("subject"), a.Now())
	if err != nil {
		return err
	}
	type view struct {
		ID       string     `json:"id"`
		ACR      string     `json:"acr,omitempty"`
		Agent    string     `json:"agent,omitempty"`
		AuthTime *time.Time `json:"auth_time"`
		Created  *time.Time `json:"created"`
		Expires  *time.Time `json:"expires"`
	}
	views := make([]view, 0, len(live))
	for _, s := range live {
		views = append(views, view{s.ID, s.ACR, s.Agent, stamp(s.AuthTime), stamp(s.Created), stamp(s.Expires)})
	}
	web.WriteJSON(w, http.StatusOK, map[string]any{"sessions": views})
	return nil
}

func (a *api) listGrants(w http.ResponseWriter, r *http.Request) error {
	live, err := a.Store.Families(r.Context(), r.PathValue("subject"), a.Now())
	if err != nil {
		return err
	}
	type view struct {
		Grant     string     `json:"grant"`
		Client    string     `json:"client"`
		Session   string     `json:"session,omitempty"`
		Scopes    []string   `json:"scopes"`
		Refreshes int        `json:"refreshes"`
		Created   *time.Time `json:"created"`
		IdleUntil *time.Time `json:"idle_until"`
		Expires   *time.Time `json:"expires"`
	}
	views := make([]view, 0, len(live))
	for _, f := range live {
		views = append(views, view{f.Grant, f.ClientID, f.Session, list(f.Scopes), f.Generation - 1,
			stamp(f.Created), stamp(f.IdleUntil), stamp(f.Expires)})
	}
	web.WriteJSON(w, http.StatusOK, map[string]any{"grants": views})
	return nil
}

// withdrawConsent forgets what the user allowed a client, and revokes what the
// client refreshes in the user's name.
func (a *api) withdrawConsent(w http.ResponseWriter, r *http.Request) error {
	subject, client := r.PathValue("subject"), r.PathValue("client")
	event := store.AuditEvent{Action: audit.ConsentRemoved, Subject: subject, Client: client}
	err := a.audited(r, event, func(e store.AuditEvent) error {
		return a.Store.RemoveConsent(r.Context(), subject, client, e)
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	live, err := a.Store.Families(r.Context(), subject, a.Now())
	if err != nil {
		return err
	}
	for _, f := range live {
		if f.ClientID != client {
			continue
		}
		if _, err := a.revokeAudited(r, oauth.LevelGrant, f.Grant); err != nil {
			return err
		}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
