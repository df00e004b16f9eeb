// Package redirect sends clients to another URL.
//
// It owns the answer (RFC 9110, 15.4). It does not own credentials: it answers
// before anybody asks for them, so a route that only redirects is public.
//
//	routes:
//	  - path: /old/**
//	    public: true
//	    redirect: {to: "https://www.example.com{uri}", status: 308}
package redirect

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/template"
	"github.com/gatehouse/gatehouse/routes"
)

// Name is the key of the setting on a route.
const Name = "redirect"

// Settings are what stands under the key: one of To and HTTPS.
type Settings struct {
	Pos routes.Pos
	// To is where every request of the route is sent.
	To template.Template `yaml:"to"`
	// HTTPS sends requests that came in plain to the same URL over TLS.
	HTTPS bool `yaml:"https"`
	// Port is where TLS is served; default 443.
	Port int `yaml:"port"`
	// Status is 301, 302, 307 or 308; default 307, with HTTPS 308.
	Status int `yaml:"status"`
}

// Plugin makes the steps.
type Plugin struct{}

// New returns a Plugin.
func New() *Plugin { return &Plugin{} }

// Name implements plugins.Plugin.
func (p *Plugin) Name() string { return Name }

// Build implements plugins.Plugin: nil for a route without redirect.
func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
	node := r.Plugin(Name)
	if node.IsZero() {
		return nil, nil
	}
	var s Settings
	if err := node.Decode(&s); err != nil {
		return nil, err
	}
	problem := func(text string) (plugins.Step, error) {
		return nil, routes.Problem{Pos: s.Pos, Message: fmt.Sprintf("route %q: %s: %s", r.Name, Name, text)}
	}
	fixed, isFixed := s.To.Fixed()
	everything := !isFixed || fixed != ""
	switch {
	case everything == s.HTTPS:
		return problem("wants either to or https: true")
	case everything && !r.Public:
		return problem("no request of the route would reach auth; write public: true")
	case s.To.NeedsCaller():
		return problem("to: nobody was asked who calls")
	case s.To.UsesHeader():
		return problem("to: a client could choose where others are sent with a header field")
	case s.Status != 0 && !slices.Contains([]int{301, 302, 307, 308}, s.Status):
		return problem(fmt.Sprintf("status: %d is none of 301, 302, 307, 308", s.Status))
	case s.Port < 0 || s.Port > 65535:
		return problem(fmt.Sprintf("port: %d is no port", s.Port))
	case s.Port != 0 && !s.HTTPS:
		return problem("port: is for https: true")
	}
	if s.Status == 0 {
		s.Status = http.StatusTemporaryRedirect
		if s.HTTPS {
			s.Status = http.StatusPermanentRedirect
		}
	}
	if s.HTTPS {
		to, err := overTLS(s.Port)
		if err != nil {
			return nil, err
		}
		s.To = *to
	}
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			if s.HTTPS && x.TLS {
				return next(x)
			}
			return answer(x, &s.To, s.Status)
		}
	}, nil
}

func overTLS(port int) (*template.Template, error) {
	if port == 0 || port == 443 {
		return template.Parse("https://{host}{uri}")
	}
	return template.Parse("https://{host}:" + strconv.Itoa(port) + "{uri}")
}

func answer(x *plugins.Exchange, to *template.Template, status int) error {
	fields := make([]byte, 0, 256)
	fields = append(fields, "Content-Length: 0\r\nLocation: "...)
	fields, err := to.Append(fields, x)
	if err != nil {
		return &plugins.Error{Status: http.StatusBadRequest, Code: plugins.BadRequest, Err: err}
	}
	fields = append(fields, '\r', '\n')
	// Content that nobody read would be taken for the next request.
	head := plugins.ResponseHead{Status: status, Fields: fields, Date: true, Close: x.Body != nil}
	if err := x.Client.WriteHead(head); err != nil {
		return err
	}
	return x.Client.Finish()
}
