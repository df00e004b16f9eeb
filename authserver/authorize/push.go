package authorize

import (
	"fmt"
	"net/http"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// pushedLife is how long a pushed request waits for its browser.
const pushedLife = time.Minute

// Push takes an authorization request from the client itself and returns a name
// for it that a browser can carry (RFC 9126). The request is checked here as it
// will be there, so the client learns what is wrong with it.
func (e *Endpoint) Push(w http.ResponseWriter, r *http.Request) error {
	form, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	c, _, err := e.Clients.Authenticate(r, form)
	if err != nil {
		return err
	}
	if form.Value("request_uri") != "" {
		return oauth.Refuse(oauth.InvalidRequest, "a pushed request cannot refer to another (RFC 9126, 2.1)")
	}
	signed := form.Value("request") != ""
	if signed {
		form, err = e.object(r.Context(), c, form.Value("request"))
		if err != nil {
			return err
		}
	}
	form = form.Without("client_id", "client_secret", "client_assertion", "client_assertion_type").With("client_id", c.ID)
	key, err := e.Sender.Proof(w, r, e.Issuer+"/oauth/par", "")
	if err != nil {
		return err
	}
	if key != "" { // RFC 9449, 10.1
		if named := form.Value("dpop_jkt"); named != "" && named != key {
			return oauth.Refuse(oauth.InvalidDPoPProof, "dpop_jkt is not the key of the proof")
		}
		form = form.Without("dpop_jkt").With("dpop_jkt", key)
	}
	q, err := e.target(r.Context(), form)
	if err != nil {
		return err
	}
	if err := e.check(q, origin{pushed: true, signed: signed}); err != nil {
		return err
	}
	query := form.Encode()
	if len(query) > maxQuery {
		return oauth.Refuse(oauth.InvalidRequest, "the request is too long")
	}
	uri, hash := tokens.NewPushed()
	if err := e.Store.AddPushed(r.Context(), store.Pushed{
		Hash: hash, ClientID: c.ID, Query: query, Signed: signed, Expires: e.Now().Add(pushedLife),
	}); err != nil {
		return oauth.Unavailable(fmt.Errorf("store the pushed request: %w", err))
	}
	web.WriteJSON(w, http.StatusCreated, struct {
		RequestURI string `json:"request_uri"`
		ExpiresIn  int64  `json:"expires_in"`
	}{uri, int64(pushedLife / time.Second)})
	return nil
}
