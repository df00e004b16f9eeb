package grants

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
)

// claims puts into an access token what the client's rules say of its user. A
// client's own token has none, and a token without rules costs nothing.
func (e *Endpoint) claims(ctx context.Context, q *request, a *tokens.Access) error {
	if len(q.client.Claims) == 0 || a.Subject == "" || strings.HasPrefix(a.Subject, clientSubject) {
		return nil
	}
	about, err := e.Users.Attributes(ctx, a.Subject)
	if errors.Is(err, store.ErrNotFound) {
		return oauth.Refuse(oauth.InvalidGrant, "the user is not there any more")
	}
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("look up the user's roles: %w", err))
	}
	for _, name := range slices.Sorted(maps.Keys(q.client.Claims)) {
		claim := tokens.Claim{Name: name}
		switch q.client.Claims[name] {
		case clients.ClaimRoles:
			claim.Values = about.Roles
		case clients.ClaimGroups:
			claim.Values = about.Groups
		case clients.ClaimPermissions:
			claim.Values = about.Permissions
		}
		a.Claims = append(a.Claims, claim)
	}
	return nil
}
