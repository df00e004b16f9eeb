package clients

import (
	"net/url"
	"testing"

	"github.com/gatehouse/gatehouse/authserver/store"
)

func FuzzRedirectNeverLeavesTheRegisteredHost(f *testing.F) {
	for _, s := range []string{"http://127.0.0.1:80/cb", "http://127.0.0.1:80@evil/cb", "http://127.0.0.1:8/cb?x", "http://[::1]:1/cb", "http://127.0.0.1:1/../cb", "https://app.example.com/cb"} {
		f.Add(s)
	}
	c := &Client{Client: store.Client{RedirectURIs: []string{"http://127.0.0.1/cb", "http://[::1]:9/cb", "https://app.example.com/cb"}}}
	f.Fuzz(func(t *testing.T, asked string) {
		uri, ok := c.Redirect(asked)
		if !ok {
			return
		}
		u, err := url.Parse(uri)
		if err != nil || uri != asked {
			t.Fatalf("%q became %q: %v", asked, uri, err)
		}
		host := u.Hostname()
		if u.Path != "/cb" || u.RawQuery != "" || u.User != nil || u.Fragment != "" ||
			host != "127.0.0.1" && host != "::1" && asked != "https://app.example.com/cb" {
			t.Fatalf("%q was accepted", asked)
		}
	})
}

func TestOriginOfRedirectURI(t *testing.T) {
	for uri, want := range map[string]string{
		"https://app.example.com/cb": "https://app.example.com", "https://app.example.com:443/cb": "https://app.example.com",
		"https://app.example.com:8443/cb": "https://app.example.com:8443", "http://127.0.0.1/cb": "http://127.0.0.1",
		"http://[::1]:3000/cb": "http://[::1]:3000", "com.example.app:/cb": "",
	} {
		if got := origin(uri); got != want {
			t.Errorf("%s: %q, want %q", uri, got, want)
		}
	}
}

func TestValidateNamesEveryProblem(t *testing.T) {
	known := func(s string) bool { return s == "read" }
	f := func(c store.Client, problems int) {
		t.Helper()
		err := Validate(c, known)
		n := 0
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			n = len(joined.Unwrap())
		}
		if n != problems {
			t.Errorf("%+v: %d problems, want %d: %v", c, n, problems, err)
		}
	}
	secret := []store.Digest{{1}}
	f(store.Client{ID: "a", Grants: []string{GrantClientCredentials}, SecretHashes: secret, Scopes: []string{"read"}}, 0)
	f(store.Client{ID: "a", Grants: []string{GrantClientCredentials}}, 1)
	f(store.Client{ID: "a", Grants: []string{GrantRefresh}}, 1)
	f(store.Client{ID: "a", Grants: []string{GrantCode}}, 1)
	f(store.Client{ID: "", Scopes: []string{"nonsense"}, Grants: []string{"password"}}, 3)
	f(store.Client{ID: "with space"}, 1)
	f(store.Client{ID: "a", SkipConsent: true}, 1)
	f(store.Client{ID: "a", RedirectURIs: []string{"x"}, PostLogoutRedirectURIs: []string{"data:x"}}, 2)
}
