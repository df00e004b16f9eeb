package condition

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

func TestMistakesAreNamedWithTheirPlace(t *testing.T) {
	plugintest.Bad(t, "testdata/bad/*.yaml", func(path string) error {
		_, err := plugintest.Load(path, New())
		return err
	})
}

func sections(condition, rest string) string {
	return fmt.Sprintf(`
routes:
  - {path: /orders/**, service: orders, auth: {condition: %q}%s}
  - {path: /v2, service: orders-v2, auth: {}}
`, condition, rest)
}

func step(t testing.TB, condition, rest string) plugins.Step {
	t.Helper()
	steps := plugintest.Steps(t, New(), sections(condition, rest))
	if steps[1] != nil {
		t.Error("a route without a condition has a step")
	}
	return steps[0]
}

func exchange() *plugins.Exchange {
	x := plugintest.New("GET", "api.example.com", "/orders/acme/1?page=2&q=a%20b", "X-Env: test", "x-env: more", "Authorization: Bearer x")
	x.Fields[2].Drop = true
	x.Principal = &plugins.Principal{
		Subject: "alice", ClientID: "web", Scopes: []string{"read:orders", "write:orders"},
		Claims: []plugins.Claim{
			{Name: "tenant", Value: "acme"}, {Name: "level", Value: float64(3)}, {Name: "groups", Value: []any{"a", "b"}},
			{Name: "org", Value: map[string]any{"id": "o1", "tags": []any{"x"}}}, {Name: "staff", Value: true},
		},
	}
	return x
}

func TestConditionsDecide(t *testing.T) {
	f := func(condition string, want bool) {
		t.Helper()
		err := step(t, condition, "")(plugintest.OK)(exchange())
		var e *plugins.Error
		if errors.As(err, &e); (err == nil) != want || err != nil && (e.Status != 403 || e.Code != plugins.ConditionDenied) {
			t.Errorf("%s: %v, want %v", condition, err, want)
		}
	}
	f(`claims.tenant == 'acme'`, true)
	f(`claims["tenant"] == 'other'`, false)
	f(`claims.level >= 3 && claims.level < 4.5`, true)
	f(`claims.level == 2`, false)
	f(`'b' in claims.groups`, true)
	f(`claims.groups.exists(g, g == 'c')`, false)
	f(`claims.org.id == 'o1' && 'x' in claims.org.tags`, true)
	f(`claims.staff`, true)
	f(`has(claims.none)`, false)
	f(`!has(claims.none) && 'tenant' in claims`, true)
	f(`'write:orders' in scopes && size(scopes) == 2`, true)
	f(`subject == 'alice' && client == 'web'`, true)
	f(`request.path.startsWith('/orders/' + claims.tenant + '/')`, true)
	f(`request.method == 'POST' || request.host == 'api.example.com'`, true)
	f(`request.query.page == '2' && request.query['q'] == 'a b'`, true)
	f(`request.headers['x-env'] == 'test, more' && !('authorization' in request.headers)`, true)
	f(`request.ip == '192.0.2.1'`, true)
	f(`request.time < timestamp('2026-01-02T03:04:06Z') && request.time.getHours() == 3`, true)
	f(`request.path.matches('^/orders/[a-z]+/[0-9]+$')`, true)
	// What has no answer is refused.
	f(`claims.none == 'a'`, false)
	f(`claims.none != 'a'`, false)
	f(`claims.tenant > 3`, false)
	f(`request.query.none == ''`, false)
	f(`claims.tenant`, false)
}

func TestAParameterThatIsThereTwiceIsRefused(t *testing.T) {
	for _, query := range []string{"admin=0&admin=1", "a;b=1", "a=%zz"} {
		x := exchange()
		x.Query = []byte(query)
		if err := step(t, `!has(request.query.admin)`, "")(plugintest.OK)(x); err == nil {
			t.Errorf("%s passed", query)
		}
	}
}

func TestTheCostIsBoundedWhileARequestIsServed(t *testing.T) {
	x := exchange()
	var groups []any
	for i := range 100_000 {
		groups = append(groups, fmt.Sprint("group-", i))
	}
	x.Principal.Claims[2].Value = groups
	began := time.Now()
	err := step(t, `claims.groups.exists(g, g == 'none')`, "")(plugintest.OK)(x)
	if err == nil || !strings.Contains(err.Error(), "cost") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestShadowRoutesCountWhatTheyWouldRefuse(t *testing.T) {
	handler := step(t, `client == 'other'`, ", mode: shadow")(plugintest.OK)
	x := exchange()
	if err := handler(x); err != nil || x.Record.ShadowReason != plugins.ConditionDenied {
		t.Errorf("%v, %q", err, x.Record.ShadowReason)
	}
	x = exchange()
	x.Principal, x.Record.ShadowReason = nil, plugins.TokenMissing
	if err := handler(x); err != nil || x.Record.ShadowReason != plugins.TokenMissing {
		t.Errorf("%v, %q", err, x.Record.ShadowReason)
	}
}

func TestClaimsOfConditionsAreAskedFor(t *testing.T) {
	p := New()
	routes := plugintest.Routes(t, p, sections(`claims.a == 1 && has(claims.b) && claims['c'] == 2 && 'd' in claims && claims.e.f == 3`, ""))
	got := p.ClaimsRead(routes[0])
	slices.Sort(got)
	if strings.Join(slices.Compact(got), " ") != "a b c d e" {
		t.Errorf("claims %v", got)
	}
	if got := p.ClaimsRead(routes[1]); len(got) > 0 {
		t.Errorf("claims %v", got)
	}
}

func TestConditionsStayWithinTheirBudget(t *testing.T) {
	handler := step(t, `client == 'web' && 'read:orders' in scopes`, "")(func(*plugins.Exchange) error { return nil })
	x := exchange()
	if n := testing.AllocsPerRun(200, func() { handler(x) }); n > 40 {
		t.Errorf("%v allocations, want at most 40", n)
	}
}
