package auth

import (
	"encoding/base64"
	"errors"
	"net/http"

	"github.com/gatehouse/gatehouse/authserver/dpop"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// fieldDPoP is the field that holds a proof (RFC 9449, 4.1), in lower case.
const fieldDPoP = "dpop"

// possession refuses a token that is bound to a key or a certificate which the
// sender of this request has not shown (RFC 9449, 7; RFC 8705, 3). It is asked
// on every request, after the cache: a proof is of one request.
func (p *Plugin) possession(u *rule, x *plugins.Exchange, c credential, confirm plugins.Confirmation) *plugins.Error {
	if c.dpop != (confirm.Key != "") {
		// A bound token that was stolen is presented as Bearer, where nobody asks
		// for a proof; and a proof does not make an unbound token more.
		return u.unbound
	}
	if c.dpop {
		if refusal := p.proven(u, x, string(c.token), confirm.Key); refusal != nil {
			return refusal
		}
	}
	if confirm.Certificate != "" && confirm.Certificate != certificate(x) {
		return u.uncertified
	}
	return nil
}

// proven verifies the proof and spends it.
func (p *Plugin) proven(u *rule, x *plugins.Exchange, token, key string) *plugins.Error {
	raw, count := x.Field(fieldDPoP)
	if count != 1 {
		return u.unproven
	}
	proof, err := dpop.Verify(string(raw), dpop.Request{
		Method: string(x.Method), URL: target(x), Path: canonical, Token: token, Nonces: p.config.Nonces, Now: x.Time,
	})
	if p.config.Nonces != nil {
		// On every answer, so that the client's next proof is good.
		x.AddResponseField("DPoP-Nonce", p.config.Nonces.Current(x.Time))
	}
	switch {
	case errors.Is(err, dpop.ErrNonce):
		return u.nonce
	case err != nil:
		return u.unproven
	case proof.Key != key:
		return u.unbound
	}
	switch p.config.Proofs.Spend(proof.ID, proof.Expires, x.Time) {
	case errSpent:
		return u.unproven
	case errFull:
		return &plugins.Error{
			Status: http.StatusTooManyRequests, Code: plugins.RateLimited, Detail: "Too many DPoP proofs are in use.",
			Header: [][2]string{{"Retry-After", "60"}},
		}
	}
	return nil
}

// target is the URL of the request as its client knows it.
func target(x *plugins.Exchange) string {
	scheme := "http://"
	if x.TLS {
		scheme = "https://"
	}
	return scheme + string(x.Authority) + string(x.Path)
}

// canonical is the path in the form in which Exchange.Path is.
func canonical(path string) string {
	if c, ok := routes.CanonicalPath(make([]byte, 0, len(path)), []byte(path), true); ok {
		return string(c)
	}
	return ""
}

// certificate is the thumbprint of the client's certificate, "" if it has none.
// No header field can say so.
func certificate(x *plugins.Exchange) string {
	if x.ClientCert == nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(x.ClientCert.Thumbprint[:])
}

// confirmation reads cnf (RFC 7800). A way of binding that is not known cannot
// be checked, so such a token is refused.
func confirmation(raw []byte) (c plugins.Confirmation, err error) {
	if raw == nil {
		return c, nil
	}
	err = object(raw, func(name string, value []byte) error {
		to := map[string]*string{"jkt": &c.Key, "x5t#S256": &c.Certificate}[name]
		if to == nil {
			return errBound
		}
		s, err := text(value)
		if err != nil || len(s) != 43 {
			return errBound
		}
		*to = s
		return nil
	})
	if err == nil && c == (plugins.Confirmation{}) {
		err = errBound
	}
	return c, err
}

// bindings prepares the refusals that are about possession.
func (u *rule) bindings(c challenge, demanded bool) {
	c.scheme = schemeDPoP
	refuse := func(reason, code string, header ...[2]string) *plugins.Error {
		return &plugins.Error{Status: http.StatusUnauthorized, Code: reason, Header: append(header, c.header(code)...)}
	}
	u.dpop = demanded
	u.unproven = refuse(plugins.ProofInvalid, oauth.InvalidDPoPProof)
	u.nonce = refuse(plugins.ProofNonce, oauth.UseDPoPNonce)
	u.unbound = refuse(plugins.BindingMismatch, oauth.InvalidToken)
	u.bearer = refuse(plugins.ProofRequired, oauth.InvalidToken)
	u.failedDPoP = c.header(oauth.InvalidToken)
	c.scheme = ""
	u.uncertified = refuse(plugins.BindingMismatch, oauth.InvalidToken)
	if demanded {
		c.scheme = schemeDPoP
		u.absent = &plugins.Error{
			Status: http.StatusUnauthorized, Code: plugins.TokenMissing, Header: c.header(""),
			Detail: "Send an access token as \"Authorization: DPoP …\", with a proof in the field DPoP.",
		}
	}
}

const schemeDPoP = "DPoP"
