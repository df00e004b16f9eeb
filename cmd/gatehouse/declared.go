package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/routes"
)

// declaredClient is a client of the file as the authorization server takes it.
func declaredClient(c routes.Client) authserver.Client {
	p := c.ClientProof
	one := authserver.Client{
		ID: c.ID, Name: c.Name, Secret: c.Secret.Reveal(), Grants: c.Grants, Scopes: c.Scopes,
		RedirectURIs: c.RedirectURIs, PostLogoutRedirectURIs: c.PostLogoutRedirectURIs, SkipConsent: c.SkipConsent,
		ClientSettings: store.ClientSettings{
			AuthMethod: p.AuthMethod, JWKSURI: p.JWKSURI,
			TLSSubjectDN: p.TLSSubjectDN, TLSSANDNS: p.TLSSANDNS, TLSSANURI: p.TLSSANURI, TLSSANIP: p.TLSSANIP, TLSSANEmail: p.TLSSANEmail,
			CertificateBound: p.CertificateBound, DPoPBound: p.DPoPBound,
			BackchannelLogoutURI: c.BackchannelLogoutURI, BackchannelLogoutSession: c.BackchannelLogoutSessionRequired,
			Claims:     c.Claims,
			RequirePAR: p.RequirePAR, RequireSigned: p.RequireSigned, RequireState: p.RequireState, Resources: p.Resources,
		},
	}
	if p.JWKS != nil {
		set, err := json.Marshal(p.JWKS)
		if err != nil {
			panic("a YAML mapping does not encode: " + err.Error())
		}
		one.JWKS = set
	}
	if x := c.Exchange; x != nil {
		one.Exchange = &store.ExchangePolicy{
			SubjectTokensFrom: x.SubjectTokensFrom, Audiences: x.Audiences, Scopes: x.Scopes, Delegation: x.Delegation,
		}
	}
	return one
}

// checkClients reports what only the authorization server finds in declared
// clients, such as a key that is none.
func checkClients(file *routes.File) error {
	if file.AuthServer == nil {
		return nil
	}
	var problems []error
	for _, c := range file.AuthServer.Clients {
		if err := declaredClient(c).Check(); err != nil {
			problems = append(problems, routes.Problem{Pos: c.Pos, Message: fmt.Sprintf("client %q: %v", c.ID, err)})
		}
	}
	return errors.Join(problems...)
}

// mutualTLS reports whether some listener verifies client certificates.
func mutualTLS(file *routes.File) bool {
	return slices.ContainsFunc(file.Listeners, func(l routes.Listener) bool {
		return l.TLS != nil && (l.TLS.ClientCA != "" || l.TLS.ClientCertHeader)
	})
}

// loopback is where development finds what clients publish.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// fetchNetworks are those that documents of clients may be fetched from,
// besides public ones.
func fetchNetworks(file *routes.File, dev bool) []netip.Prefix {
	networks := slices.Clone(file.AuthServer.FetchNetworks)
	if dev {
		networks = append(networks, loopback...)
	}
	return networks
}
