// Package device lets somebody sign in on a phone or computer for a device
// that has no browser or keyboard (RFC 8628).
//
// It owns the device authorization endpoint and the page where the person
// types the code and decides. It does not own the polling (grants) nor the
// sign-in (login), which comes back to the page.
//
//	e := device.New(config)
//	mux.Handle("/oauth/device_authorization", api.Handler(e.Start, http.MethodPost))
//	mux.Handle("/oauth/device", pages.Handler(e.Page, timeout, "GET", "POST"))
package device

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/session"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Store is the state that the endpoints need.
type Store interface {
	store.Devices
	PutConsent(ctx context.Context, c store.Consent, events ...store.AuditEvent) error
	Tally(ctx context.Context, key string, now time.Time, window time.Duration) (int, error)
}

// Config is what an Endpoint needs.
type Config struct {
	// Issuer is where the page is; Path that of the issuer.
	Issuer, Path string
	Clients      *clients.Registry
	Users        *users.Registry
	Scopes       *scopes.Catalogue
	Sessions     *session.Manager
	Pages        *web.Pages
	Guard        *web.Guard
	Store        Store
	Audit        *audit.Log
	Now          func() time.Time
	// Key makes digests of user codes; shared by replicas.
	Key []byte
}

// Endpoint is both endpoints. It is safe for concurrent use.
type Endpoint struct{ Config }

// New returns the endpoints.
func New(c Config) *Endpoint { return &Endpoint{c} }

const (
	// life is how long the person has.
	life     = 10 * time.Minute
	interval = 5 * time.Second

	// Within window, somebody may type so many codes, an address may have so
	// many typed, and it may start so many sign-ins. Of 20^8 codes that finds
	// none.
	window     = 10 * time.Minute
	perSubject = 10
	perAddress = 50
	startsFrom = 300
)

// answer is the device authorization response (RFC 8628, 3.2).
type answer struct {
	DeviceCode string `json:"device_code"`
	UserCode   string `json:"user_code"`
	URI        string `json:"verification_uri"`
	Complete   string `json:"verification_uri_complete"`
	ExpiresIn  int64  `json:"expires_in"`
	Interval   int64  `json:"interval"`
}

// Start answers a device authorization request.
func (e *Endpoint) Start(w http.ResponseWriter, r *http.Request) error {
	if r.URL.RawQuery != "" {
		return oauth.Refuse(oauth.InvalidRequest, "parameters belong into the request's content")
	}
	form, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	c, _, err := e.Clients.Authenticate(r, form)
	if err != nil {
		return err
	}
	if !c.MayUse(clients.GrantDevice) {
		return oauth.Refuse(oauth.UnauthorizedClient, "the device grant is not allowed to the client")
	}
	ctx := r.Context()
	if err := e.limit(ctx, "device-start:"+web.ClientAddress(r), startsFrom); err != nil {
		return err
	}
	d := store.Device{ClientID: c.ID, Expires: e.Now().Add(life), Interval: interval}
	if d.Scopes, err = e.Scopes.Grant(form.Value("scope"), scopes.Personal(c.Scopes)); err != nil {
		return err
	}
	if d.Resources, err = e.Scopes.Audience(form.All("resource"), c.Resources); err != nil {
		return err
	}
	code, userCode, err := e.add(ctx, d)
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("store the device code: %w", err))
	}
	e.Audit.Queue(ctx, store.AuditEvent{
		Action: audit.DeviceStarted, Outcome: audit.Success, Actor: audit.Client(c.ID), Client: c.ID, IP: web.ClientAddress(r),
	})
	uri := e.Issuer + "/oauth/device"
	web.WriteJSON(w, http.StatusOK, answer{
		DeviceCode: code, UserCode: shown(userCode), URI: uri, Complete: uri + "?user_code=" + url.QueryEscape(shown(userCode)),
		ExpiresIn: int64(life / time.Second), Interval: int64(interval / time.Second),
	})
	return nil
}

// add stores d under new codes. A user code that is taken is replaced: that
// two requests draw the same one is unlikely, and that it happens thrice is
// a defect.
func (e *Endpoint) add(ctx context.Context, d store.Device) (code, userCode string, err error) {
	for range 3 {
		code, d.Hash = tokens.NewDeviceCode()
		userCode = newUserCode()
		d.UserHash = e.userHash(userCode)
		if err = e.Store.AddDevice(ctx, d); !errors.Is(err, store.ErrExists) {
			return code, userCode, err
		}
	}
	return "", "", err
}

// limit refuses what comes too often.
func (e *Endpoint) limit(ctx context.Context, key string, most int) error {
	n, err := e.Store.Tally(ctx, key, e.Now(), window)
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("count attempts: %w", err))
	}
	if n > most {
		return &oauth.Error{
			Status: http.StatusTooManyRequests, Code: oauth.TemporarilyUnavailable, Retry: window,
			Description: "there were too many attempts; try again later",
		}
	}
	return nil
}
