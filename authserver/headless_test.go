package authserver_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// uiURL is the operator's page: on another port, so of another origin but of
// the same site.
const uiURL = "http://127.0.0.1:9/signin?theme=dark"

func headless(c *authserver.Config) { c.InteractionURL = uiURL }

// arrives fails the test unless a redirect leads to a step of the operator's
// page, and returns the query that it has there.
func (b *browser) arrives(r reply, step string) url.Values {
	b.e.t.Helper()
	u, err := url.Parse(r.header.Get("Location"))
	if err != nil || r.status != http.StatusSeeOther || u.Host != "127.0.0.1:9" || u.Path != "/signin" || u.Query().Get("theme") != "dark" || u.Query().Get("step") != step {
		b.e.t.Fatalf("not at the step %s: %d %s %s", step, r.status, r.header.Get("Location"), r.body)
	}
	return u.Query()
}

// ask gets a step from the interaction API.
func (b *browser) ask(step, interaction string) reply {
	b.e.t.Helper()
	return b.get("/oauth/interaction/" + step + "?interaction=" + interaction)
}

// tell sends members, in pairs, to the interaction API, as the operator's page
// does.
func (b *browser) tell(step string, members ...string) reply {
	b.e.t.Helper()
	return b.tellWith(step, http.Header{"Content-Type": {"application/json"}, "Origin": {"http://127.0.0.1:9"}}, members...)
}

func (b *browser) tellWith(step string, header http.Header, members ...string) reply {
	b.e.t.Helper()
	content := map[string]string{}
	for i := 0; i < len(members); i += 2 {
		content[members[i]] = members[i+1]
	}
	body, err := json.Marshal(content)
	if err != nil {
		b.e.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, b.e.url+"/oauth/interaction/"+step, strings.NewReader(string(body)))
	if err != nil {
		b.e.t.Fatal(err)
	}
	req.Header = header
	return b.e.do(b.http, req)
}

// step fails the test unless the reply is this step with this error.
func (r reply) step(t testing.TB, status int, step, problem string) reply {
	t.Helper()
	if r.status != status || r.str("step") != step || r.str("error") != problem {
		t.Fatalf("answer %d, want %d at the step %s with the error %q: %s", r.status, status, step, problem, r.body)
	}
	return r
}

// enrolHeadless adds an authenticator app through the API alone.
func (b *browser) enrolHeadless(user string) (secret string, recovery []string) {
	t := b.e.t
	t.Helper()
	b.ask("login", "").step(t, 200, "login", "")
	b.tell("login", "username", user, "password", password).step(t, 200, "account", "")
	app := b.ask("account/app", "").step(t, 200, "account/app", "")
	secret = strings.ReplaceAll(app.str("secret"), " ", "")
	b.e.secret(secret)
	b.tell("account/app", "action", "app", "enrolment", app.str("enrolment"), "code", "000000").step(t, 422, "account/app", "wrong_code")
	done := b.tell("account/app", "action", "app", "enrolment", app.str("enrolment"), "code", b.e.codeAt(secret, 0)).step(t, 200, "recovery", "")
	list, _ := done.json["recovery_codes"].([]any)
	for _, code := range list {
		recovery = append(recovery, code.(string))
		b.e.secret(code.(string))
	}
	return secret, recovery
}

func TestHeadlessFlowAsksForEverythingThatPagesDo(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, start func(...func(*authserver.Config)) *env) {
		e := start(headless)
		secret, recovery := e.browser().enrolHeadless("alice")
		if len(recovery) != 10 {
			t.Fatalf("%d recovery codes", len(recovery))
		}
		e.clock.advance(time.Minute)

		b := e.browser()
		handle := b.arrives(b.get(authorizeURL(request())), "login").Get("interaction")
		first := b.ask("login", handle).step(t, 200, "login", "")
		if first.str("client") != "Web Shop" || strings.Contains(first.body, "csrf") || first.header.Get("Cache-Control") != "no-store" {
			t.Errorf("login: %s", first.body)
		}
		half := b.tell("login", "interaction", handle, "username", "alice", "password", password).step(t, 200, "factor", "").str("interaction")
		b.ask("account", "").step(t, 200, "login", "") // the password alone is no session
		b.ask("factor", half).step(t, 200, "factor", "")
		b.tell("factor", "interaction", half, "code", "000000").step(t, 422, "factor", "wrong_code")
		done := b.tell("factor", "interaction", half, "code", e.codeAt(secret, 0)).step(t, 200, "done", "")
		if !strings.HasPrefix(done.str("redirect_to"), e.url+"/oauth/authorize?i=") {
			t.Fatalf("done: %s", done.body)
		}

		handle = b.arrives(b.get(done.str("redirect_to")), "consent").Get("interaction")
		asked := b.ask("consent", handle).step(t, 200, "consent", "")
		if asked.str("user") != "alice" || asked.str("redirect_host") != "app.example.com" ||
			!strings.Contains(asked.body, `{"description":"Read your orders","name":"read:orders"}`) {
			t.Errorf("consent: %s", asked.body)
		}
		b.arrives(b.get("/oauth/authorize?i="+handle), "consent") // going on without an answer
		b.tell("consent", "interaction", handle, "decision", "perhaps").want(t, 400, "invalid_request")
		done = b.tell("consent", "interaction", handle, "decision", "allow").step(t, 200, "done", "")
		answer := b.get(done.str("redirect_to"))
		if got := b.param(answer, "state"); got != "s-1" {
			t.Fatalf("answer to the client: %d %s", answer.status, answer.header.Get("Location"))
		}
		tokens := e.redeem(b.code(answer)).want(t, 200, "")
		if got := claims(t, tokens.str("id_token"), 1)["acr"]; got != "urn:gatehouse:acr:otp" {
			t.Errorf("acr %v", got)
		}

		// Signed in, and allowed before: straight to the client.
		if again := b.get(authorizeURL(request())); b.code(again) == "" {
			t.Errorf("the second time: %s", again.header.Get("Location"))
		}
	})
}

func TestHeadlessInteractionIsOfOneBrowserAndOneUse(t *testing.T) {
	e := start(t, headless)
	b := e.browser()
	begin := func() string {
		return b.arrives(b.get(authorizeURL(request("prompt", "login"))), "login").Get("interaction")
	}
	right := func(handle string) []string {
		return []string{"interaction", handle, "username", "alice", "password", password}
	}
	handle := begin()
	other := e.browser()
	other.ask("login", "")
	other.ask("login", handle).want(t, 400, "interaction_over")
	other.tell("login", right(handle)...).want(t, 400, "interaction_over")
	b.ask("login", handle[:len(handle)-2]).want(t, 400, "interaction_over")
	b.tell("factor", "interaction", handle, "code", "000000").want(t, 400, "invalid_request") // the second step without the first

	done := b.tell("login", right(handle)...).step(t, 200, "done", "")
	b.tell("login", right(handle)...).want(t, 400, "interaction_over") // replay
	if got := len(e.events("login.succeeded", 1)); got != 1 {
		t.Errorf("%d sign-ins", got)
	}
	consent := b.arrives(b.get(done.str("redirect_to")), "consent").Get("interaction")
	b.tell("consent", "interaction", consent, "decision", "allow").step(t, 200, "done", "")
	b.tell("consent", "interaction", consent, "decision", "allow").want(t, 400, "interaction_over")

	handle = begin()
	e.clock.advance(31 * time.Minute)
	b.ask("login", handle).want(t, 400, "interaction_over")
	b.tell("login", right(handle)...).want(t, 400, "interaction_over")
}

func TestHeadlessAPIIsForTheOperatorsPageOnly(t *testing.T) {
	e := start(t, headless)
	b := e.browser()
	b.ask("login", "")
	right := []string{"username", "alice", "password", password}
	f := func(name string, header http.Header, status int, code string) {
		t.Helper()
		if r := b.tellWith("login", header, right...); r.status != status || r.str("error") != code {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	kind := []string{"application/json"}
	f("no origin", http.Header{"Content-Type": kind}, 403, "access_denied")
	f("another origin", http.Header{"Content-Type": kind, "Origin": {"https://evil.example.com"}}, 403, "access_denied")
	f("our own origin, which has no such page", http.Header{"Content-Type": kind, "Origin": {e.url}}, 403, "access_denied")
	f("what a form can send", http.Header{"Content-Type": {"text/plain"}, "Origin": {"http://127.0.0.1:9"}}, 415, "invalid_request")
	r := e.browser().tell("login", right...) // a page that never asked has no cookie
	if r.status != 403 || e.counts.of("login success") > 0 {
		t.Errorf("without the browser's cookie: %d %s", r.status, r.body)
	}
	for _, content := range []string{"", "null", "[]", `{"username":1}`, `{"username":["alice"]}`} {
		req, err := http.NewRequest(http.MethodPost, e.url+"/oauth/interaction/login", strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Content-Type": kind, "Origin": {"http://127.0.0.1:9"}}
		e.do(b.http, req).want(t, 400, "invalid_request")
	}
	for origin, want := range map[string]string{"http://127.0.0.1:9": "http://127.0.0.1:9", "https://evil.example.com": ""} {
		r := e.get("/oauth/interaction/account", "Origin", origin)
		if got := r.header.Get("Access-Control-Allow-Origin"); got != want || (r.header.Get("Access-Control-Allow-Credentials") == "true") != (want != "") {
			t.Errorf("%s may read: %q", origin, got)
		}
	}
	// The forms of our own pages are not shown, so none is accepted.
	if r := b.post("/oauth/login", form("username", "alice", "password", password)); r.status != 403 {
		t.Errorf("a form: %d", r.status)
	}
	if r := start(t).get("/oauth/interaction/login"); r.status != 404 {
		t.Errorf("the API without the mode: %d", r.status)
	}
	// Errors of the request itself stay on our page.
	if r := b.get(authorizeURL(request("redirect_uri", "https://evil.example.com/"))); r.status != 400 || r.header.Get("Location") != "" {
		t.Errorf("an address that is not registered: %d", r.status)
	}
}

// TestHeadlessAndPagesGiveTheSameVerdicts does the same to two servers and
// compares what they recorded and whom they let in.
func TestHeadlessAndPagesGiveTheSameVerdicts(t *testing.T) {
	type attempt struct{ status, events string }
	run := func(e *env, enrol func(*browser) (string, []string), first, second func(b *browser, name, proof string) reply) (list []attempt) {
		secret, recovery := enrol(e.browser())
		e.clock.advance(time.Minute)
		next := len(all(t, e))
		note := func(r reply) {
			t.Helper()
			a := attempt{status: "refused"}
			if r.status < 400 {
				a.status = "accepted"
			} else if r.status == 429 {
				a.status = "throttled"
			}
			events := all(t, e)
			for _, ev := range events[next:] {
				a.events += ev.Action + " " + ev.Outcome + " " + ev.Reason + "\n"
			}
			next = len(events)
			list = append(list, a)
		}
		note(first(e.browser(), "nobody", "a wrong password"))
		note(first(e.browser(), "bob", "a wrong password"))
		note(first(e.browser(), "bob", password))
		note(second(e.browser(), "alice", "000000"))
		note(second(e.browser(), "alice", e.codeAt(secret, 0)))
		note(second(e.browser(), "alice", e.codeAt(secret, 0))) // again
		note(second(e.browser(), "alice", recovery[0]))
		note(second(e.browser(), "alice", recovery[0]))
		for range 6 {
			note(first(e.browser(), "bob", "a wrong password"))
		}
		return list
	}
	pages := run(start(t), func(b *browser) (string, []string) {
		b.signIn("alice", password)
		return b.enrol()
	}, func(b *browser, name, proof string) reply {
		return b.post("/oauth/login", with(fields(b.get("/oauth/login").body), "username", name, "password", proof))
	}, func(b *browser, name, proof string) reply {
		return b.sendCode(b.factorPage(name), proof)
	})
	api := run(start(t, headless), func(b *browser) (string, []string) {
		return b.enrolHeadless("alice")
	}, func(b *browser, name, proof string) reply {
		b.ask("login", "")
		return b.tell("login", "username", name, "password", proof)
	}, func(b *browser, name, proof string) reply {
		b.ask("login", "")
		half := b.tell("login", "username", name, "password", password).str("interaction")
		return b.tell("factor", "interaction", half, "code", proof)
	})
	if len(pages) != len(api) {
		t.Fatal(len(pages), len(api))
	}
	for i := range pages {
		if pages[i] != api[i] {
			t.Errorf("attempt %d: the pages say %+v, the API %+v", i, pages[i], api[i])
		}
	}
	if last := pages[len(pages)-1]; last.status != "throttled" {
		t.Errorf("the last attempt: %+v", last)
	}
}

// all are the audit events, in order.
func all(t *testing.T, e *env) (list []store.AuditEvent) {
	t.Helper()
	events, err := e.store.AuditSince(t.Context(), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func TestHeadlessDeviceAccountAndLogout(t *testing.T) {
	e := start(t, headless)
	device := e.post("/oauth/device_authorization", "", "", form("client_id", "tv", "scope", "read:orders")).want(t, 200, "")
	b := e.browser()
	handle := b.arrives(b.get(strings.TrimPrefix(device.str("verification_uri_complete"), e.url)), "login").Get("interaction")
	next := b.tell("login", "interaction", handle, "username", "alice", "password", password).step(t, 200, "device", "")
	entry := b.ask("device", next.str("interaction")).step(t, 200, "device", "")
	code := entry.str("user_code")
	b.tell("device", "user_code", "BBBB-BBBB").step(t, 422, "device", "unknown_user_code")
	confirm := b.tell("device", "user_code", code).step(t, 200, "device_confirm", "")
	if confirm.str("client") != "Living Room" {
		t.Errorf("confirm: %s", confirm.body)
	}
	b.tell("device", "interaction", confirm.str("interaction"), "decision", "allow").step(t, 200, "device_allowed", "")
	tokens := e.post("/oauth/token", "", "", form("grant_type", deviceGrant, "client_id", "tv", "device_code", device.str("device_code"))).want(t, 200, "")

	account := b.ask("account", "").step(t, 200, "account", "")
	if account.str("user") != "alice" || !strings.Contains(account.body, `"client":"tv"`) || !strings.Contains(account.body, `"current":true`) {
		t.Errorf("account: %s", account.body)
	}
	b.tell("account", "action", "nonsense").want(t, 400, "invalid_request")
	if r := b.tell("account", "action", "withdraw", "client", "tv").step(t, 200, "account", ""); r.str("done") != "withdrawn" {
		t.Errorf("withdrawn: %s", r.body)
	}
	if e.active(tokens.str("access_token")) {
		t.Error("a token of a withdrawn consent lives")
	}

	q := b.arrives(b.get("/oauth/logout?client_id=web&state=x&post_logout_redirect_uri="+url.QueryEscape("https://app.example.com/bye")), "logout")
	if q.Get("client_id") != "web" || q.Get("state") != "x" {
		t.Errorf("logout: %v", q)
	}
	b.get("/oauth/interaction/logout?"+with(q, "step", "").Encode()).step(t, 200, "logout", "")
	out := b.tell("logout", "client_id", "web", "state", "x", "post_logout_redirect_uri", q.Get("post_logout_redirect_uri")).step(t, 200, "done", "")
	if out.str("redirect_to") != "https://app.example.com/bye?state=x" {
		t.Errorf("logout: %s", out.body)
	}
	b.ask("account", "").step(t, 200, "login", "")
	b.arrives(b.get("/oauth/logout"), "signed_out")
	b.tell("logout").step(t, 200, "logout", "")
}
