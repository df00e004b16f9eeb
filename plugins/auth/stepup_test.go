package auth

import (
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
	"github.com/gatehouse/gatehouse/routes"
)

// RFC 9470: a route may want a sign-in of a kind, and one that is not long ago.
func TestStepUpIsDemandedWhereTheSignInDoesNotSuffice(t *testing.T) {
	d := newDesk(t)
	f := func(a routes.Auth, m members, challenge string) {
		t.Helper()
		if m == nil {
			m = members{}
		}
		err := d.step(&routes.Route{Name: "r", Auth: &a})(plugintest.New("GET", "h", "/", d.bearer(m)))
		if challenge == "" {
			if err != nil {
				t.Errorf("%v: refused: %v", m, err)
			}
			return
		}
		if got := code(t, err); got != plugins.StepUpRequired {
			t.Fatalf("%v: got %q", m, got)
		}
		refusal := err.(*plugins.Error)
		if refusal.Status != 401 || !strings.HasPrefix(refusal.Header[0][1], `Bearer error="insufficient_user_authentication"`) || !strings.HasSuffix(refusal.Header[0][1], challenge) {
			t.Errorf("%v: %d %v", m, refusal.Status, refusal.Header)
		}
	}
	now := plugintest.Time.Unix()
	otp := routes.Auth{ACRValues: []string{"urn:gatehouse:acr:otp", "urn:gatehouse:acr:passkey"}}
	f(otp, members{"acr": "urn:gatehouse:acr:otp"}, "")
	f(otp, members{"acr": "urn:gatehouse:acr:passkey"}, "")
	const acrs = `, acr_values="urn:gatehouse:acr:otp urn:gatehouse:acr:passkey"`
	f(otp, members{"acr": "urn:gatehouse:acr:password"}, acrs)
	f(otp, nil, acrs)
	recent := routes.Auth{MaxAge: 5 * time.Minute}
	f(recent, members{"auth_time": now - 200}, "")
	f(recent, members{"auth_time": now - 400}, `, max_age="300"`)
	f(recent, nil, `, max_age="300"`)
	both := routes.Auth{ACRValues: []string{"2"}, MaxAge: time.Hour}
	f(both, members{"acr": "2", "auth_time": now - 60}, "")
	f(both, members{"acr": "2", "auth_time": now - 7200}, `, acr_values="2", max_age="3600"`)
	f(both, members{"acr": "1", "auth_time": now - 60}, `, acr_values="2", max_age="3600"`)
	f(routes.Auth{}, nil, "")
	// The scope is asked for first: signing in again would not help.
	err := d.step(&routes.Route{Name: "r", Auth: &routes.Auth{Scopes: []string{"other"}, MaxAge: time.Minute}})(plugintest.New("GET", "h", "/", d.bearer(nil)))
	if got := code(t, err); got != plugins.ScopeMissing {
		t.Errorf("without the scope: %q", got)
	}
}
