package authorize

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// maxQuery bounds a request, which has to fit into a URL once more, sealed.
const maxQuery = 6 << 10

// request is an authorization request whose client and redirect URI are
// known, so that errors can go back to the client.
type request struct {
	client   *clients.Client
	redirect string
	state    string
	form     web.Form
	from     origin

	scopes    []string
	resources []string
	challenge string
	nonce     string
	key       string // that the code is bound to (RFC 9449, 10)
	hint      string // subject of a valid id_token_hint
	prompt    []string
	maxAge    int64 // -1: none
	acrs      []string
}

var errTarget = oauth.Refuse(oauth.InvalidRequest, "The application or the address to return to is not registered.")

// target finds where the answer goes. Until it has, nothing is redirected
// (RFC 9700, 4.11.2), and one and the same page answers an unknown client and
// a redirect URI that is not the client's.
func (e *Endpoint) target(ctx context.Context, form web.Form) (*request, error) {
	if form.Count("client_id") != 1 || form.Count("redirect_uri") > 1 {
		return nil, errTarget
	}
	c, err := e.Clients.Client(ctx, form.Value("client_id"))
	if errors.Is(err, store.ErrNotFound) {
		return nil, errTarget
	}
	if err != nil {
		return nil, oauth.Unavailable(fmt.Errorf("look up the client: %w", err))
	}
	uri, ok := c.Redirect(form.Value("redirect_uri"))
	if !ok {
		return nil, errTarget
	}
	q := &request{client: c, redirect: uri, form: form, maxAge: -1}
	if form.Count("state") == 1 {
		q.state = form.Value("state")
	}
	return q, nil
}

// check reads the rest of the request. Errors are for the client.
func (e *Endpoint) check(q *request, from origin) error {
	f := q.form
	switch {
	case f.Repeated() != "":
		return oauth.Refuse(oauth.InvalidRequest, "a parameter occurs more than once")
	case !from.pushed && (e.RequirePAR || q.client.RequirePAR):
		return oauth.Refuse(oauth.InvalidRequest, "the request must be pushed to the server first")
	case !from.signed && q.client.RequireSigned:
		return oauth.Refuse(oauth.InvalidRequest, "the request must be signed")
	case q.client.RequireState && q.state == "":
		return oauth.Refuse(oauth.InvalidRequest, "state is missing")
	case f.Value("response_type") == "":
		return oauth.Refuse(oauth.InvalidRequest, "response_type is missing")
	case f.Value("response_type") != "code":
		return oauth.Refuse(oauth.UnsupportedResponseType, "only response_type=code exists here")
	case !q.client.MayUse(clients.GrantCode):
		return oauth.Refuse(oauth.UnauthorizedClient, "the authorization code grant is not allowed to the client")
	}
	if m := f.Value("response_mode"); m != "" && m != "query" {
		return oauth.Refuse(oauth.InvalidRequest, "only response_mode=query exists here")
	}
	if err := q.readChallenge(); err != nil {
		return err
	}
	if err := q.readPrompt(); err != nil {
		return err
	}
	q.nonce = f.Value("nonce")
	if q.key = f.Value("dpop_jkt"); q.key != "" && (len(q.key) != 43 || strings.ContainsFunc(q.key, notBase64URL)) {
		return oauth.Refuse(oauth.InvalidRequest, "dpop_jkt must be 43 characters of base64url")
	}
	var err error
	if q.scopes, err = e.Scopes.Grant(f.Value("scope"), scopes.Personal(q.client.Scopes)); err != nil {
		return err
	}
	if q.resources, err = e.Scopes.Audience(f.All("resource"), q.client.Resources); err != nil {
		return err
	}
	if hint := f.Value("id_token_hint"); hint != "" {
		h, err := e.Tokens.ParseHint(hint)
		if err != nil {
			return oauth.Refuse(oauth.InvalidRequest, "id_token_hint is not an ID token of this server")
		}
		q.hint = h.Subject
	}
	return nil
}

// readChallenge requires PKCE with S256 of every client (OAuth 2.1, 7.5.1).
func (q *request) readChallenge() error {
	q.challenge = q.form.Value("code_challenge")
	switch {
	case q.challenge == "":
		return oauth.Refuse(oauth.InvalidRequest, "code_challenge is missing: PKCE is required")
	case q.form.Value("code_challenge_method") != "S256":
		return oauth.Refuse(oauth.InvalidRequest, "code_challenge_method must be S256")
	case len(q.challenge) != 43 || strings.ContainsFunc(q.challenge, notBase64URL):
		return oauth.Refuse(oauth.InvalidRequest, "code_challenge must be 43 characters of base64url")
	}
	return nil
}

func notBase64URL(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
}

func (q *request) readPrompt() error {
	q.prompt = strings.Fields(q.form.Value("prompt"))
	if q.prompts("none") && len(q.prompt) > 1 {
		return oauth.Refuse(oauth.InvalidRequest, "prompt=none stands alone")
	}
	q.acrs = strings.Fields(q.form.Value("acr_values"))
	if v := q.form.Value("max_age"); v != "" {
		n, err := strconv.ParseInt(v, 10, 32)
		if err != nil || n < 0 {
			return oauth.Refuse(oauth.InvalidRequest, "max_age must be a number of seconds")
		}
		q.maxAge = n
	}
	return nil
}

func (q *request) prompts(value string) bool { return slices.Contains(q.prompt, value) }

// answer returns the redirect URI with an answer added to its query, and with
// the issuer, which lets the client notice a mix-up (RFC 9207).
func (e *Endpoint) answer(q *request, name, value, description string) string {
	var b strings.Builder
	b.WriteString(q.redirect)
	separator := byte('?')
	if strings.Contains(q.redirect, "?") {
		separator = '&'
	}
	add := func(name, value string) {
		b.WriteByte(separator)
		separator = '&'
		b.WriteString(name)
		b.WriteByte('=')
		b.WriteString(url.QueryEscape(value))
	}
	add(name, value)
	if description != "" {
		add("error_description", description)
	}
	if q.state != "" {
		add("state", q.state)
	}
	add("iss", e.Issuer)
	return b.String()
}
