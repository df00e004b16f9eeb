package routes

import (
	"fmt"
	"slices"
	"time"
)

var (
	secretMethods = []string{"client_secret_basic", "client_secret_post"}
	keyMethods    = []string{"private_key_jwt", "self_signed_tls_client_auth"}
	authMethods   = append(append([]string{"none", "tls_client_auth"}, secretMethods...), keyMethods...)
)

// provesItself reports whether the client has something to prove who it is.
func (c *Client) provesItself() bool {
	if c.AuthMethod == "" {
		return c.Secret.Reveal() != ""
	}
	return c.AuthMethod != "none"
}

// clientProof checks what a client says about keys, certificates and resources.
// What is wrong inside a key is for the authorization server to find.
func (c *checker) clientProof(client *Client, a *AuthServer) {
	p := &client.ClientProof
	method, secret := p.AuthMethod, client.Secret.Reveal() != ""
	if method != "" && !c.oneOf(&p.AuthMethod, "token_endpoint_auth_method", client.Pos, authMethods...) {
		return
	}
	at := c.at(&p.AuthMethod, client.Pos)
	switch {
	case c.broken(&client.Secret) || method == "":
	case slices.Contains(secretMethods, method) && !secret:
		c.report(at, "token_endpoint_auth_method: %s needs a secret", method)
	case !slices.Contains(secretMethods, method) && secret:
		c.report(c.at(&client.Secret, client.Pos), "secret is of no use with token_endpoint_auth_method: %s", method)
	}
	c.clientKeys(client)
	mutual := method == "tls_client_auth" || method == "self_signed_tls_client_auth"
	asks := func(l Listener) bool { return l.TLS != nil && (l.TLS.ClientCA != "" || l.TLS.ClientCertHeader) }
	if (mutual || p.CertificateBound) && !slices.ContainsFunc(c.file.Listeners, asks) && !c.broken(&c.file.Listeners) {
		c.report(client.Pos, "the client %q needs a certificate, but no listener asks for one: give one of them tls: client_ca", client.ID)
	}
	c.knownResources("resources: ", p.Resources, client.Pos, a)
}

func (c *checker) clientKeys(client *Client) {
	p := &client.ClientProof
	if c.broken(&p.JWKS) || c.broken(&p.JWKSURI) {
		return
	}
	if (slices.Contains(keyMethods, p.AuthMethod) || p.RequireSigned) && !c.written(&p.JWKS) && p.JWKSURI == "" {
		c.report(client.Pos, "the client %q needs jwks or jwks_uri: there is no key to verify its signatures with", client.ID)
	}
	if p.JWKSURI != "" {
		if _, ok := secureURL(p.JWKSURI); !ok {
			c.report(c.at(&p.JWKSURI, client.Pos), "jwks_uri is not an https URL (http is allowed on loopback only)")
		}
		if c.written(&p.JWKS) {
			c.report(c.at(&p.JWKSURI, client.Pos), "jwks and jwks_uri exclude each other")
		}
	}
	if !c.written(&p.JWKS) {
		return
	}
	pos := c.at(&p.JWKS, client.Pos)
	keys, ok := p.JWKS["keys"].([]any)
	if !ok || len(keys) == 0 {
		c.report(pos, "jwks: write a JWK set: {keys: [{kty: …}]}")
		return
	}
	for i, k := range keys {
		key, ok := k.(map[string]any)
		if !ok || key["kty"] == nil {
			c.report(pos, "jwks: keys[%d] is not a key: kty is missing", i)
			continue
		}
		if key["d"] != nil || key["k"] != nil {
			c.report(pos, "jwks: keys[%d] has a private part; only the client may have that: make a new key", i)
		}
	}
}

// knownResources reports audiences that no token is for.
func (c *checker) knownResources(key string, resources []string, owner Pos, a *AuthServer) {
	known := []string{a.Audience}
	for _, r := range c.file.Routes {
		if r.Auth != nil && r.Auth.Audience != "" {
			known = append(known, r.Auth.Audience)
		}
	}
	for i := range resources {
		if s := &resources[i]; !slices.Contains(known, *s) && !c.broken(s) {
			c.suggest(c.at(s, owner), nearest(*s, known), "%sno route has the audience %q", key, *s)
		}
	}
}

func (c *checker) demandDefaults(d *Demands) {
	for _, l := range []struct {
		limit         *TokenLimit
		usual, atOnce int
	}{{&d.TokenLimits.Address, 200, 1000}, {&d.TokenLimits.Client, 200, 1000}, {&d.TokenLimits.User, 20, 200}} {
		if !c.written(l.limit) {
			*l.limit = TokenLimit{Limit: l.usual, Per: time.Second, Burst: l.atOnce}
			continue
		}
		orDefault(c, &l.limit.Burst, l.limit.Limit)
	}
}

func (c *checker) demands(d *Demands) {
	for name, l := range map[string]*TokenLimit{
		"address": &d.TokenLimits.Address, "client": &d.TokenLimits.Client, "user": &d.TokenLimits.User,
	} {
		if !c.written(l) || c.broken(l) {
			continue
		}
		key := fmt.Sprintf("token_limits: %s: ", name)
		atLeast(c, &l.Limit, key+"limit", 0)
		if l.Limit > 0 && l.Per < time.Millisecond && !c.broken(&l.Per) {
			c.report(c.at(&l.Per, c.at(l, Pos{})), "%sper is missing or shorter than 1ms", key)
		}
		if l.Limit > 0 {
			atLeast(c, &l.Burst, key+"burst", 1)
		}
	}
}
