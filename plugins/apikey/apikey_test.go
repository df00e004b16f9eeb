package apikey

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

func hash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// step builds the step of a route with a setting. Two keys of acme are good,
// one is over; other has no scope.
func step(t testing.TB, setting string) plugins.Step {
	t.Helper()
	steps := plugintest.Steps(t, New(), fmt.Sprintf(`
api_keys:
  partners:
    - {owner: acme, sha256: %s, scopes: [read:orders, write:orders], client_id: acme-batch}
    - {owner: acme, sha256: %s, scopes: [read:orders], expires: 2026-01-02T03:04:06Z}
    - {owner: acme, sha256: %s, scopes: [read:orders], expires: 2026-01-02T03:04:05Z}
  others:
    - {owner: other, sha256: %s}
routes:
  - {path: /orders, service: orders, %s}
  - {path: /v2, service: orders-v2, public: true}
`, hash("first"), hash("second"), hash("over"), hash("other"), setting))
	if steps[1] != nil {
		t.Error("a route without api_key has a step")
	}
	return steps[0]
}

func code(err error) string {
	var e *plugins.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestKeysDecideWhoCalls(t *testing.T) {
	f := func(setting, target, header, want string) {
		t.Helper()
		var fields []string
		if header != "" {
			fields = strings.Split(header, "|")
		}
		x := plugintest.New("GET", "api.example.com", target, fields...)
		subject := ""
		err := step(t, setting)(func(x *plugins.Exchange) error {
			subject = x.Principal.Subject + " " + x.Principal.ClientID
			for i := range x.Fields {
				if strings.EqualFold(string(x.Fields[i].Name), "x-api-key") && !x.Fields[i].Drop {
					t.Errorf("the key reaches the service")
				}
			}
			return nil
		})(x)
		if got := code(err) + subject; got != want {
			t.Errorf("%s %s %q: got %q, want %q", setting, target, header, got, want)
		}
	}
	const reads = "api_key: {keys: [partners, others], scopes: [read:orders]}"
	f(reads, "/orders", "", plugins.APIKeyMissing)
	f(reads, "/orders", "X-API-Key: ", plugins.APIKeyMissing)
	f(reads, "/orders", "X-API-Key: wrong", plugins.APIKeyInvalid)
	f(reads, "/orders", "X-API-Key: "+hash("first"), plugins.APIKeyInvalid)
	f(reads, "/orders", "x-api-key: first", "key:acme acme-batch")
	f(reads, "/orders", "X-API-Key: second", "key:acme acme")
	f(reads, "/orders", "X-API-Key: over", plugins.APIKeyExpired)
	f(reads, "/orders", "X-API-Key: other", plugins.ScopeMissing)
	f(reads, "/orders", "X-API-Key: first|X-API-Key: first", plugins.BadRequest)
	f(reads, "/orders?X-API-Key=first", "", plugins.APIKeyMissing)
	f(reads, "/orders", "Authorization: Bearer first", plugins.APIKeyMissing)
	f("api_key: {keys: [partners], scopes: [read:orders, write:orders]}", "/orders", "X-API-Key: second", plugins.ScopeMissing)
	f("api_key: {keys: [others]}", "/orders", "X-API-Key: other", "key:other other")
	f("api_key: {keys: [others]}", "/orders", "X-API-Key: first", plugins.APIKeyInvalid)
	f("api_key: {keys: [partners], header: X-Token}", "/orders", "X-Token: first", "key:acme acme-batch")
	f("api_key: {keys: [partners], header: X-Token}", "/orders", "X-API-Key: first", plugins.APIKeyMissing)
}

func TestKeysInQueriesAreTakenOut(t *testing.T) {
	f := func(query, want, rest string) {
		t.Helper()
		x := plugintest.New("GET", "api.example.com", "/orders"+query)
		err := step(t, "api_key: {keys: [partners], query: key}")(func(*plugins.Exchange) error { return nil })(x)
		if code(err) != want || err == nil && string(x.Query) != rest {
			t.Errorf("%s: %v, query %q; want %q, %q", query, err, x.Query, want, rest)
		}
		if err == nil && x.HasQuery != (rest != "") {
			t.Errorf("%s: has query %v", query, x.HasQuery)
		}
	}
	f("", plugins.APIKeyMissing, "")
	f("?key=first", "", "")
	f("?a=1&key=first&b;c=%20", "", "a=1&b;c=%20")
	f("?key=first&key=first", plugins.BadRequest, "")
	f("?k%65y=first", plugins.APIKeyMissing, "")
	f("?key=wrong", plugins.APIKeyInvalid, "")
}

func TestServicesLearnWhoCalls(t *testing.T) {
	x := plugintest.New("GET", "api.example.com", "/orders", "X-API-Key: first")
	if err := step(t, "api_key: {keys: [partners]}")(func(*plugins.Exchange) error { return nil })(x); err != nil {
		t.Fatal(err)
	}
	const want = "X-Auth-Subject: key:acme\r\nX-Auth-Client: acme-batch\r\nX-Auth-Scope: read:orders write:orders\r\n"
	if got := string(x.Principal.Identity); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestShadowRoutesCountWhatTheyWouldRefuse(t *testing.T) {
	x := plugintest.New("GET", "api.example.com", "/orders")
	err := step(t, "mode: shadow, api_key: {keys: [partners]}")(plugintest.OK)(x)
	if err != nil || x.Record.ShadowReason != plugins.APIKeyMissing || x.Principal != nil {
		t.Errorf("%v, %q", err, x.Record.ShadowReason)
	}
}

func TestRefusalsHoldNoKey(t *testing.T) {
	x := plugintest.New("GET", "api.example.com", "/orders", "X-API-Key: secret-of-somebody")
	err := step(t, "api_key: {keys: [partners]}")(plugintest.OK)(x)
	if err == nil || strings.Contains(fmt.Sprintf("%v %+v", err, err), "secret-of-somebody") {
		t.Errorf("error %+v", err)
	}
}

func TestKeysAllocateNothing(t *testing.T) {
	handler := step(t, "api_key: {keys: [partners], scopes: [read:orders]}")(func(*plugins.Exchange) error { return nil })
	x := plugintest.New("GET", "api.example.com", "/orders", "X-API-Key: first")
	if n := testing.AllocsPerRun(1000, func() { handler(x) }); n > 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
