package account

import (
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/web"
)

// view is what the overview shows.
type view struct {
	User, Email        string
	Verified, Declared bool
	CSRF, Done         string
	Sessions           []sessionView
	Apps               []appView
	App                bool
	Recovery           int
	CanPasskey         bool
	Passkeys           []passkeyView
}

type sessionView struct {
	ID, Agent string
	Since     when
	Current   bool
}

type appView struct {
	ID, Name string
	Scopes   []scopeView
	Since    when
}

type scopeView struct{ Name, Description string }

type passkeyView struct {
	ID, Name    string
	Since, Used when
}

// when is a moment for programs and for people.
type when struct{ Exact, Text string }

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
	CSRF, User, Problem string
	Wait                int
}

// passwordProblems are what can be wrong with its form.
var passwordProblems = [...]string{"current", "length", "repeat"}

// appForm is what the page app shows.
type appForm struct {
	CSRF, Enrolment, Secret string
	Failed                  bool
}

// recoveryView is what the page recovery shows, once.
type recoveryView struct{ Codes []string }

// passkeyForm is what the page addpasskey shows.
type passkeyForm struct {
	CSRF, Options, State string
	Failed               bool
}

// Samples are the pages in all their states.
func Samples() []web.Page {
	at := when{"2026-01-02T03:04:05Z", "2026-01-02 03:04 UTC"}
	pages := []web.Page{
		{Name: "account", Data: view{User: "alice"}},
		{Name: "account", Data: view{
			User: "alice", Email: "a@example.com", Verified: true, CSRF: "c", App: true, Recovery: 9, CanPasskey: true,
			Sessions: []sessionView{{"s", "Firefox", at, true}, {"t", "", at, false}},
			Apps:     []appView{{"app", "App", []scopeView{{"openid", ""}, {"read:orders", "Read"}}, at}},
			Passkeys: []passkeyView{{"k", "Key", at, at}, {"l", "Key", at, when{}}},
		}},
		{Name: "account", Data: view{User: "alice", Declared: true, Email: "a@example.com"}},
		{Name: "password", Data: passwordView{Wait: 3}},
		{Name: "app", Data: appForm{"c", "e", "SECRET", true}},
		{Name: "recovery", Data: recoveryView{[]string{"abcd-efgh"}}},
		{Name: "addpasskey", Script: true, Data: passkeyForm{"c", "{}", "s", true}},
	}
	for _, what := range results {
		pages = append(pages, web.Page{Name: "account", Data: view{Done: what}})
	}
	for _, what := range passwordProblems {
		pages = append(pages, web.Page{Name: "password", Data: passwordView{Problem: what}})
	}
	return pages
}
