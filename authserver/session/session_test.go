package session

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func newManager(t *testing.T, now func() time.Time, plain bool) *Manager {
	t.Helper()
	m, err := New(Config{Now: now, TTL: time.Hour, Plain: plain, Key: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestInteractionIsSealedBoundAndExpires(t *testing.T) {
	now := time.Unix(1e9, 0)
	m := newManager(t, func() time.Time { return now }, false)
	f := func(i Interaction, life time.Duration) {
		t.Helper()
		i.Query = "state=the-secret-state"
		begin := now
		h, err := m.Seal("browser a", i)
		if err != nil || strings.Contains(h, "state") {
			t.Fatal(h, err)
		}
		if got, err := m.Open("browser a", h); err != nil || got.Query != i.Query {
			t.Errorf("%+v %v", got, err)
		}
		for _, wrong := range []struct{ browser, handle string }{{"browser b", h}, {"", h}, {"browser a", h[1:]}, {"browser a", h + "A"}, {"browser a", ""}} {
			if _, err := m.Open(wrong.browser, wrong.handle); !errors.Is(err, ErrInteraction) {
				t.Errorf("opened: %v", err)
			}
		}
		now = begin.Add(life)
		if _, err := m.Open("browser a", h); err != nil {
			t.Errorf("closed after %v", life)
		}
		now = now.Add(time.Second)
		if _, err := m.Open("browser a", h); !errors.Is(err, ErrInteraction) {
			t.Errorf("open after %v", life)
		}
	}
	f(Interaction{}, pageLife)
	f(Interaction{LoggedIn: "s"}, answerLife)
	f(Interaction{LoggedIn: "s", Session: "s"}, pageLife) // the consent page after a login
	f(Interaction{LoggedIn: "s", Session: "s", Consented: "s"}, answerLife)
	f(Interaction{Session: "s", Denied: true}, answerLife)
}

func TestCookiesAreBoundToTheHostUnlessPlain(t *testing.T) {
	for _, plain := range []bool{false, true} {
		m := newManager(t, time.Now, plain)
		rec := httptest.NewRecorder()
		v := m.EnsureBrowser(rec, httptest.NewRequest("GET", "/", nil))
		c := rec.Result().Cookies()[0]
		if c.Secure == plain || strings.HasPrefix(c.Name, "__Host-") == plain || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteLaxMode {
			t.Errorf("plain %v: %v", plain, c)
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.AddCookie(c)
		rec = httptest.NewRecorder()
		if m.EnsureBrowser(rec, r) != v || len(rec.Result().Cookies()) != 0 {
			t.Error("another mark for the same browser")
		}
	}
}

func TestAgentIsShortAndPrintable(t *testing.T) {
	if got := shorten("a\nb\x1b[31m" + strings.Repeat("é", 300) + strings.Repeat("x", 300)); len(got) > 128 || strings.ContainsAny(got, "\n\x1b") {
		t.Errorf("%q", got)
	}
}
