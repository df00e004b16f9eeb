package main

import (
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"github.com/gatehouse/gatehouse/authserver/enrol"
	"github.com/gatehouse/gatehouse/authserver/ldap"
	"github.com/gatehouse/gatehouse/authserver/mail"
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
	var err error
	if c.Roots, err = authorities(l.CA); err != nil {
		return nil, fmt.Errorf("ldap: %w", err)
	}
	return ldap.New(c)
}

// authorities are the certificate authorities of a file; nil, which means the
// system's, where none is named.
func authorities(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("ca: %s holds no certificate", path)
	}
	return pool, nil
}

// openMail makes the way to the mail server of the configuration; nil when there
// is none. Whether it answers is seen when something is sent.
func openMail(s *routes.SMTP) (mail.Sender, error) {
	if s == nil {
		return nil, nil
	}
	roots, err := authorities(s.CA)
	if err != nil {
		return nil, fmt.Errorf("smtp: %w", err)
	}
	sender, err := mail.NewSMTP(mail.SMTPConfig{
		Address: s.Address, From: s.From, Username: s.Username, Password: s.Password.Reveal(), TLS: s.TLS, Roots: roots, Timeout: s.Timeout,
	})
	if err != nil {
		return nil, err
	}
	return sender, nil
}

// enrolment is what people may do by mail.
func enrolment(a *routes.AuthServer) enrol.Policy {
	return enrol.Policy{
		VerificationTTL: a.EmailVerification.TTL, ResetTTL: a.PasswordReset.TTL, Reset: a.PasswordReset.Enabled,
		Register: a.Registration.Enabled, Domains: a.Registration.AllowedDomains,
	}
}
