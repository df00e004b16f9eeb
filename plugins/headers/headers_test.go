package headers

import (
	"errors"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
	"github.com/gatehouse/gatehouse/routes"
)

// both builds the early and the late step of a protected route with a setting.
func both(t testing.TB, setting string) plugins.Step {
	t.Helper()
	const file = `
routes:
  - {path: /orders, service: orders, auth: {}, headers: `
	const rest = `}
  - {path: /v2, service: orders-v2, public: true}
`
	p := New()
	early := plugintest.Steps(t, p.EarlyResponses(), file+setting+rest)
	late := plugintest.Steps(t, p, file+setting+rest)
	if early[1] != nil || late[1] != nil {
		t.Error("a route without headers has a step")
	}
	return func(next plugins.Handler) plugins.Handler { return plugins.Chain(next, early[0], late[0]) }
}

func exchange(header ...string) *plugins.Exchange {
	x := plugintest.New("GET", "api.example.com", "/orders", header...)
	x.Route = &routes.Route{Name: "orders"}
	x.Principal = &plugins.Principal{Subject: "alice", Claims: []plugins.Claim{
		{Name: "tenant", Values: []string{"acme"}}, {Name: "wide", Values: []string{"é"}},
	}}
	return x
}

func TestTheServiceReceivesWhatTheRulesSay(t *testing.T) {
	f := func(setting, received, want string) {
		t.Helper()
		x := exchange(strings.Split(received, "|")...)
		var got []string
		if err := both(t, setting)(func(x *plugins.Exchange) error {
			for i := range x.Fields {
				if !x.Fields[i].Drop {
					got = append(got, strings.TrimSuffix(string(x.Fields[i].Line), "\r\n"))
				}
			}
			return nil
		})(x); err != nil {
			t.Fatal(err)
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%s: got %q, want %q", setting, got, want)
		}
	}
	f(`{request: {set: {X-Tenant: "{claim.tenant}"}}}`, "A: 1|X-Tenant: evil|x-tenant: evil", "A: 1|X-Tenant: acme")
	f(`{request: {set: {X-Tenant: "{claim.tenant}"}}}`, "A: 1|X.Tenant: evil", "A: 1|X-Tenant: acme")
	f(`{request: {set: {X-Tenant: "{claim.none}"}}}`, "A: 1|X-Tenant: evil", "A: 1")
	f(`{request: {add: {X-Seen: "{client_ip}"}}}`, "X-Seen: 1", "X-Seen: 1|X-Seen: 192.0.2.1")
	f(`{request: {remove: [X-Debug, cookie]}}`, "X-Debug: 1|Cookie: a|B: 1|COOKIE: b", "B: 1")
	f(`{request: {set: {X-A: "{header.X-B}", X-B: "{header.X-A}"}}}`, "X-A: 1|X-B: 2", "X-A: 2|X-B: 1")
	f(`{request: {set: {Authorization: "Basic Z2F0ZTpob3VzZQ=="}}}`, "B: 1", "B: 1|Authorization: Basic Z2F0ZTpob3VzZQ==")
}

func TestAClaimThatIsNotVisibleASCIIRefusesTheRequest(t *testing.T) {
	err := both(t, `{request: {set: {X-A: "{claim.wide}"}}}`)(plugintest.OK)(exchange("A: 1"))
	var refusal *plugins.Error
	if !errors.As(err, &refusal) || refusal.Code != plugins.BadRequest {
		t.Errorf("error %v, want %s", err, plugins.BadRequest)
	}
}

func TestTheClientReceivesWhatTheRulesSay(t *testing.T) {
	f := func(setting, want string) {
		t.Helper()
		x := exchange("A: 1")
		if err := both(t, setting)(func(x *plugins.Exchange) error {
			return x.Client.WriteHead(plugins.ResponseHead{Status: 200, Fields: []byte("Server: origin\r\nX-A: 1\r\n")})
		})(x); err != nil {
			t.Fatal(err)
		}
		if got := strings.ReplaceAll(plugintest.Client(x).Fields, "\r\n", "|"); got != want {
			t.Errorf("%s: got %q, want %q", setting, got, want)
		}
	}
	f(`{response: {remove: [Server]}}`, "X-A: 1|")
	f(`{response: {set: {Server: gate}}}`, "X-A: 1|Server: gate|")
	f(`{response: {add: {X-A: "{request_id}"}}}`, "Server: origin|X-A: 1|X-A: test-request|")
	f(`{response: {set: {X-Tenant: "{claim.tenant}"}}}`, "Server: origin|X-A: 1|X-Tenant: acme|")
	f(`{response: {set: {X-A: "{claim.wide}"}}}`, "Server: origin|")
	f(`{response: {set: {X-A: "{claim.none}"}, remove: [server]}}`, "")
}

func TestRefusalsCarryTheFieldsThatNeedNoCaller(t *testing.T) {
	steps := plugintest.Steps(t, New().EarlyResponses(), `
routes:
  - {path: /orders, service: orders, auth: {}, headers: {response: {set: {Strict-Transport-Security: max-age=63072000, X-Tenant: "{claim.tenant}"}}}}
  - {path: /v2, service: orders-v2, public: true}
`)
	x := exchange("A: 1")
	refusal := &plugins.Error{Status: 401, Code: plugins.TokenMissing}
	if err := steps[0](func(*plugins.Exchange) error { return refusal })(x); err != refusal {
		t.Fatal(err)
	}
	if got := string(x.ResponseFields()); got != "Strict-Transport-Security: max-age=63072000\r\n" {
		t.Errorf("fields %q", got)
	}
}

func TestClaimsOfTextsAreAskedFor(t *testing.T) {
	p := &asked{Plugin: New()}
	plugintest.Steps(t, p, `
routes:
  - {path: /a, service: orders, auth: {}, headers: {request: {set: {X-A: "{claim.tenant}"}}, response: {add: {X-B: "{claim.plan} {subject}"}}}}
  - {path: /v2, service: orders-v2, public: true}
`)
	if got := strings.Join(p.claims, " "); got != "tenant plan" {
		t.Errorf("claims %q", got)
	}
}

type asked struct {
	*Plugin
	claims []string
}

func (a *asked) Build(r *routes.Route) (plugins.Step, error) {
	a.claims = append(a.claims, a.ClaimsRead(r)...)
	return a.Plugin.Build(r)
}
