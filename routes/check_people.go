package routes

import (
	"net/url"
	"os"
	"path/filepath"

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

// unusual checks what follows unusual behaviour. Failures never revoke: anybody
// can fail in another's name.
func (c *checker) unusual(a *AuthServer) {
	u := &a.Unusual
	c.oneOf(&u.Refresh, "unusual: refresh", a.Pos, "off", "notify", "revoke")
	c.oneOf(&u.NewCountry, "unusual: new_country", a.Pos, "off", "notify", "revoke")
	c.oneOf(&u.Failures, "unusual: failures", a.Pos, "off", "notify")
	switch {
	case u.Countries != "":
		pos := c.at(&u.Countries, a.Pos)
		if !filepath.IsAbs(u.Countries) {
			u.Countries = filepath.Join(filepath.Dir(pos.File), u.Countries)
		}
		c.sources(u.Countries)
		if info, err := os.Stat(u.Countries); err != nil || info.IsDir() {
			c.report(pos, "unusual: countries: the file %s is not there or cannot be read", u.Countries)
		}
		if u.NewCountry == "off" {
			c.report(pos, "unusual: countries is for new_country, which is off")
		}
	case u.NewCountry == "notify" || u.NewCountry == "revoke":
		c.report(c.at(&u.NewCountry, a.Pos), "unusual: new_country needs countries, a file that says in which country networks are")
	}
}
