package account

import (
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// view is what the overview shows.
type view struct {
	User       string        `json:"user"`
	Email      string        `json:"email,omitempty"`
	Verified   bool          `json:"email_verified"`
	Declared   bool          `json:"declared"` // the password is the configuration's
	CanEmail   bool          `json:"email_changeable"`
	CSRF       string        `json:"-"`
	Done       string        `json:"done,omitempty"`
	Sessions   []sessionView `json:"sessions"`
	Apps       []appView     `json:"apps"`
	App        bool          `json:"authenticator_app"`
	Recovery   int           `json:"recovery_codes"`
	CanPasskey bool          `json:"passkeys_possible"`
	Passkeys   []passkeyView `json:"passkeys"`
}

type sessionView struct {
	ID      string `json:"id"`
	Agent   string `json:"agent"`
	Since   when   `json:"since"`
	Current bool   `json:"current"`
}

type appView struct {
	ID     string             `json:"client"`
	Name   string             `json:"name"`
	Scopes []scopes.Described `json:"scopes"`
	Since  when               `json:"since"`
}

type passkeyView struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Since when   `json:"since"`
	Used  when   `json:"used,omitzero"`
}

// when is a moment for programs and for people.
type when struct{ Exact, Text string }

// MarshalText implements encoding.TextMarshaler: for programs.
func (w when) MarshalText() ([]byte, error) { return []byte(w.Exact), nil }

func stamp(t time.Time) when {
	if t.IsZero() {
		return when{}
	}
	return when{t.UTC().Format(time.RFC3339), t.UTC().Format("2006-01-02 15:04 UTC")}
}

// agent names the browser and the system of a user agent, as far as it says.
func agent(full string) string {
	find := func(names ...string) string {
		for i := 0; i < len(names); i += 2 {
			if strings.Contains(full, names[i]) {
				return names[i+1]
			}
		}
		return ""
	}
	browser := find("Edg/", "Edge", "OPR/", "Opera", "Firefox/", "Firefox", "Chrome/", "Chrome", "Safari/", "Safari")
	system := find("Android", "Android", "iPhone", "iPhone", "iPad", "iPad", "Windows", "Windows", "Mac OS X", "macOS", "Linux", "Linux")
	switch {
	case browser != "" && system != "":
		return browser + ", " + system
	case browser+system != "":
		return browser + system
	}
	first, _, _ := strings.Cut(full, " ")
	return first
}

// passwordView is what the page password shows.
type passwordView struct {
	CSRF    string `json:"-"`
	User    string `json:"user"`
	Problem string `json:"-"`
	Wait    int    `json:"retry_after,omitempty"`
}

// passwordProblems are what can be wrong with its form, and the words of web.
var passwordProblems = map[string]string{
	"current": web.ProblemPassword, "length": web.ProblemPasswordLength, "repeat": web.ProblemPasswordRepeat,
}

// addressView is what the page address shows.
type addressView struct {
	CSRF    string `json:"-"`
	Address string `json:"address,omitempty"`
	Failed  bool   `json:"-"`
	Wait    int    `json:"retry_after,omitempty"`
}

// appForm is what the page app shows.
type appForm struct {
	CSRF      string `json:"-"`
	Enrolment string `json:"enrolment"`
	Secret    string `json:"secret"`
	Failed    bool   `json:"-"`
}

// recoveryView is what the page recovery shows, once.
type recoveryView struct {
	Codes []string `json:"recovery_codes"`
}

// passkeyForm is what the page addpasskey shows.
type passkeyForm struct {
	CSRF    string   `json:"-"`
	Options web.JSON `json:"options"`
	State   string   `json:"state"`
	Failed  bool     `json:"-"`
}

// Samples are the pages in all their states.
func Samples() []web.Page {
	at := when{"2026-01-02T03:04:05Z", "2026-01-02 03:04 UTC"}
	pages := []web.Page{
		{Name: "account", Data: view{User: "alice"}},
		{Name: "account", Data: view{
			User: "alice", Email: "a@example.com", Verified: true, CanEmail: true, CSRF: "c", App: true, Recovery: 9, CanPasskey: true,
			Sessions: []sessionView{{"s", "Firefox", at, true}, {"t", "", at, false}},
			Apps:     []appView{{"app", "App", []scopes.Described{{Name: "openid"}, {Name: "read:orders", Description: "Read"}}, at}},
			Passkeys: []passkeyView{{"k", "Key", at, at}, {"l", "Key", at, when{}}},
		}},
		{Name: "account", Data: view{User: "alice", Declared: true, Email: "a@example.com"}},
		{Name: "password", Data: passwordView{Wait: 3}},
		{Name: "address", Data: addressView{CSRF: "c", Address: "a@example.com"}},
		{Name: "address", Data: addressView{Failed: true}},
		{Name: "address", Data: addressView{Wait: 3}},
		{Name: "app", Data: appForm{"c", "e", "SECRET", true}},
		{Name: "recovery", Data: recoveryView{[]string{"abcd-efgh-ijkl-2345", "mnop-qrst-uvwx-6723", "yzab-cdef-ghij-4567", "klmn-opqr-stuv-2367"}}},
		{Name: "addpasskey", Script: true, Data: passkeyForm{"c", "{}", "s", true}},
	}
	for _, what := range results {
		pages = append(pages, web.Page{Name: "account", Data: view{Done: what}})
	}
	for what := range passwordProblems {
		pages = append(pages, web.Page{Name: "password", Data: passwordView{Problem: what}})
	}
	return pages
}
