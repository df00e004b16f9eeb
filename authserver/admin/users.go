package admin

import (
	"errors"
	"net/http"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/enrol"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

type userView struct {
	Subject     string     `json:"subject,omitempty"` // empty: declared, and never signed in
	Name        string     `json:"name"`
	Email       string     `json:"email,omitempty"`
	Verified    bool       `json:"email_verified,omitempty"`
	DisplayName string     `json:"display_name,omitempty"`
	Roles       []string   `json:"roles,omitempty"`
	Disabled    bool       `json:"disabled,omitempty"`
	Declared    bool       `json:"declared"`
	Created     *time.Time `json:"created,omitempty"`
}

func showUser(u store.User) userView {
	return userView{u.Subject, u.Name, u.Email, u.EmailVerified, u.DisplayName, u.Roles, u.Disabled, u.Declared, stamp(u.Created)}
}

func (a *api) listUsers(w http.ResponseWriter, r *http.Request) error {
	all, err := a.Users.All(r.Context())
	if err != nil {
		return err
	}
	views := make([]userView, 0, len(all))
	name := r.URL.Query().Get("name")
	for _, u := range all {
		if name == "" || u.Name == name {
			views = append(views, showUser(u))
		}
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
		Name        string   `json:"name"`
		Password    string   `json:"password"`
		Email       string   `json:"email"`
		DisplayName string   `json:"display_name"`
		Roles       []string `json:"roles"`
	}
	if err := decode(r, &v); err != nil {
		return err
	}
	u, err := a.Users.New(r.Context(), store.User{Name: v.Name, Email: v.Email, DisplayName: v.DisplayName, Roles: v.Roles}, v.Password)
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
		Password    *string   `json:"password"`
		Email       *string   `json:"email"`
		Verified    *bool     `json:"email_verified"`
		DisplayName *string   `json:"display_name"`
		Roles       *[]string `json:"roles"`
		Disabled    *bool     `json:"disabled"`
	}
	if err := decode(r, &v); err != nil {
		return err
	}
	if v.Email != nil {
		u.Email, u.EmailVerified = *v.Email, false
	}
	if v.Verified != nil {
		u.EmailVerified = *v.Verified && u.Email != ""
	}
	if v.DisplayName != nil {
		u.DisplayName = *v.DisplayName
	}
	if v.Roles != nil {
		u.Roles = *v.Roles
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
	switch {
	case v.Password != nil:
		err = a.Enrol.PasswordChanged(r.Context(), u, "")
	case end || v.Email != nil: // links that were mailed before are worth nothing
		err = a.Store.RemoveTickets(r.Context(), u.Subject)
	}
	if err != nil {
		return err
	}
	web.WriteJSON(w, http.StatusOK, showUser(u))
	return nil
}

// mailReset mails a stored user a link for a new password.
func (a *api) mailReset(w http.ResponseWriter, r *http.Request) error {
	u, err := a.storedUser(r)
	if err != nil {
		return err
	}
	if u.Disabled {
		return refuse(http.StatusConflict, "user %q is disabled", u.Name)
	}
	err = a.Enrol.SendReset(r.Context(), u)
	switch {
	case errors.Is(err, enrol.ErrOff):
		return refuse(http.StatusConflict, "there is no authserver.smtp to send mail with")
	case errors.Is(err, enrol.ErrKept):
		return refuse(http.StatusConflict, "the password of user %q is kept elsewhere", u.Name)
	case errors.Is(err, enrol.ErrAddress):
		return refuse(http.StatusConflict, "user %q has no e-mail address", u.Name)
	case err != nil:
		return err
	}
	event := store.AuditEvent{Action: audit.ResetRequested, Outcome: audit.Success, Actor: actor(r.Context()), Subject: u.Subject, IP: web.ClientAddress(r)}
	if err := a.Audit.Write(r.Context(), event); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
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

// revokeUser ends everything that the user has, links that were mailed
// included; declared ones too.
func (a *api) revokeUser(w http.ResponseWriter, r *http.Request) error {
	u, err := a.user(r)
	if err != nil {
		return err
	}
	if err := a.Store.RemoveTickets(r.Context(), u.Subject); err != nil {
		return err
	}
	return a.revoked(w, r, oauth.LevelSubject, u.Subject)
}

// resetFactors removes the authenticator app, recovery codes and passkeys of a
// user who lost them, and ends everything that the user has: whoever found them
// may be signed in.
func (a *api) resetFactors(w http.ResponseWriter, r *http.Request) error {
	u, err := a.user(r)
	if err != nil {
		return err
	}
	err = a.audited(r, store.AuditEvent{Action: audit.FactorsReset, Subject: u.Subject}, func(e store.AuditEvent) error {
		return a.Store.RemoveFactors(r.Context(), u.Subject, e)
	})
	if err != nil {
		return err
	}
	return a.revoked(w, r, oauth.LevelSubject, u.Subject)
}
