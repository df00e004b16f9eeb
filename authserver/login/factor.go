package login

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/session"
	"github.com/gatehouse/gatehouse/authserver/signin"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Factor shows the second page or takes its form: a code, a recovery code or a
// passkey of who gave the right password on the first.
func (e *Endpoint) Factor(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		return e.submitFactor(w, r)
	}
	form, err := web.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	i, err := e.open(r, form.Value("i"))
	if err == nil && i.Half == "" {
		err = oauth.Refuse(oauth.InvalidRequest, "This sign-in has not begun.")
	}
	if err != nil {
		return err
	}
	return e.showFactor(w, r, http.StatusOK, i, view{Interaction: form.Value("i")})
}

func (e *Endpoint) showFactor(w http.ResponseWriter, r *http.Request, status int, i session.Interaction, v view) error {
	u, err := e.Users.User(r.Context(), i.Half)
	if errors.Is(err, store.ErrNotFound) {
		return oauth.Refuse(oauth.InvalidRequest, "This sign-in is over.")
	}
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("look up the user: %w", err))
	}
	set, err := e.Factors.Of(r.Context(), u.Subject)
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("look up second factors: %w", err))
	}
	browser := e.Sessions.EnsureBrowser(w, r)
	if len(set.Passkeys) > 0 {
		if v.Passkey, err = e.ceremony(r.Context(), browser, &u); err != nil {
			return err
		}
	}
	v.Client, v.CSRF = i.ClientName, e.Guard.Token(browser)
	return e.render(w, r, "factor", status, i, v)
}

func (e *Endpoint) submitFactor(w http.ResponseWriter, r *http.Request) error {
	form, i, err := e.form(r)
	if err == nil && i.Half == "" {
		err = oauth.Refuse(oauth.InvalidRequest, "This sign-in has not begun.")
	}
	if err != nil {
		return err
	}
	proof := signin.Proof{Code: form.Value("code"), Answer: []byte(form.Value("passkey"))}
	problem := web.ProblemCode
	if len(proof.Answer) > 0 {
		problem = web.ProblemPasskey
		// A state that does not open is refused with the answer.
		_ = e.Sessions.OpenValue(purpose, e.Sessions.Browser(r), form.Value("state"), &proof.State)
	}
	u, acr, err := e.SignIn.Second(r, i.Half, proof)
	if err != nil {
		return e.again(w, r, i, view{Interaction: form.Value("i"), problem: problem}, err, e.showFactor)
	}
	return e.finish(w, r, i, form.Value("i"), u, acr)
}
