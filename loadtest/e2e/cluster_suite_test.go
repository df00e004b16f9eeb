package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestTwoGateways runs the promises of a whole installation one after another
// over one cluster, those that take a server away last.
func TestTwoGateways(t *testing.T) {
	c := startCluster(t)
	for _, promise := range []struct {
		name string
		test func(*testing.T, *cluster)
	}{
		{"a registered backend is called with the caller's identity", registeredBackendIsCalled},
		{"no spelling of an identity header passes", identityCannotBeSpelled},
		{"forged tokens are refused", forgedTokensAreRefused},
		{"openid-client works unmodified", openidClientWorks},
		{"go-oidc and x/oauth2 work unmodified", goClientsWork},
		{"oidc-provider as an issuer rotates its keys without an outage", foreignIssuerRotatesItsKeys},
		{"a leased limit holds over both gateways", leasedLimitIsShared},
		{"an exact limit is exact over both gateways", exactLimitIsExact},
		{"a revoked token ends at the other gateway within a second", revokedTokensEndEverywhere},
		{"the reuse of a refresh token kills its family", reuseKillsTheFamily},
		{"every level of revocation reaches the other gateway", everyLevelReachesTheOther},
		{"signing out and a new password end tokens at the other gateway", signingOutReachesTheOther},
		{"an instance that comes or goes shows within a second", registrationShowsInASecond},
		{"a backend that drains loses no request", drainingLosesNothing},
		{"a killed backend loses no read and repeats no write", killedBackendIsNotSeen},
		{"an edit goes live without a failed request", editsGoLiveUnderLoad},
		{"a broken edit changes nothing and is reported", brokenEditsChangeNothing},
		{"SIGHUP reloads", hangupReloads},
		{"losing Redis costs no error and no wait", redisOutagesCostNothing},
		{"a Redis that forgets costs one more burst", losingRedisCostsOneBurst},
		{"traffic goes on without Consul", trafficGoesOnWithoutConsul},
		{"validation goes on without the database", validationGoesOnWithoutTheDatabase},
		{"a gateway that is asked to end finishes what it began", endingFinishesWhatBegan},
	} {
		if !t.Run(promise.name, func(t *testing.T) { promise.test(t, c) }) && (c.a.ended() || c.b.ended()) {
			t.Fatal("a gateway has ended")
		}
	}
}

func registeredBackendIsCalled(t *testing.T, c *cluster) {
	token := c.a.token(t, "reader")
	for _, g := range []*gateway{c.a, c.b} {
		var seen struct{ Identity map[string]string }
		body := g.call("GET", "/orders/1", token).want(t, 200, "").body
		if err := json.Unmarshal([]byte(body), &seen); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			"X-Auth-Subject": "client:reader", "X-Auth-Client": "reader", "X-Auth-Scope": "read:orders", "X-Auth-Issuer": c.issuer,
		} {
			if seen.Identity[name] != want {
				t.Errorf("the backend saw %s: %q, want %q", name, seen.Identity[name], want)
			}
		}
		g.call("GET", "/orders/1", "").want(t, 401, "token_missing")
		g.call("POST", "/orders/1", token).want(t, 403, "scope_missing")
		g.call("GET", "/status", "").want(t, 200, "")
	}
}

// identityCannotBeSpelled sends what backends or the frameworks under them may
// read as an identity header.
func identityCannotBeSpelled(t *testing.T, c *cluster) {
	token := c.a.token(t, "reader")
	var fields []string
	for _, name := range []string{
		"X-Auth-Subject", "x-auth-subject", "X-AUTH-SCOPE", "X_Auth_Subject", "X-Auth_Subject", "x_auth_client", "X-Auth-Issuer",
		"X-Auth-Session", "X-Auth-Identity", "X_AUTH_IDENTITY", "X-Auth-Anything",
	} {
		fields = append(fields, name+": mallory")
	}
	for _, path := range []string{"/status", "/orders/1"} {
		for _, more := range [][]string{fields, append([]string{"Connection: X-Auth-Subject, X-Auth-Client"}, fields...)} {
			l := line{addr: c.a.addr}
			a := l.call(request{"GET", path, token}, more...)
			l.close()
			a.want(t, 200, "")
			if strings.Contains(a.body, "mallory") {
				t.Errorf("%s: a client's identity reached the backend: %s", path, a.body)
			}
			var seen struct {
				Identity map[string]string
				Headers  []string
			}
			if err := json.Unmarshal([]byte(a.body), &seen); err != nil {
				t.Fatal(err)
			}
			for _, name := range seen.Headers {
				if known := seen.Identity[name] != ""; strings.HasPrefix(strings.ReplaceAll(strings.ToLower(name), "_", "-"), "x-auth-") && !known {
					t.Errorf("%s: the backend saw a header %s", path, name)
				}
			}
			if want := map[string]string{"/status": "", "/orders/1": "client:reader"}[path]; seen.Identity["X-Auth-Subject"] != want {
				t.Errorf("%s: the backend saw the subject %q, want %q", path, seen.Identity["X-Auth-Subject"], want)
			}
		}
	}
}
