package routes

import (
	"net"
	"net/mail"
	"strconv"
	"strings"
	"time"
)

func (c *checker) mailDefaults(m *Mailing) {
	if m.SMTP != nil {
		orDefault(c, &m.SMTP.TLS, "starttls")
		orDefault(c, &m.SMTP.Timeout, 10*time.Second)
		orDefault(c, &m.PasswordReset.Enabled, true)
	}
	orDefault(c, &m.EmailVerification.TTL, 24*time.Hour)
	orDefault(c, &m.PasswordReset.TTL, 20*time.Minute)
}

// mailing checks how mail is sent, and what people may do by it.
func (c *checker) mailing(m *Mailing, owner Pos) {
	within(c, &m.EmailVerification.TTL, "email_verification: ttl", time.Hour, 7*24*time.Hour)
	within(c, &m.PasswordReset.TTL, "password_reset: ttl", 15*time.Minute, 30*time.Minute)
	for i := range m.Registration.AllowedDomains {
		domain := &m.Registration.AllowedDomains[i]
		if at, err := mail.ParseAddress("a@" + *domain); (err != nil || at.Address != "a@"+*domain || strings.ToLower(*domain) != *domain) && !c.broken(domain) {
			c.report(c.at(domain, owner), "registration: allowed_domains: %q is not a domain in lower case, such as example.com", *domain)
		}
	}
	if len(m.Registration.AllowedDomains) > 0 && !m.Registration.Enabled && !c.broken(&m.Registration.Enabled) {
		c.report(c.at(&m.Registration.AllowedDomains, owner), "registration: allowed_domains without enabled: true lets nobody register")
	}
	if m.SMTP != nil {
		if !c.broken(&m.SMTP) {
			c.smtp(m.SMTP)
		}
		return
	}
	if m.Registration.Enabled {
		c.report(c.at(&m.Registration.Enabled, owner), "registration: enabled needs smtp: an account begins with a mail to its address")
	}
	if m.PasswordReset.Enabled {
		c.report(c.at(&m.PasswordReset.Enabled, owner), "password_reset: enabled needs smtp")
	}
}

func (c *checker) smtp(s *SMTP) {
	host := ""
	if c.required(&s.Address, "smtp: address", s.Pos) {
		var port string
		var err error
		host, port, err = net.SplitHostPort(s.Address)
		if n, wrong := strconv.ParseUint(port, 10, 16); err != nil || wrong != nil || n == 0 || host == "" {
			c.report(c.at(&s.Address, s.Pos), "smtp: address: want HOST:PORT, such as smtp.example.com:587")
		}
	}
	if c.required(&s.From, "smtp: from", s.Pos) {
		if _, err := mail.ParseAddress(s.From); err != nil {
			c.report(c.at(&s.From, s.Pos), "smtp: from: %q is not an address, such as no-reply@example.com or Example <no-reply@example.com>", s.From)
		}
	}
	if (s.Username == "") != (s.Password == "") && !c.broken(&s.Password) {
		c.report(s.Pos, "smtp: username and password go together")
	}
	if s.CA != "" {
		c.namedFile(&s.CA, "smtp: ca", s.Pos)
	}
	within(c, &s.Timeout, "smtp: timeout", time.Second, time.Minute)
	if !c.oneOf(&s.TLS, "smtp: tls", s.Pos, "starttls", "implicit", "none") || s.TLS != "none" {
		return
	}
	switch {
	case host != "" && !loopbackHost(host):
		c.report(c.at(&s.TLS, s.Pos), "smtp: tls: none is for loopback only: links that open accounts would travel in the open")
	case s.Username != "":
		c.report(c.at(&s.TLS, s.Pos), "smtp: tls: none sends no password; leave username and password out")
	case s.CA != "":
		c.report(c.at(&s.CA, s.Pos), "smtp: ca goes with tls: starttls or implicit")
	}
}
