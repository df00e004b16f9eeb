package main

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// operators admits access tokens of the own server to the admin API, by the
// same rules as to a route.
func (e *edge) operators(i *issuer) func(r *http.Request, changes bool) (*plugins.Principal, error) {
	build := func(a routes.Auth) plugins.Handler {
		a.Issuers = []string{i.url}
		step, err := e.auth.Build(&routes.Route{Name: "admin", Auth: &a})
		if err != nil {
			panic("the admin API's own rule: " + err.Error())
		}
		return step(func(*plugins.Exchange) error { return nil })
	}
	look, change := build(routes.Auth{AnyScopes: []string{scopes.Read, scopes.Admin}}), build(routes.Auth{Scopes: []string{scopes.Admin}})
	return func(r *http.Request, changes bool) (*plugins.Principal, error) {
		judge := look
		if changes {
			judge = change
		}
		x := exchange(r)
		err := judge(x)
		var refusal *plugins.Error
		if !errors.As(err, &refusal) {
			return x.Principal, err
		}
		told := *refusal
		if told.Detail == "" && told.Status == http.StatusUnauthorized {
			told.Detail = "The admin API wants the token of admin.token, or an access token with the scope " + scopes.Admin + " or " + scopes.Read + "."
		}
		if i.nonces != nil {
			told.Header = append(slices.Clone(told.Header), [2]string{"DPoP-Nonce", i.nonces.Current(x.Time)})
		}
		return nil, &told
	}
}

// exchange has of r what a token is judged by. The admin listener asks for no
// client certificate, so a token that is bound to one is refused.
func exchange(r *http.Request) *plugins.Exchange {
	x := &plugins.Exchange{
		Method: []byte(r.Method), Authority: []byte(r.Host), TLS: r.TLS != nil, Time: time.Now(),
	}
	if path, ok := routes.CanonicalPath(nil, []byte(r.URL.EscapedPath()), true); ok {
		x.Path = path
	}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		x.ClientIP = peer.Addr().Unmap()
	}
	for name, values := range r.Header {
		for _, v := range values {
			x.Fields = append(x.Fields, plugins.Field{Name: []byte(name), Value: []byte(v)})
		}
	}
	return x
}
