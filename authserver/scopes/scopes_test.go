package scopes

import (
	"errors"
	"slices"
	"testing"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

func TestGrant(t *testing.T) {
	c := New("https://api.example.com")
	p, err := Prepare(map[string]string{"read": "Read", "write": "Write"}, []string{"https://r.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	c.Declare(p)
	f := func(asked string, allowed, want []string) {
		t.Helper()
		got, err := c.Grant(asked, allowed)
		var e *oauth.Error
		if want == nil {
			if !errors.As(err, &e) || e.Code != oauth.InvalidScope {
				t.Errorf("%q: %v %v", asked, got, err)
			}
			return
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v %v, want %v", asked, got, err, want)
		}
	}
	all := []string{OpenID, OfflineAccess, Read, "read", "write", "gone"}
	f("gatehouse:read read", all, []string{Read, "read"})
	f("gatehouse:read", Personal(all), nil)
	f("", all, []string{OpenID, "read", "write"})
	f("read", all, []string{"read"})
	f(" read  write read ", all, []string{"read", "write"})
	f("offline_access read", all, []string{OfflineAccess, "read"})
	f("write", []string{"read"}, nil)
	f("gone", all, nil) // allowed, but declared no more
	f("READ", all, nil)
	f(Admin, all, nil)
	if got := c.Still([]string{"read", "gone", "write"}, []string{"read", "gone"}); !slices.Equal(got, []string{"read"}) {
		t.Errorf("still %v", got)
	}
}

func TestAudience(t *testing.T) {
	c := New("https://api.example.com")
	c.Declare(&Prepared{resources: []string{"https://r.example.com"}})
	if got, err := c.Audience(nil, nil); err != nil || !slices.Equal(got, []string{"https://api.example.com"}) {
		t.Errorf("%v %v", got, err)
	}
	if _, err := c.Audience([]string{"https://r.example.com", "https://x"}, nil); err == nil {
		t.Error("an unknown resource is accepted")
	}
	if _, err := c.Narrow([]string{"https://r.example.com"}, []string{"https://api.example.com"}, nil); err == nil {
		t.Error("narrowing widened")
	}
}

func TestPrepareRefusesWhatCannotBeAScope(t *testing.T) {
	for _, bad := range []string{"", "a b", `a"b`, `a\b`, "é", "openid", "gatehouse:admin"} {
		if _, err := Prepare(map[string]string{bad: "x"}, nil); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
