package enrol

import (
	netmail "net/mail"
	"strings"
)

// maxAddress is RFC 5321, 4.5.3.1.3, without the angle brackets.
const maxAddress = 254

// Address returns a typed e-mail address with its domain in lower case. It takes
// those that every mail server does: ASCII, without quotes or comments, at a
// domain name with a dot.
func Address(typed string) (address string, ok bool) {
	typed = strings.TrimSpace(typed)
	local, domain, _ := strings.Cut(typed, "@")
	domain = strings.ToLower(domain)
	address = local + "@" + domain
	parsed, err := netmail.ParseAddress(address)
	odd := func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),:;<>[\]`, r) }
	if err != nil || parsed.Name != "" || parsed.Address != address || len(address) > maxAddress || strings.ContainsFunc(address, odd) {
		return "", false
	}
	if !Domain(domain) {
		return "", false
	}
	return address, true
}

// Domain reports whether this is a domain name, in lower case, that can have
// addresses.
func Domain(name string) bool {
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
	}
	return len(labels) > 1
}
