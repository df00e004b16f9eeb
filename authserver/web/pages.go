package web

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

// Pages renders what people see: plain HTML that needs no script, with every
// text out of the catalogue of the reader's language. It is safe for concurrent
// use.
type Pages struct {
	base   string
	look   atomic.Pointer[Look]
	logger *slog.Logger
}

// Page is one answer for a person.
type Page struct {
	// Name is the template's, which is also the prefix of its texts.
	Name   string
	Status int // 0: 200
	Data   any
	// FormAction is the source that the page's form may be redirected to, as
	// a CSP source expression: browsers check form-action after redirects,
	// too, so the client's origin has to be there.
	FormAction string
	// Locales are the languages that the application asked for (`ui_locales`),
	// in its order; they come before those of the browser.
	Locales string
	// Query is that of the endpoint when it is asked for the page again.
	Query string
	// Problem is a stable word for what was wrong with what was sent, "" for
	// nothing; see the constants.
	Problem string
	// Script lets the page load the server's own script, which passkeys need.
	Script bool
}

// Problems of what people send, for who shows pages in our place.
const (
	ProblemThrottled      = "throttled"
	ProblemCredentials    = "wrong_credentials"
	ProblemCode           = "wrong_code"
	ProblemPasskey        = "wrong_passkey"
	ProblemUserCode       = "unknown_user_code"
	ProblemPassword       = "wrong_password"
	ProblemPasswordLength = "password_length"
	ProblemPasswordRepeat = "password_repeat"
	ProblemEmail          = "wrong_email"
	ProblemEmailDomain    = "email_domain"
	ProblemAccountExists  = "account_exists"
)

// NewPages reads the templates and the texts. base is the path of the issuer.
func NewPages(base string, logger *slog.Logger) (*Pages, error) {
	p := &Pages{base: base, logger: logger}
	look, err := p.Prepare("", nil)
	if err != nil {
		return nil, err
	}
	p.Apply(look)
	return p, nil
}

// Show renders page in the language that suits the request. Nothing is sent
// before the whole page is rendered.
func (p *Pages) Show(w http.ResponseWriter, r *http.Request, page Page) error {
	if front := frontOf(r.Context()); front != nil && page.Name != errorPage {
		return front.Show(w, r, page)
	}
	var b bytes.Buffer
	look := p.look.Load()
	if err := look.render(&b, look.language(r, page.Locales), page); err != nil {
		return oauth.Failed(err)
	}
	h := w.Header()
	secure(h, page)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	h.Add("Vary", "Accept-Language")
	if page.Status == 0 {
		page.Status = http.StatusOK
	}
	w.WriteHeader(page.Status)
	_, _ = w.Write(b.Bytes())
	return nil
}

// secure sets the fields that every page carries (RFC 9700, 4.2 and 4.16).
func secure(h http.Header, page Page) {
	noStore(h)
	csp := "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
	if page.Script {
		csp += "; script-src 'self'"
	}
	switch page.FormAction {
	case anyFormAction:
	case "":
		csp += "; form-action 'self'"
	default:
		csp += "; form-action 'self' " + page.FormAction
	}
	h.Set("Content-Security-Policy", csp)
	h.Set("X-Frame-Options", "DENY")
	// With no-referrer browsers would send `Origin: null` on our own forms.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
}

// anyFormAction leaves form-action out, for the redirect targets that CSP has
// no words for: an IPv6 literal is not a host-source.
const anyFormAction = "*"

// FormAction is the CSP source expression of a redirect URI that was
// registered, so it is known to be well-formed.
func FormAction(redirectURI string) string {
	scheme, rest, ok := strings.Cut(redirectURI, "://")
	if !ok {
		scheme, _, _ = strings.Cut(redirectURI, ":")
		return scheme + ":"
	}
	if scheme != "http" && scheme != "https" {
		return scheme + ":"
	}
	host, _, _ := strings.Cut(rest, "/")
	host, _, _ = strings.Cut(host, "?")
	if strings.ContainsAny(host, "[]") {
		return anyFormAction
	}
	return scheme + "://" + host
}

// Handler serves an endpoint for people: its errors become a page. timeout
// bounds everything that a request waits for.
func (p *Pages) Handler(e Endpoint, timeout time.Duration, methods ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !contains(methods, r.Method) {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			p.fail(w, r, &oauth.Error{Status: http.StatusMethodNotAllowed, Code: oauth.InvalidRequest})
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		if err := e(w, r.WithContext(ctx)); err != nil {
			p.fail(w, r, err)
		}
	})
}

// errorView is what the page error shows.
type errorView struct{ Kind, Detail string }

const errorPage = "error"

// errorKinds are the texts of the page error.
var errorKinds = [...]string{"request", "forbidden", "busy", "server"}

// fail shows an error. The page says what the person can do, never details.
func (p *Pages) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := protocolError(err)
	logCause(r, p.logger, e)
	if e.Retry > 0 {
		w.Header().Set("Retry-After", retryAfter(e.Retry))
	}
	kind := errorKinds[0]
	switch {
	case e.Status == http.StatusForbidden:
		kind = errorKinds[1]
	case e.Status == http.StatusTooManyRequests:
		kind = errorKinds[2]
	case e.Status >= 500:
		kind = errorKinds[3]
	}
	if err := p.Show(w, r, Page{Name: errorPage, Status: e.Status, Data: errorView{kind, e.Description}}); err != nil {
		p.logger.ErrorContext(r.Context(), "error page failed", "error", err)
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
	}
}

// Static serves styles, the script and the logo, each under a name that
// changes with its content.
func (p *Pages) Static(w http.ResponseWriter, r *http.Request) {
	a, ok := p.look.Load().assets[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("X-Content-Type-Options", "nosniff")
	if a.kind == svg { // an image that could hold a script, if opened by itself
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
	}
	_, _ = w.Write(a.body)
}

// Apply makes a prepared look the one that people see.
func (p *Pages) Apply(l *Look) { p.look.Store(l) }

// Prepare compiles the pages, with a theme's folder over the built-in files
// where folder is not empty; then it renders every sample in every language. It
// reports every problem at once, with file and line, and changes nothing.
func (p *Pages) Prepare(folder string, samples []Page, letters ...Letter) (*Look, error) {
	source, err := readSources(folder)
	if err != nil {
		return nil, err
	}
	l, err := compile(source, p.base)
	if err != nil {
		return nil, err
	}
	if folder == "" {
		return l, nil // a theme is tried; the built-in pages were, by the tests
	}
	for _, kind := range errorKinds {
		samples = append(samples, Page{Name: errorPage, Data: errorView{kind, "detail"}})
	}
	if err := errors.Join(l.try(samples), l.tryLetters(letters)); err != nil {
		return nil, err
	}
	return l, nil
}
