package grants

import (
	"context"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/tokens"
)

// clientSubject begins the subjects of clients: a namespace that users cannot
// take (RFC 9700, 4.15).
const clientSubject = "client:"

// clientCredentials gives a client a token of its own (RFC 6749, 4.4). There
// is no refresh token and no ID token, and scopes about a person mean nothing.
func (e *Endpoint) clientCredentials(ctx context.Context, q *request) (*answer, error) {
	if q.client.Public() {
		return nil, oauth.Refuse(oauth.UnauthorizedClient, "a public client cannot have a token of its own")
	}
	granted, err := e.Scopes.Grant(q.form.Value("scope"), q.client.Scopes)
	if err != nil {
		return nil, err
	}
	own := granted[:0]
	for _, s := range granted {
		switch s {
		case scopes.OpenID, scopes.Profile, scopes.Email, scopes.OfflineAccess:
		default:
			own = append(own, s)
		}
	}
	audience, err := e.Scopes.Audience(q.form.All("resource"), q.client.Resources)
	if err != nil {
		return nil, err
	}
	subject := clientSubject + q.client.ID
	now, err := e.mintTime(ctx, q.client.ID, subject)
	if err != nil {
		return nil, err
	}
	return e.mint(ctx, q, audit.TokenIssued, tokens.Access{
		Subject: subject, ClientID: q.client.ID, Scope: join(own), Audience: audience, Issued: now,
	})
}
