package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

//go:embed templates/*.html texts/*.json static/style.css
var files embed.FS

// Pages renders what people see: plain HTML that needs no script, with every
// text out of one catalogue. It is safe for concurrent use.
type Pages struct {
	base   string
	style  []byte
	href   string
	texts  map[string]string
	pages  map[string]*template.Template
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
}

// NewPages reads the templates and the texts. base is the path of the issuer.
func NewPages(base string, logger *slog.Logger) (*Pages, error) {
	p := &Pages{base: base, logger: logger, pages: map[string]*template.Template{}}
	var err error
	if p.style, err = files.ReadFile("static/style.css"); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(p.style)
	p.href = base + "/oauth/static/style." + hex.EncodeToString(sum[:8]) + ".css"
	raw, err := files.ReadFile("texts/en.json")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &p.texts); err != nil {
		return nil, fmt.Errorf("texts: %w", err)
	}
	functions := template.FuncMap{
		"t":     p.text,
		"url":   func(path string) string { return base + "/oauth/" + path },
		"style": func() string { return p.href },
	}
	entries, err := files.ReadDir("templates")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".html")
		if name == "layout" {
			continue
		}
		t, err := template.New("layout.html").Funcs(functions).ParseFS(files, "templates/layout.html", "templates/"+e.Name())
		if err != nil {
			return nil, err
		}
		p.pages[name] = t
	}
	return p, nil
}

// text returns a text of the catalogue with its verbs filled in.
func (p *Pages) text(key string, args ...any) (string, error) {
	format, ok := p.texts[key]
	if !ok {
		return "", fmt.Errorf("text %q is not in the catalogue", key)
	}
	if len(args) == 0 {
		return format, nil
	}
	return fmt.Sprintf(format, args...), nil
}

// Show renders page. Nothing is sent before the whole page is rendered.
func (p *Pages) Show(w http.ResponseWriter, page Page) error {
	t, ok := p.pages[page.Name]
	if !ok {
		return oauth.Failed(fmt.Errorf("page %q does not exist", page.Name))
	}
	var b bytes.Buffer
	if err := t.Execute(&b, struct {
		Name string
		Data any
	}{page.Name, page.Data}); err != nil {
		return oauth.Failed(fmt.Errorf("render page %q: %w", page.Name, err))
	}
	h := w.Header()
	secure(h, page.FormAction)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	if page.Status == 0 {
		page.Status = http.StatusOK
	}
	w.WriteHeader(page.Status)
	_, _ = w.Write(b.Bytes())
	return nil
}

// secure sets the fields that every page carries (RFC 9700, 4.2 and 4.16).
func secure(h http.Header, formAction string) {
	noStore(h)
	csp := "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
	switch formAction {
	case anyFormAction:
	case "":
		csp += "; form-action 'self'"
	default:
		csp += "; form-action 'self' " + formAction
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

// fail shows an error. The page says what the person can do, never details.
func (p *Pages) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := protocolError(err)
	logCause(r, p.logger, e)
	if e.Retry > 0 {
		w.Header().Set("Retry-After", retryAfter(e.Retry))
	}
	kind := "request"
	switch {
	case e.Status == http.StatusForbidden:
		kind = "forbidden"
	case e.Status == http.StatusTooManyRequests:
		kind = "busy"
	case e.Status >= 500:
		kind = "server"
	}
	if err := p.Show(w, Page{Name: "error", Status: e.Status, Data: struct{ Kind, Detail string }{kind, e.Description}}); err != nil {
		p.logger.ErrorContext(r.Context(), "error page failed", "error", err)
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
	}
}

// Static serves the style sheet under its name, which changes with its content.
func (p *Pages) Static(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != p.href {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/css; charset=utf-8")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(p.style)
}
