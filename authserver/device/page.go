package device

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/session"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// entryView and confirmView are what the pages show.
type entryView struct {
	CSRF   string `json:"-"`
	Code   string `json:"user_code,omitempty"`
	Failed bool   `json:"-"`
}

type confirmView struct {
	Client      string             `json:"client"`
	User        string             `json:"user"`
	Code        string             `json:"user_code"`
	CSRF        string             `json:"-"`
	Interaction string             `json:"interaction"`
	Scopes      []scopes.Described `json:"scopes"`
}

// Samples are the pages in all their states.
func Samples() []web.Page {
	return []web.Page{
		{Name: "device", Data: entryView{CSRF: "c", Code: "BDFK-RTWX"}},
		{Name: "device", Data: entryView{CSRF: "c", Failed: true}},
		{Name: "deviceconfirm", Data: confirmView{Client: "TV", User: "alice", Code: "BDFK-RTWX", CSRF: "c", Interaction: "i",
			Scopes: []scopes.Described{{Name: "openid"}, {Name: "read:orders", Description: "Read your orders"}}}},
		{Name: "deviceconfirm", Data: confirmView{}},
		{Name: "deviceallowed"}, {Name: "devicedenied"},
	}
}

// Page is where the person types the code, and then decides. It asks for a
// sign-in first: guessing codes takes an account.
func (e *Endpoint) Page(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		return e.submit(w, r)
	}
	form, err := web.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	if handle := form.Value("i"); handle != "" { // back from the sign-in
		i, err := e.Sessions.Open(e.Sessions.Browser(r), handle)
		if err != nil {
			return session.ErrOver
		}
		web.Redirect(w, e.Path+"/oauth/device?"+i.Query)
		return nil
	}
	_, _, err = e.signedIn(r)
	if errors.Is(err, store.ErrNotFound) {
		return e.toLogin(w, r, form)
	}
	if err != nil {
		return err
	}
	code := form.Value("user_code")
	if len(code) > 64 {
		code = ""
	}
	return e.showEntry(w, r, http.StatusOK, code, false)
}

// signedIn returns the session and its user; store.ErrNotFound where there is
// none.
func (e *Endpoint) signedIn(r *http.Request) (store.Session, store.User, error) {
	s, err := e.Sessions.Current(r.Context(), r)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return s, store.User{}, oauth.Unavailable(fmt.Errorf("look up the session: %w", err))
	}
	if err != nil {
		return s, store.User{}, err
	}
	u, err := e.Users.User(r.Context(), s.Subject)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return s, u, oauth.Unavailable(fmt.Errorf("look up the user: %w", err))
	}
	return s, u, err
}

func (e *Endpoint) toLogin(w http.ResponseWriter, r *http.Request, form web.Form) error {
	i := session.Interaction{Return: "device"}
	if code := form.Value("user_code"); code != "" {
		if code, ok := readUserCode(code); ok {
			i.Query = "user_code=" + shown(code)
		}
	}
	handle, err := e.Sessions.Seal(e.Sessions.EnsureBrowser(w, r), i)
	if err != nil {
		return oauth.Failed(err)
	}
	web.Redirect(w, e.Path+"/oauth/login?i="+handle)
	return nil
}

func (e *Endpoint) showEntry(w http.ResponseWriter, r *http.Request, status int, code string, failed bool) error {
	page := web.Page{Name: "device", Status: status, Data: entryView{e.Guard.Token(e.Sessions.Cookie(r)), code, failed}}
	if code != "" {
		page.Query = "user_code=" + url.QueryEscape(code)
	}
	if failed {
		page.Problem = web.ProblemUserCode
	}
	return e.Pages.Show(w, r, page)
}

func (e *Endpoint) submit(w http.ResponseWriter, r *http.Request) error {
	form, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	if err := e.Guard.Check(r, form, e.Sessions.Cookie(r)); err != nil {
		return err
	}
	s, u, err := e.signedIn(r)
	if errors.Is(err, store.ErrNotFound) {
		return session.ErrOver
	}
	if err != nil {
		return err
	}
	if form.Value("i") != "" {
		return e.decide(w, r, form, s)
	}
	return e.lookUp(w, r, form, s, u)
}

// lookUp takes the code and asks the person about what it stands for. Nothing
// is ever allowed without that question, also when the code came with the URL:
// somebody else may have sent it (RFC 8628, 5.4).
func (e *Endpoint) lookUp(w http.ResponseWriter, r *http.Request, form web.Form, s store.Session, u store.User) error {
	ctx := r.Context()
	if err := e.limit(ctx, "device-code:"+s.Subject, perSubject); err != nil {
		return err
	}
	if err := e.limit(ctx, "device-code-from:"+web.ClientAddress(r), perAddress); err != nil {
		return err
	}
	typed := form.Value("user_code")
	code, ok := readUserCode(typed)
	var d store.Device
	err := store.ErrNotFound
	if ok {
		d, err = e.Store.DeviceByUserCode(ctx, e.userHash(code), e.Now())
	}
	var c *clients.Client
	if err == nil {
		c, err = e.Clients.Client(ctx, d.ClientID)
	}
	if errors.Is(err, store.ErrNotFound) || err == nil && !c.MayUse(clients.GrantDevice) {
		if err := e.Audit.Write(ctx, e.event(r, s, audit.DeviceGuessed, audit.Failure, "")); err != nil {
			return oauth.Unavailable(err)
		}
		return e.showEntry(w, r, http.StatusUnprocessableEntity, "", true)
	}
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("look up the code: %w", err))
	}
	handle, err := e.Sessions.Seal(e.Sessions.EnsureBrowser(w, r), session.Interaction{
		Return: "device", Device: d.UserHash[:], Session: s.ID, ClientID: c.ID, Scopes: d.Scopes,
	})
	if err != nil {
		return oauth.Failed(err)
	}
	return e.Pages.Show(w, r, web.Page{Name: "deviceconfirm", Data: confirmView{
		c.Title(), u.Name, shown(code), e.Guard.Token(e.Sessions.Cookie(r)), handle, e.Scopes.Describe(d.Scopes),
	}})
}

// decide takes the answer.
func (e *Endpoint) decide(w http.ResponseWriter, r *http.Request, form web.Form, s store.Session) error {
	ctx := r.Context()
	i, err := e.Sessions.Open(e.Sessions.Browser(r), form.Value("i"))
	if err != nil || len(i.Device) != len(store.Digest{}) || subtle.ConstantTimeCompare([]byte(i.Session), []byte(s.ID)) == 0 {
		return session.ErrOver
	}
	now := e.Now()
	d := store.Device{UserHash: store.Digest(i.Device), Decided: now}
	action, name := audit.DeviceDenied, "devicedenied"
	switch form.Value("decision") {
	case "allow":
		d.Subject, d.Session, d.Grant, d.ACR, d.AuthTime = s.Subject, s.ID, tokens.NewGrant(), s.ACR, s.AuthTime
		action, name = audit.DeviceAllowed, "deviceallowed"
		// It is remembered for the list of what somebody allowed; a device is
		// asked about each time.
		if err := e.Store.PutConsent(ctx, store.Consent{Subject: s.Subject, ClientID: i.ClientID, Scopes: i.Scopes, Granted: now}); err != nil {
			return oauth.Unavailable(fmt.Errorf("remember the consent: %w", err))
		}
	case "deny":
		d.Denied = true
	default:
		return oauth.Refuse(oauth.InvalidRequest, "")
	}
	event := e.event(r, s, action, audit.Success, i.ClientID)
	event.Grant = d.Grant
	err = e.Audit.With(ctx, event, func(event store.AuditEvent) error { return e.Store.DecideDevice(ctx, d, event) })
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrExpired):
		return oauth.Refuse(oauth.InvalidRequest, "The code was used already or is too old. Start again on the device.")
	case err != nil:
		return oauth.Unavailable(fmt.Errorf("store the decision: %w", err))
	}
	return e.Pages.Show(w, r, web.Page{Name: name})
}

func (e *Endpoint) event(r *http.Request, s store.Session, action, outcome, client string) store.AuditEvent {
	return store.AuditEvent{
		Action: action, Outcome: outcome, Actor: audit.User(s.Subject), Client: client, Subject: s.Subject, Session: s.ID,
		IP: web.ClientAddress(r),
	}
}
