package routes

import (
	"net/url"
	"strings"
	"time"
)

// ldap checks the directory whose people may sign in.
func (c *checker) ldap(l *LDAP) {
	if len(l.URLs) == 0 && !c.broken(&l.URLs) {
		c.report(l.Pos, "ldap: urls is missing, such as [ldaps://ldap.example.com]")
	}
	for i := range l.URLs {
		c.ldapURL(&l.URLs[i], l)
	}
	if c.written(&l.CA) {
		c.namedFile(&l.CA, "ldap: ca", l.Pos)
	}
	c.required(&l.Base, "ldap: base", l.Pos)
	if (l.BindDN == "") != (l.BindPassword == "") && !c.broken(&l.BindPassword) {
		c.report(l.Pos, "ldap: bind_dn and bind_password go together")
	}
	c.ldapFilter(&l.Filter, "ldap: filter", l.Pos, "{name}")
	if c.written(&l.Groups.Filter) || l.Groups.Base != "" {
		c.ldapFilter(&l.Groups.Filter, "ldap: groups: filter", l.Pos, "{dn}", "{name}")
		c.required(&l.Groups.Base, "ldap: groups: base", l.Pos)
	}
	if len(l.Roles) > 0 && l.Groups.Base == "" && l.Attributes.MemberOf == "" {
		c.report(c.at(&l.Roles, l.Pos), "ldap: roles are for groups, and neither groups: base nor attributes: member_of says where these are")
	}
	within(c, &l.Timeout, "ldap: timeout", 100*time.Millisecond, 30*time.Second)
	within(c, &l.Connections, "ldap: connections", 1, 256)
	within(c, l.Recheck, "ldap: recheck", 0, 24*time.Hour)
	c.oneOf(&l.OnFailure, "ldap: on_failure", l.Pos, "open", "closed")
}

func (c *checker) ldapURL(address *string, l *LDAP) {
	if c.broken(address) {
		return
	}
	u, err := url.Parse(*address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "ldap" && u.Scheme != "ldaps" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
		c.report(c.at(address, l.Pos), "ldap: urls: want ldaps://host or ldaps://host:port")
	case u.Scheme == "ldap" && !l.StartTLS && !loopbackHost(u.Hostname()):
		c.report(c.at(address, l.Pos), "ldap: urls: passwords would travel in the open; write ldaps://, or start_tls: true")
	}
}

// ldapFilter checks that a filter is in parentheses that match, and has one of
// the places to put something in. What it means is the directory's.
func (c *checker) ldapFilter(filter *string, key string, owner Pos, places ...string) {
	if c.broken(filter) {
		return
	}
	depth, whole := 0, strings.HasPrefix(*filter, "(") && strings.HasSuffix(*filter, ")")
	for i, r := range *filter {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		}
		whole = whole && (depth > 0 || i == len(*filter)-1)
	}
	if !whole || depth != 0 {
		c.report(c.at(filter, owner), "%s: %q is not a filter in parentheses, such as (uid={name})", key, *filter)
		return
	}
	for _, place := range places {
		if strings.Contains(*filter, place) {
			return
		}
	}
	c.report(c.at(filter, owner), "%s: %q has no %s in it", key, *filter, strings.Join(places, " or "))
}

// upstreams checks the other providers with which people may sign in.
func (c *checker) upstreams(a *AuthServer) {
	names := map[string]Pos{}
	for i := range a.Upstream {
		u := &a.Upstream[i]
		if c.broken(u) {
			continue
		}
		if c.required(&u.Name, "upstream: name", u.Pos) {
			c.unique(names, "upstream provider", &u.Name, u.Pos)
			if u.Name == "ldap" || strings.Trim(u.Name, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
				c.report(c.at(&u.Name, u.Pos), "upstream: name: %q must be lower-case letters, digits, - and _, and not ldap", u.Name)
			}
		}
		if c.required(&u.Issuer, "upstream: issuer", u.Pos) {
			c.issuerURL(c.at(&u.Issuer, u.Pos), u.Issuer)
			if u.Issuer == a.Issuer {
				c.report(c.at(&u.Issuer, u.Pos), "upstream: issuer: this is our own")
			}
		}
		c.required(&u.ClientID, "upstream: client_id", u.Pos)
		if u.ClientSecret == "" && !c.broken(&u.ClientSecret) {
			c.report(u.Pos, "upstream: client_secret is missing")
		}
		c.oneOf(&u.Linking, "upstream: linking", u.Pos, "none", "verified_email")
		if len(u.Roles) > 0 && u.GroupsClaim == "" {
			c.report(c.at(&u.Roles, u.Pos), "upstream: roles are for groups, and no groups_claim says where these are")
		}
	}
}
