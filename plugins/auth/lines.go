package auth

import "github.com/gatehouse/gatehouse/plugins"

// The lines that tell a backend who calls.
const (
	lineSubject = "X-Auth-Subject: "
	lineClient  = "X-Auth-Client: "
	lineScope   = "X-Auth-Scope: "
	lineIssuer  = "X-Auth-Issuer: "
	lineSession = "X-Auth-Session: "
)

// identity renders p's block of header lines. Whatever is not visible ASCII is
// percent-encoded, and so is '%': no two values look alike to a backend, and
// none can end a line (EDGE: S42).
func identity(p *plugins.Principal) []byte {
	b := make([]byte, 0, 256)
	b = line(b, lineSubject, p.Subject)
	b = line(b, lineClient, p.ClientID)
	if len(p.Scopes) > 0 {
		b = append(b, lineScope...)
		for i, s := range p.Scopes {
			if i > 0 {
				b = append(b, ' ')
			}
			b = append(b, s...)
		}
		b = append(b, "\r\n"...)
	}
	b = line(b, lineIssuer, p.Issuer)
	return line(b, lineSession, p.Session)
}

func line(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	const hex = "0123456789ABCDEF"
	b = append(b, name...)
	for i := range len(value) {
		if c := value[i]; c <= 0x20 || c >= 0x7f || c == '%' {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return append(b, "\r\n"...)
}
