package account

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/factors"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Purposes of what pages carry sealed.
const (
	purposeApp     = "authenticator app"
	purposePasskey = "new passkey"
)

// newApp shows the secret for a new authenticator app. It is stored only when
// a code of it comes back.
func (e *Endpoint) newApp(w http.ResponseWriter, r *http.Request, p person) error {
	app, err := e.Factors.NewApp(p.user.Name)
	if err != nil {
		return oauth.Failed(err)
	}
	sealed, err := e.Sessions.SealValue(purposeApp, e.Sessions.Cookie(r), recent, app)
	if err != nil {
		return oauth.Failed(err)
	}
	return e.showApp(w, r, http.StatusOK, appForm{Enrolment: sealed, Secret: spaced(app.Secret)})
}

func (e *Endpoint) showApp(w http.ResponseWriter, r *http.Request, status int, v appForm) error {
	v.CSRF = e.Guard.Token(e.Sessions.Cookie(r))
	page := web.Page{Name: "app", Status: status, Data: v}
	if v.Failed {
		page.Problem = web.ProblemCode
	}
	return e.Pages.Show(w, r, page)
}

// spaced puts a secret in groups of four, for people who type it.
func spaced(secret string) string {
	var b strings.Builder
	for i, c := range secret {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// qr is the picture of a new app's secret. It is a file of its own: the pages
// allow no data: images.
func (e *Endpoint) qr(w http.ResponseWriter, r *http.Request, _ person) error {
	form, err := web.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	var app factors.Enrolment
	if err := e.Sessions.OpenValue(purposeApp, e.Sessions.Cookie(r), form.Value("e"), &app); err != nil {
		return &oauth.Error{Status: http.StatusNotFound, Code: oauth.InvalidRequest}
	}
	image, err := app.QR()
	if err != nil {
		return oauth.Failed(err)
	}
	h := w.Header()
	h.Set("Content-Type", "image/png")
	h.Set("Content-Length", strconv.Itoa(len(image)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(image)
	return nil
}

func (e *Endpoint) confirmApp(w http.ResponseWriter, r *http.Request, p person, form web.Form) error {
	var app factors.Enrolment
	sealed := form.Value("enrolment")
	if err := e.Sessions.OpenValue(purposeApp, e.Sessions.Cookie(r), sealed, &app); err != nil {
		return oauth.Refuse(oauth.InvalidRequest, "This page is too old. Begin again.")
	}
	code := strings.ReplaceAll(form.Value("code"), " ", "")
	var codes []string
	err := e.Audit.With(r.Context(), e.event(r, p, audit.TOTPEnabled), func(event store.AuditEvent) (err error) {
		codes, err = e.Factors.ConfirmApp(r.Context(), p.user.Subject, app, code, event)
		return err
	})
	if errors.Is(err, factors.ErrWrong) {
		return e.showApp(w, r, http.StatusUnprocessableEntity, appForm{Enrolment: sealed, Secret: spaced(app.Secret), Failed: true})
	}
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("store an authenticator app: %w", err))
	}
	return e.Pages.Show(w, r, web.Page{Name: "recovery", Data: recoveryView{codes}})
}

func (e *Endpoint) removeApp(w http.ResponseWriter, r *http.Request, p person, _ web.Form) error {
	err := e.Audit.With(r.Context(), e.event(r, p, audit.TOTPDisabled), func(event store.AuditEvent) error {
		return e.Factors.RemoveApp(r.Context(), p.user.Subject, event)
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return oauth.Unavailable(fmt.Errorf("remove an authenticator app: %w", err))
	}
	return e.done(w, "noapp")
}

func (e *Endpoint) renewRecovery(w http.ResponseWriter, r *http.Request, p person, _ web.Form) error {
	var codes []string
	err := e.Audit.With(r.Context(), e.event(r, p, audit.RecoveryRenewed), func(event store.AuditEvent) (err error) {
		codes, err = e.Factors.NewRecoveryCodes(r.Context(), p.user.Subject, event)
		return err
	})
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("renew recovery codes: %w", err))
	}
	return e.Pages.Show(w, r, web.Page{Name: "recovery", Data: recoveryView{codes}})
}

func (e *Endpoint) newPasskey(w http.ResponseWriter, r *http.Request, p person) error {
	return e.showPasskey(w, r, p, http.StatusOK, false)
}

func (e *Endpoint) showPasskey(w http.ResponseWriter, r *http.Request, p person, status int, failed bool) error {
	if !e.Factors.Passkeys() {
		return &oauth.Error{Status: http.StatusNotFound, Code: oauth.InvalidRequest}
	}
	c, err := e.Factors.BeginPasskey(r.Context(), p.user)
	if errors.Is(err, factors.ErrTooMany) {
		return oauth.Refuse(oauth.InvalidRequest, "There are too many passkeys already. Remove one first.")
	}
	if err != nil {
		return oauth.Unavailable(err)
	}
	cookie := e.Sessions.Cookie(r)
	state, err := e.Sessions.SealValue(purposePasskey, cookie, factors.CeremonyLife, c.State)
	if err != nil {
		return oauth.Failed(err)
	}
	page := web.Page{Name: "addpasskey", Status: status, Script: true,
		Data: passkeyForm{e.Guard.Token(cookie), web.JSON(c.Options), state, failed}}
	if failed {
		page.Problem = web.ProblemPasskey
	}
	return e.Pages.Show(w, r, page)
}

// maxName bounds the name that a person gives a passkey.
const maxName = 64

func (e *Endpoint) addPasskey(w http.ResponseWriter, r *http.Request, p person, form web.Form) error {
	var state []byte
	if err := e.Sessions.OpenValue(purposePasskey, e.Sessions.Cookie(r), form.Value("state"), &state); err != nil {
		return oauth.Refuse(oauth.InvalidRequest, "This page is too old. Begin again.")
	}
	name := strings.TrimSpace(strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return -1
		}
		return c
	}, form.Value("name")))
	if runes := []rune(name); len(runes) > maxName {
		name = string(runes[:maxName])
	}
	if name == "" {
		name = agent(r.UserAgent())
	}
	err := e.Audit.With(r.Context(), e.event(r, p, audit.PasskeyAdded), func(event store.AuditEvent) error {
		return e.Factors.AddPasskey(r.Context(), p.user, name, state, []byte(form.Value("passkey")), event)
	})
	if errors.Is(err, factors.ErrWrong) {
		return e.showPasskey(w, r, p, http.StatusUnprocessableEntity, true)
	}
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("store a passkey: %w", err))
	}
	return e.done(w, "passkey")
}

func (e *Endpoint) removePasskey(w http.ResponseWriter, r *http.Request, p person, form web.Form) error {
	id, err := base64.RawURLEncoding.DecodeString(form.Value("id"))
	if err != nil {
		return oauth.Refuse(oauth.InvalidRequest, "")
	}
	err = e.Audit.With(r.Context(), e.event(r, p, audit.PasskeyRemoved), func(event store.AuditEvent) error {
		return e.Factors.RemovePasskey(r.Context(), p.user.Subject, id, event)
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return oauth.Unavailable(fmt.Errorf("remove a passkey: %w", err))
	}
	return e.done(w, "nopasskey")
}
