package admin

import (
	"net/http"
	"slices"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// clientView is a client as the API shows and takes it.
type clientView struct {
	ID           string     `json:"id"`
	Name         string     `json:"name,omitempty"`
	Public       bool       `json:"public"`
	Grants       []string   `json:"grants"`
	Scopes       []string   `json:"scopes"`
	RedirectURIs []string   `json:"redirect_uris,omitempty"`
	PostLogout   []string   `json:"post_logout_redirect_uris,omitempty"`
	SkipConsent  bool       `json:"skip_consent,omitempty"`
	Disabled     bool       `json:"disabled,omitempty"`
	Declared     bool       `json:"declared"`
	Created      *time.Time `json:"created,omitempty"`
	// Secrets is how many are good: two while one is being replaced. It is
	// shown, and not taken.
	Secrets int `json:"secrets,omitempty"`
	// Secret is shown once, where it was made.
	Secret string `json:"secret,omitempty"`
	store.ClientSettings
}

func showClient(c *clients.Client) clientView {
	return clientView{
		ID: c.ID, Name: c.Name, Public: c.Public(), Grants: list(c.Grants), Scopes: list(c.Scopes),
		RedirectURIs: c.RedirectURIs, PostLogout: c.PostLogoutRedirectURIs, SkipConsent: c.SkipConsent,
		Disabled: c.Disabled, Declared: c.Declared, Created: stamp(c.Created),
		Secrets: len(c.SecretHashes), ClientSettings: c.ClientSettings,
	}
}

// list makes an absent list an empty one, which JSON tells from null.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func (v clientView) into(c store.Client) store.Client {
	c.Name, c.Grants, c.Scopes, c.RedirectURIs = v.Name, clients.GrantTypes(v.Grants), v.Scopes, v.RedirectURIs
	c.PostLogoutRedirectURIs, c.SkipConsent, c.Disabled = v.PostLogout, v.SkipConsent, v.Disabled
	c.ClientSettings = v.ClientSettings
	return c
}

// usesSecret reports whether a secret is to be made for a new client.
func usesSecret(v clientView) bool {
	switch v.AuthMethod {
	case "":
		return !v.Public
	case clients.SecretBasic, clients.SecretPost:
		return true
	}
	return false
}

func (a *api) listClients(w http.ResponseWriter, r *http.Request) error {
	all, err := a.Clients.All(r.Context())
	if err != nil {
		return err
	}
	views := make([]clientView, 0, len(all))
	for _, c := range all {
		views = append(views, showClient(c))
	}
	web.WriteJSON(w, http.StatusOK, map[string]any{"clients": views})
	return nil
}

func (a *api) showClient(w http.ResponseWriter, r *http.Request) error {
	if c, ok := a.Clients.Declared(r.PathValue("id")); ok {
		web.WriteJSON(w, http.StatusOK, showClient(c))
		return nil
	}
	c, err := a.Store.Client(r.Context(), r.PathValue("id"))
	if err != nil {
		return fromStore(err, "client")
	}
	web.WriteJSON(w, http.StatusOK, showClient(&clients.Client{Client: c}))
	return nil
}

// stored returns the stored client of the path; declared ones are read-only.
func (a *api) stored(r *http.Request) (store.Client, error) {
	id := r.PathValue("id")
	if _, ok := a.Clients.Declared(id); ok {
		return store.Client{}, refuse(http.StatusConflict, "client %q is declared in the configuration: change it there", id)
	}
	c, err := a.Store.Client(r.Context(), id)
	return c, fromStore(err, "client")
}

func (a *api) addClient(w http.ResponseWriter, r *http.Request) error {
	var v clientView
	if err := decode(r, &v); err != nil {
		return err
	}
	if v.Declared || v.Created != nil || v.Secret != "" {
		return refuse(http.StatusBadRequest, "declared, created and secret are not yours to set: the secret is made here and shown once")
	}
	if _, ok := a.Clients.Declared(v.ID); ok {
		return refuse(http.StatusConflict, "client %q is declared in the configuration", v.ID)
	}
	if v.Public && v.AuthMethod != "" && v.AuthMethod != clients.None {
		return refuse(http.StatusBadRequest, "a public client has no token_endpoint_auth_method but none")
	}
	c := v.into(store.Client{ID: v.ID, Created: a.Now()})
	var secret string
	if usesSecret(v) {
		var hash store.Digest
		secret, hash = clients.NewSecret()
		c.SecretHashes = []store.Digest{hash}
	}
	if err := clients.Validate(c, a.Scopes.Known); err != nil {
		return refuse(http.StatusBadRequest, "%v", err)
	}
	err := a.audited(r, store.AuditEvent{Action: audit.ClientAdded, Client: c.ID}, func(e store.AuditEvent) error {
		return a.Store.AddClient(r.Context(), c, e)
	})
	if err != nil {
		return fromStore(err, "client")
	}
	shown := showClient(&clients.Client{Client: c})
	shown.Secret = secret
	web.WriteJSON(w, http.StatusCreated, shown)
	return nil
}

func (a *api) updateClient(w http.ResponseWriter, r *http.Request) error {
	old, err := a.stored(r)
	if err != nil {
		return err
	}
	var v clientView
	if err := decode(r, &v); err != nil {
		return err
	}
	before := clients.Client{Client: old}
	if v.ID != "" && v.ID != old.ID || v.Public != before.Public() || v.AuthMethod != old.AuthMethod || v.Secret != "" {
		return refuse(http.StatusBadRequest, "id, public, token_endpoint_auth_method and secret cannot be changed: make another client, or rotate the secret")
	}
	c := v.into(old)
	if err := clients.Validate(c, a.Scopes.Known); err != nil {
		return refuse(http.StatusBadRequest, "%v", err)
	}
	err = a.audited(r, store.AuditEvent{Action: audit.ClientUpdated, Client: c.ID}, func(e store.AuditEvent) error {
		return a.Store.UpdateClient(r.Context(), c, e)
	})
	if err != nil {
		return fromStore(err, "client")
	}
	if c.Disabled && !old.Disabled {
		if _, err := a.revokeAudited(r, oauth.LevelClient, c.ID); err != nil {
			return err
		}
	}
	web.WriteJSON(w, http.StatusOK, showClient(&clients.Client{Client: c}))
	return nil
}

// removeClient first disables the client and revokes what it has, so that
// nothing is left behind if the removal does not come through.
func (a *api) removeClient(w http.ResponseWriter, r *http.Request) error {
	c, err := a.stored(r)
	if err != nil {
		return err
	}
	c.Disabled = true
	if err := a.Store.UpdateClient(r.Context(), c); err != nil {
		return fromStore(err, "client")
	}
	if _, err := a.revokeAudited(r, oauth.LevelClient, c.ID); err != nil {
		return err
	}
	err = a.audited(r, store.AuditEvent{Action: audit.ClientRemoved, Client: c.ID}, func(e store.AuditEvent) error {
		return a.Store.RemoveClient(r.Context(), c.ID, e)
	})
	if err != nil {
		return fromStore(err, "client")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// rotateSecret gives the client a new secret; the one before stays valid until
// the next rotation, or goes at once with {"keep": false}.
func (a *api) rotateSecret(w http.ResponseWriter, r *http.Request) error {
	c, err := a.stored(r)
	if err != nil {
		return err
	}
	options := struct {
		Keep *bool `json:"keep"`
	}{}
	if r.ContentLength != 0 {
		if err := decode(r, &options); err != nil {
			return err
		}
	}
	if len(c.SecretHashes) == 0 {
		return refuse(http.StatusConflict, "client %q has no secret", c.ID)
	}
	secret, hash := clients.NewSecret()
	hashes := []store.Digest{hash}
	if options.Keep == nil || *options.Keep {
		hashes = append(hashes, c.SecretHashes[0])
	}
	c.SecretHashes = slices.Clip(hashes)
	err = a.audited(r, store.AuditEvent{Action: audit.ClientSecret, Client: c.ID}, func(e store.AuditEvent) error {
		return a.Store.UpdateClient(r.Context(), c, e)
	})
	if err != nil {
		return fromStore(err, "client")
	}
	web.WriteJSON(w, http.StatusOK, map[string]any{"id": c.ID, "secret": secret, "secrets": len(c.SecretHashes)})
	return nil
}

// dropSecret ends the overlap of a rotation: the newest secret alone is good.
func (a *api) dropSecret(w http.ResponseWriter, r *http.Request) error {
	c, err := a.stored(r)
	if err != nil {
		return err
	}
	if len(c.SecretHashes) < 2 {
		return refuse(http.StatusConflict, "client %q has no second secret", c.ID)
	}
	c.SecretHashes = c.SecretHashes[:1:1]
	err = a.audited(r, store.AuditEvent{Action: audit.ClientSecretDropped, Client: c.ID}, func(e store.AuditEvent) error {
		return a.Store.UpdateClient(r.Context(), c, e)
	})
	if err != nil {
		return fromStore(err, "client")
	}
	web.WriteJSON(w, http.StatusOK, showClient(&clients.Client{Client: c}))
	return nil
}

// revokeClient revokes all tokens that the client has; declared ones too.
func (a *api) revokeClient(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	if _, ok := a.Clients.Declared(id); !ok {
		if _, err := a.Store.Client(r.Context(), id); err != nil {
			return fromStore(err, "client")
		}
	}
	return a.revoked(w, r, oauth.LevelClient, id)
}
