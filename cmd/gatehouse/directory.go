package main

import (
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"github.com/gatehouse/gatehouse/authserver/ldap"
	"github.com/gatehouse/gatehouse/authserver/upstream"
	"github.com/gatehouse/gatehouse/routes"
)

// upstreams are the other providers of the configuration.
func upstreams(a *routes.AuthServer) (list []upstream.Provider) {
	for _, u := range a.Upstream {
		list = append(list, upstream.Provider{
			Name: u.Name, Title: u.Title, Issuer: u.Issuer, ClientID: u.ClientID, ClientSecret: u.ClientSecret.Reveal(),
			Scopes: u.Scopes, LinkByEmail: u.Linking == "verified_email", GroupsClaim: u.GroupsClaim, Roles: u.Roles,
		})
	}
	return list
}

// recheck is how long it is believed that people of the directory are there.
func recheck(l *routes.LDAP) time.Duration {
	if l == nil {
		return 0
	}
	return *l.Recheck
}

// openDirectory makes the directory of the configuration; nil when there is
// none. Whether it answers is seen when somebody signs in: users of our own
// do not depend on it.
func openDirectory(l *routes.LDAP) (*ldap.Directory, error) {
	if l == nil {
		return nil, nil
	}
	c := ldap.Config{
		URLs: l.URLs, StartTLS: l.StartTLS, BindDN: l.BindDN, BindPassword: l.BindPassword.Reveal(), Base: l.Base, Filter: l.Filter,
		ID: l.Attributes.ID, Name: l.Attributes.Name, Email: l.Attributes.Email, DisplayName: l.Attributes.DisplayName,
		MemberOf: l.Attributes.MemberOf, GroupBase: l.Groups.Base, GroupFilter: l.Groups.Filter, GroupName: l.Groups.Name,
		Roles: l.Roles, Timeout: l.Timeout, Connections: l.Connections,
	}
	if l.CA != "" {
		text, err := os.ReadFile(l.CA)
		if err != nil {
			return nil, fmt.Errorf("ldap: ca: %w", err)
		}
		if c.Roots = x509.NewCertPool(); !c.Roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("ldap: ca: %s holds no certificate", l.CA)
		}
	}
	return ldap.New(c)
}
