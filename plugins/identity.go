package plugins

// The lines that tell a backend who calls.
const (
	lineSubject = "X-Auth-Subject: "
	lineClient  = "X-Auth-Client: "
	lineScope   = "X-Auth-Scope: "
	lineIssuer  = "X-Auth-Issuer: "
	lineSession = "X-Auth-Session: "
)

// IdentityLines renders p's block of header lines, for Principal.Identity. Whatever is not visible ASCII is
// percent-encoded, and so is '%': no two values look alike to a backend, and
// none can end a line (EDGE: S42).
func IdentityLines(p *Principal) []byte {
	b := make([]byte, 0, 256)
	b = appendLine(b, lineSubject, p.Subject)
	b = appendLine(b, lineClient, p.ClientID)
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
	b = appendLine(b, lineIssuer, p.Issuer)
	return appendLine(b, lineSession, p.Session)
}

func appendLine(b []byte, name, value string) []byte {
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
