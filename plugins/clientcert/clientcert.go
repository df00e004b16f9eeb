// Package clientcert refuses requests whose client showed no certificate on
// routes that want one.
//
// It owns the meaning of auth: {mtls: required}. It does not own the
// verification of certificates, which is the listener's (gateway/certs), nor
// what a token says about one (plugins/auth).
//
//	routes:
//	  - path: /payments/**
//	    auth: {scopes: [write:payments], mtls: required}
package clientcert

import (
	"net/http"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Plugin makes the steps. It keeps no state.
type Plugin struct{}

// New returns a Plugin.
func New() *Plugin { return &Plugin{} }

// Name implements plugins.Plugin.
func (p *Plugin) Name() string { return "mtls" }

// Build implements plugins.Plugin: nil for a route without mtls: required.
func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
	if r.Auth == nil || r.Auth.MTLS == "" {
		return nil, nil
	}
	shadow := r.Mode == "shadow"
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			if x.ClientCert == nil {
				if !shadow {
					return Refusal
				}
				x.Record.ShadowReason = Refusal.Code
			}
			return next(x)
		}
	}, nil
}

// Refusal is what a client without a certificate gets. It carries no
// challenge: no HTTP field could stand for what the handshake lacked.
var Refusal = &plugins.Error{
	Status: http.StatusForbidden, Code: plugins.CertificateMissing,
	Detail: "This needs a client certificate, shown in the TLS handshake.",
}
