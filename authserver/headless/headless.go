// Package headless lets an operator's own pages stand in for ours: browsers are
// sent to them, and they get as JSON what our templates would have got.
//
// It owns where browsers are sent, the form of the interaction API, and that
// only the operator's origin may use it. What a step asks, checks and records
// is not here: the endpoints of the pages serve the API too, so there is nothing
// that one of them allows and the other does not.
//
//	front, err := headless.New(headless.Config{Issuer: issuer, Path: base, URL: "https://app.example.com/signin"})
//	mux.Handle("/oauth/login", front.Browser(pages.Handler(login.Serve, timeout, "GET")))
//	mux.Handle("/oauth/interaction/login", front.CORS(api.Handler(front.Step(login.Serve), "GET", "POST")))
package headless

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/web"
)

// Config says whose pages they are.
type Config struct {
	// Issuer is ours, Path that of it.
	Issuer, Path string
	// URL is the operator's page.
	URL string
}

// Front is safe for concurrent use.
type Front struct {
	path string // of our pages: what is below it is a step
	api  string // of the interaction API
	// ours and origin are scheme://host[:port] of the issuer and of the page.
	ours, origin string
	page         url.URL
}

// New returns a front.
func New(c Config) (*Front, error) {
	page, err := url.Parse(c.URL)
	if err != nil || page.Host == "" {
		return nil, fmt.Errorf("interaction: %q is not a URL", c.URL)
	}
	return &Front{
		path: c.Path + "/oauth/", api: c.Path + "/oauth/interaction/",
		ours: web.OriginOf(c.Issuer), origin: web.OriginOf(c.URL), page: *page,
	}, nil
}

// Done is the step after the last: the browser goes on.
const Done = "done"

// steps are the pages that have another name as a step, or none of their own
// below /oauth/interaction/.
var steps = map[string]string{
	"deviceconfirm": "device_confirm", "deviceallowed": "device_allowed", "devicedenied": "device_denied",
	"signedin": "signed_in", "signedout": "signed_out",
	"forgot": "reset", "newpassword": "reset/new", "newaccount": "signup/new", "confirm": "email", "deadlink": "dead_link",
	"address": "account/email", "password": "account/password", "app": "account/app", "addpasskey": "account/passkey", "recovery": "recovery",
}

func step(page string) string {
	if name, ok := steps[page]; ok {
		return name
	}
	return page
}

// Browser has h, the handler of a page, send browsers to the operator's page
// wherever it would show one of ours or lead to it. Errors stay ours: whoever
// comes with an address that is not registered is not sent on.
func (f *Front) Browser(h http.Handler) http.Handler {
	front := &web.Front{Show: func(w http.ResponseWriter, _ *http.Request, page web.Page) error {
		query, err := url.ParseQuery(page.Query)
		if err != nil {
			return fmt.Errorf("the query of the page %s: %w", page.Name, err)
		}
		web.Redirect(w, f.address(step(page.Name), query))
		return nil
	}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&redirected{w, func(w http.ResponseWriter, target string) {
			if name, query, ok := f.own(target); ok {
				target = f.address(name, query)
			}
			web.Redirect(w, target)
		}}, r.WithContext(web.WithFront(r.Context(), front)))
	})
}

// address is the operator's page for a step.
func (f *Front) address(step string, query url.Values) string {
	page := f.page
	all := page.Query()
	for name, values := range query {
		if name == "i" {
			name = "interaction"
		}
		all[name] = values
	}
	all.Set("step", step)
	page.RawQuery = all.Encode()
	return page.String()
}

// own reports which step a target is, and with which query, if it is one.
func (f *Front) own(target string) (name string, query url.Values, ok bool) {
	u, err := url.Parse(target)
	if err != nil || u.Host != "" {
		return "", nil, false
	}
	name, ok = strings.CutPrefix(u.Path, f.path)
	switch {
	case !ok:
		return "", nil, false
	case name == "login", name == "factor", name == "consent", name == "device", name == "logout", name == "account", strings.HasPrefix(name, "account/"):
		return name, u.Query(), true
	}
	return "", nil, false
}

// redirected is a ResponseWriter whose redirects are somebody else's to answer.
type redirected struct {
	http.ResponseWriter
	to func(w http.ResponseWriter, target string)
}

// WriteHeader implements http.ResponseWriter.
func (r *redirected) WriteHeader(status int) {
	if status != http.StatusSeeOther {
		r.ResponseWriter.WriteHeader(status)
		return
	}
	target := r.Header().Get("Location")
	r.Header().Del("Location")
	r.to(r.ResponseWriter, target)
}
