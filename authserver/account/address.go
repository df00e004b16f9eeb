package account

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gatehouse/gatehouse/authserver/enrol"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

func (e *Endpoint) showAddress(w http.ResponseWriter, r *http.Request, p person) error {
	own := false
	if e.Enrol.CanMail() {
		var err error
		if own, err = e.Enrol.OwnEmail(r.Context(), p.user); err != nil {
			return err
		}
	}
	if !own {
		return errAddressKept
	}
	return e.addressPage(w, r, http.StatusOK, addressView{Address: p.user.Email})
}

// errAddressKept is the answer to who cannot change the address here.
var errAddressKept = oauth.Refuse(oauth.InvalidRequest, "The address of this account is kept elsewhere.")

func (e *Endpoint) addressPage(w http.ResponseWriter, r *http.Request, status int, v addressView) error {
	v.CSRF = e.Guard.Token(e.Sessions.Cookie(r))
	page := web.Page{Name: "address", Status: status, Data: v}
	switch {
	case v.Wait > 0:
		page.Problem = web.ProblemThrottled
	case v.Failed:
		page.Problem = web.ProblemEmail
	}
	return e.Pages.Show(w, r, page)
}

// changeAddress mails a link to the address that is to be the person's.
func (e *Endpoint) changeAddress(w http.ResponseWriter, r *http.Request, p person, form web.Form) error {
	v := addressView{Address: form.Value("address")}
	err := e.Enrol.RequestEmail(r, p.session, p.user, v.Address)
	var throttled *users.ThrottledError
	switch {
	case errors.As(err, &throttled):
		v.Wait = int((throttled.Wait + time.Second - 1) / time.Second)
		w.Header().Set("Retry-After", fmt.Sprint(v.Wait))
		return e.addressPage(w, r, http.StatusTooManyRequests, v)
	case errors.Is(err, enrol.ErrAddress):
		v.Failed = true
		return e.addressPage(w, r, http.StatusUnprocessableEntity, v)
	case errors.Is(err, enrol.ErrKept), errors.Is(err, enrol.ErrOff):
		return errAddressKept
	case err != nil:
		return err
	}
	return e.done(w, "mailed")
}
