package admin

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// revocationView is an entry of the revocation log. NotBefore is the second up
// to which tokens are revoked.
type revocationView struct {
	Seq       uint64      `json:"seq"`
	Level     oauth.Level `json:"level"`
	ID        string      `json:"id"`
	NotBefore *time.Time  `json:"not_before,omitempty"`
	Expires   *time.Time  `json:"expires"`
}

func showRevocation(r oauth.Revocation) revocationView {
	return revocationView{r.Seq, r.Level, r.ID, stamp(r.NotBefore), stamp(r.Expires)}
}

// revoked logs a revocation and answers with it.
func (a *api) revoked(w http.ResponseWriter, r *http.Request, level oauth.Level, id string) error {
	entry, err := a.revokeAudited(r, level, id)
	var refusal *oauth.Error
	if errors.As(err, &refusal) {
		return refuse(http.StatusBadRequest, "%s", refusal.Description)
	}
	if err != nil {
		return err
	}
	web.WriteJSON(w, http.StatusOK, showRevocation(entry))
	return nil
}

// revokeAudited logs a revocation together with its event.
func (a *api) revokeAudited(r *http.Request, level oauth.Level, id string) (entry oauth.Revocation, err error) {
	e := store.AuditEvent{Action: audit.Revoked, Reason: string(level)}
	switch level {
	case oauth.LevelClient:
		e.Client = id
	case oauth.LevelSubject:
		e.Subject = id
	case oauth.LevelSession:
		e.Session = id
	case oauth.LevelGrant:
		e.Grant = id
	case oauth.LevelIssuer, oauth.LevelToken:
	}
	err = a.audited(r, e, func(e store.AuditEvent) error {
		entry, err = a.Revoker.Revoke(r.Context(), level, id, e)
		return err
	})
	return entry, err
}

func (a *api) revoke(w http.ResponseWriter, r *http.Request) error {
	var v struct {
		Level oauth.Level `json:"level"`
		ID    string      `json:"id"`
	}
	if err := decode(r, &v); err != nil {
		return err
	}
	if v.ID == "" || len(v.ID) > 512 {
		return refuse(http.StatusBadRequest, "id is missing or too long")
	}
	return a.revoked(w, r, v.Level, v.ID)
}

func (a *api) endSession(w http.ResponseWriter, r *http.Request) error {
	return a.revoked(w, r, oauth.LevelSession, r.PathValue("id"))
}

func (a *api) revokeGrant(w http.ResponseWriter, r *http.Request) error {
	return a.revoked(w, r, oauth.LevelGrant, r.PathValue("grant"))
}

func (a *api) listRevocations(w http.ResponseWriter, r *http.Request) error {
	after, err := number(r, "after", 0, 1<<62)
	if err != nil {
		return err
	}
	limit, err := number(r, "limit", 100, 1000)
	if err != nil {
		return err
	}
	entries, head, err := a.Store.RevokedSince(r.Context(), uint64(after), int(limit))
	if err != nil {
		return err
	}
	views := make([]revocationView, 0, len(entries))
	for _, e := range entries {
		views = append(views, showRevocation(e))
	}
	web.WriteJSON(w, http.StatusOK, map[string]any{"revocations": views, "head": head})
	return nil
}

func (a *api) listKeys(w http.ResponseWriter, r *http.Request) error {
	keys, err := a.Store.Keys(r.Context())
	if err != nil {
		return err
	}
	type view struct {
		ID        string          `json:"kid"`
		Use       string          `json:"use"`
		Algorithm string          `json:"alg"`
		State     string          `json:"state"`
		Public    json.RawMessage `json:"public"`
		Created   *time.Time      `json:"created"`
		Activates *time.Time      `json:"activates,omitempty"`
		Retired   *time.Time      `json:"retired,omitempty"`
		Gone      *time.Time      `json:"gone,omitempty"`
	}
	views := make([]view, 0, len(keys))
	for _, k := range keys {
		views = append(views, view{k.ID, k.Use, k.Algorithm, k.State, k.Public,
			stamp(k.Created), stamp(k.Activates), stamp(k.Retired), stamp(k.Gone)})
	}
	web.WriteJSON(w, http.StatusOK, map[string]any{"keys": views})
	return nil
}

func (a *api) rotateKeys(w http.ResponseWriter, r *http.Request) error {
	err := a.audited(r, store.AuditEvent{Action: audit.KeysRotated}, func(e store.AuditEvent) error {
		return a.Keys.RotateNow(r.Context(), e)
	})
	if errors.Is(err, store.ErrExists) {
		return refuse(http.StatusConflict, "a rotation is under way: its new keys are published and sign soon")
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) listAudit(w http.ResponseWriter, r *http.Request) error {
	q, err := auditQuery(r)
	if err != nil {
		return err
	}
	// Before the events, so that they hold it.
	base, head, err := a.Store.AuditChain(r.Context())
	if err != nil {
		return err
	}
	events, err := a.Store.Audit(r.Context(), q)
	if err != nil {
		return err
	}
	type view struct {
		Seq     int64      `json:"seq"`
		Time    *time.Time `json:"time"`
		Action  string     `json:"action"`
		Outcome string     `json:"outcome"`
		Actor   string     `json:"actor"`
		Client  string     `json:"client,omitempty"`
		Subject string     `json:"subject,omitempty"`
		Grant   string     `json:"grant,omitempty"`
		Session string     `json:"session,omitempty"`
		IP      string     `json:"ip,omitempty"`
		Reason  string     `json:"reason,omitempty"`
		Hash    string     `json:"hash,omitempty"`
	}
	views := make([]view, 0, len(events))
	for _, e := range events {
		v := view{e.Seq, stamp(e.Time), e.Action, e.Outcome, e.Actor, e.Client, e.Subject,
			e.Grant, e.Session, e.IP, e.Reason, ""}
		if e.Hash != (store.Digest{}) {
			v.Hash = hex.EncodeToString(e.Hash[:])
		}
		views = append(views, v)
	}
	web.WriteJSON(w, http.StatusOK, map[string]any{"events": views, "base": base.String(), "head": head.String()})
	return nil
}

// auditQuery reads which events are asked for.
func auditQuery(r *http.Request) (q store.AuditQuery, err error) {
	if q.After, err = number(r, "after", 0, 1<<62); err != nil {
		return q, err
	}
	limit, err := number(r, "limit", 100, 1000)
	if err != nil {
		return q, err
	}
	v := r.URL.Query()
	q.Limit, q.Action, q.Client, q.Subject, q.Grant = int(limit), v.Get("action"), v.Get("client"), v.Get("subject"), v.Get("grant")
	switch v.Get("order") {
	case "", "oldest":
	case "newest":
		q.Newest = true
	default:
		return q, refuse(http.StatusBadRequest, "order must be oldest or newest")
	}
	for name, to := range map[string]*time.Time{"from": &q.From, "until": &q.Until} {
		if raw := v.Get(name); raw != "" {
			if *to, err = time.Parse(time.RFC3339Nano, raw); err != nil {
				return q, refuse(http.StatusBadRequest, "%s must be a time such as 2026-01-02T15:04:05Z", name)
			}
		}
	}
	return q, nil
}

// retireKey takes a key out of use at once, because others may have it.
func (a *api) retireKey(w http.ResponseWriter, r *http.Request) error {
	event := store.AuditEvent{Action: audit.KeyRetired, Reason: r.PathValue("kid")}
	err := a.audited(r, event, func(e store.AuditEvent) error {
		return a.Keys.Retire(r.Context(), r.PathValue("kid"), e)
	})
	if err != nil {
		return fromStore(err, "key")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
