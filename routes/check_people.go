package routes

import (
	"net/url"

	"golang.org/x/net/publicsuffix"
)

// interaction checks where people are sent in place of our pages.
func (c *checker) interaction(a *AuthServer) {
	i := &a.Interaction
	if !c.oneOf(&i.Mode, "interaction: mode", a.Pos, "pages", "headless") || c.broken(&i.URL) {
		return
	}
	if i.Mode != "headless" {
		if i.URL != "" {
			c.report(c.at(&i.URL, a.Pos), "interaction: url is for mode: headless only")
		}
		return
	}
	if !c.required(&i.URL, "interaction: url", a.Pos) {
		return
	}
	pos := c.at(&i.URL, a.Pos)
	page, ok := webURL(i.URL)
	issuer, good := webURL(a.Issuer)
	switch {
	case !ok:
		c.report(pos, "interaction: url: %q is not a URL such as https://app.example.com/signin", i.URL)
	case page.Scheme == "http" && !loopbackHost(page.Hostname()) && !c.insecure():
		c.report(pos, "interaction: url: http is allowed on loopback only: passwords are typed there")
	case good && (page.Scheme != issuer.Scheme || site(page) != site(issuer)):
		c.report(pos, "interaction: url: %s is another site than the issuer's %s: browsers would not send it our cookies", page.Host, issuer.Host)
	}
}

// site is the part of a host within which browsers send cookies that are
// SameSite.
func site(u *url.URL) string {
	name, err := publicsuffix.EffectiveTLDPlusOne(u.Hostname())
	if err != nil { // an address, or a name such as localhost
		return u.Hostname()
	}
	return name
}
