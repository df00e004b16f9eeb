package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/auth"
	"github.com/gatehouse/gatehouse/plugins/condition"
	"github.com/gatehouse/gatehouse/routes"
)

// allow is what a test expects of a request that reaches its service.
const allow = "allow"

// runTests decides each of the file's tests as the gateway would, offline.
// The error is Problems: one for each expectation that does not hold.
func runTests(file *routes.File) error {
	if len(file.Tests) == 0 {
		return nil
	}
	verifier, err := offlineVerifier(file)
	if err != nil {
		return err
	}
	table, err := routes.NewTable(file.Routes)
	if err != nil {
		return err
	}
	judge := auth.New(auth.Config{Verifier: verifier})
	var found routes.Problems
	for _, t := range file.Tests {
		got, err := decideTest(file, t, table, verifier, judge)
		if err != nil {
			found = append(found, routes.Problem{Pos: t.Pos, Message: "test: " + err.Error()})
		} else if got != t.Expect {
			found = append(found, routes.Problem{Pos: t.Pos, Message: fmt.Sprintf("test: %s is decided %s, expected %s", t.Request, got, t.Expect)})
		}
	}
	if len(found) > 0 {
		return found
	}
	return nil
}

func offlineVerifier(file *routes.File) (*auth.Verifier, error) {
	config := auth.VerifierConfig{}
	if a := file.AuthServer; a != nil {
		config.Issuer, config.Audience, config.Keys = a.Issuer, audience(a), noKeys{}
	}
	v := auth.NewVerifier(config)
	if err := v.SetIssuers(file.Issuers); err != nil {
		return nil, err
	}
	v.WantClaims(append(auth.ClaimsWanted(file.Routes), plugins.ClaimsRead([]plugins.Plugin{condition.New()}, file.Routes)...))
	return v, nil
}

func audience(a *routes.AuthServer) string {
	if a.Audience != "" {
		return a.Audience
	}
	return a.Issuer
}

// decideTest returns allow or the reason code of the refusal.
func decideTest(file *routes.File, t routes.Test, table *routes.Table, verifier *auth.Verifier, judge *auth.Plugin) (string, error) {
	method, target, _ := strings.Cut(t.Request, " ")
	u, err := url.Parse(target)
	if err != nil {
		return "", err
	}
	host, _, ok := routes.CanonicalHost(nil, []byte(u.Host))
	if !ok {
		return plugins.BadRequest, nil
	}
	raw := u.EscapedPath()
	if raw == "" {
		raw = "/"
	}
	path, ok := routes.CanonicalPath(make([]byte, 0, len(raw)), []byte(raw), true)
	if !ok {
		return plugins.BadRequest, nil
	}
	m := table.Match(host, []byte(method), path)
	switch {
	case m.Route == nil && m.Allow != "":
		return plugins.MethodNotAllowed, nil
	case m.Route == nil:
		return plugins.NoRoute, nil
	}
	if !m.Route.AllowEncodedSlash && routes.EncodedSlash(path) || table.Shadowed(m.Route, host, []byte(method), path) {
		return plugins.BadRequest, nil
	}
	if a := m.Route.Auth; a != nil && a.MTLS != "" && !t.As.ClientCert {
		return plugins.CertificateMissing, nil
	}
	if m.Route.APIKey != nil {
		// Nobody whom a test can name has a key.
		return plugins.APIKeyMissing, nil
	}
	token, err := caller(file, t.As, verifier)
	if err == nil {
		err = judge.Judge(m.Route, token, time.Now())
	}
	if err == nil && token != nil {
		err = conditionHolds(m.Route, &plugins.Exchange{
			Method: []byte(method), Host: host, Path: path, Query: []byte(u.RawQuery), HasQuery: u.RawQuery != "",
			Route: m.Route, Principal: token.Principal, Time: time.Now(), ClientIP: netip.IPv6Loopback(),
		})
	}
	var refusal *plugins.Error
	switch {
	case errors.As(err, &refusal):
		return refusal.Code, nil
	case err != nil:
		return "", err
	}
	return allow, nil
}

// conditionHolds decides about auth.condition.
func conditionHolds(r *routes.Route, x *plugins.Exchange) error {
	step, err := condition.New().Build(r)
	if err != nil || step == nil {
		return err
	}
	return step(func(*plugins.Exchange) error { return nil })(x)
}

// caller makes the token that a test's request carries; nil for nobody.
func caller(file *routes.File, as routes.TestAs, verifier *auth.Verifier) (*auth.Token, error) {
	set := as.Claims
	if as.Client != "" {
		for _, c := range file.AuthServer.Clients {
			if c.ID == as.Client {
				set = map[string]any{"sub": "client:" + c.ID, "client_id": c.ID, "scope": strings.Join(c.Scopes, " ")}
				if c.DPoPBound { // some key; that the client holds it is assumed
					set["cnf"] = map[string]string{"jkt": strings.Repeat("A", 43)}
				}
			}
		}
	}
	if set == nil {
		return nil, nil
	}
	text, err := json.Marshal(set)
	if err != nil {
		return nil, err
	}
	return verifier.Assume(text)
}
