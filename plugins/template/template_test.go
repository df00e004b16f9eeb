package template

import (
	"errors"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
	"github.com/gatehouse/gatehouse/routes"
)

func exchange() *plugins.Exchange {
	x := plugintest.New("GET", "api.example.com", "/a?b=c", "X-Trace: 1", "x-trace: 2", "X-Bad: caf\xe9", "X-Gone: 1")
	x.Fields[3].Drop = true
	x.Route = &routes.Route{Name: "orders"}
	x.Principal = &plugins.Principal{Subject: "alice", ClientID: "web", Claims: []plugins.Claim{
		{Name: "tenant", Values: []string{"acme"}}, {Name: "groups", Values: []string{"a", "b"}},
		{Name: "odd", Values: []string{"a,b", "c"}}, {Name: "split", Values: []string{"a\r\nX-Evil: 1"}},
		{Name: "wide", Values: []string{"é"}}, {Name: "empty", Values: []string{""}},
	}}
	return x
}

func TestTextsHoldWhatTheRequestSays(t *testing.T) {
	f := func(text, want string, wantErr error) {
		t.Helper()
		parsed, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parsed.Append(nil, exchange())
		if !errors.Is(err, wantErr) || err == nil && string(got) != want {
			t.Errorf("%s: got %q, %v; want %q, %v", text, got, err, want, wantErr)
		}
	}
	f("", "", nil)
	f("plain {{text}", "plain {text}", nil)
	f("{client_ip} {request_id}", "192.0.2.1 test-request", nil)
	f("{scheme}://{host}{path}?{query}", "http://api.example.com/a?b=c", nil)
	f("{uri}", "/a?b=c", nil)
	f("{method} {route} {subject} {client_id}", "GET orders alice web", nil)
	f("{header.X-Trace}", "1, 2", nil)
	f("{claim.tenant}/{claim.groups}", "acme/a,b", nil)
	f("{claim.none}", "", ErrAbsent)
	f("{claim.empty}", "", ErrAbsent)
	f("{header.x-none}", "", ErrAbsent)
	f("{header.X-Gone}", "", ErrAbsent)
	f("{claim.odd}", "", ErrUnsafe)
	f("{claim.split}", "", ErrUnsafe)
	f("{claim.wide}", "", ErrUnsafe)
	f("{header.X-Bad}", "", ErrUnsafe)
}

func TestNobodyCallsBeforeAuthorisation(t *testing.T) {
	parsed, err := Parse("{subject}")
	if err != nil {
		t.Fatal(err)
	}
	x := exchange()
	x.Principal = nil
	if _, err := parsed.Append(nil, x); err != ErrAbsent {
		t.Errorf("error %v, want %v", err, ErrAbsent)
	}
}

func TestMistakesInTextsAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"{client_ipp}": "unknown placeholder", "{": "not closed", "{claim.}": "unknown placeholder", "a\r\nb": "visible ASCII",
		"é": "visible ASCII", "{header.Authorization}": "credential", "{header.cookie}": "credential", "{header.X_A}": "not a header field",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func FuzzTextsCannotEndALine(f *testing.F) {
	f.Add("{claim.c} {header.x-a}", "v", "w")
	f.Add("{{{uri}}", "\r\n", "é")
	f.Fuzz(func(t *testing.T, text, claim, header string) {
		parsed, err := Parse(text)
		if err != nil {
			return
		}
		x := exchange()
		x.Principal.Claims = []plugins.Claim{{Name: "c", Values: []string{claim}}}
		x.Fields = []plugins.Field{{Name: []byte("x-a"), Value: []byte(header)}}
		got, err := parsed.Append(nil, x)
		if err == nil && strings.ContainsFunc(string(got), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q gives %q", text, got)
		}
	})
}
