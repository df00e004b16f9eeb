package authserver_test

import (
	"html"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/enrol"
	"github.com/gatehouse/gatehouse/authserver/mail"
	"github.com/gatehouse/gatehouse/authserver/mail/mailbox"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// withMail lets a server send mail to a mailbox, and people do everything by it.
func withMail(t *testing.T, c mailbox.Config) (*mailbox.Mailbox, func(*authserver.Config)) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	box := mailbox.New(c)
	done := make(chan error, 1)
	go func() { done <- box.Serve(ln) }()
	t.Cleanup(func() {
		box.Close()
		<-done
	})
	sender, err := mail.NewSMTP(mail.SMTPConfig{Address: ln.Addr().String(), From: "Gate <no-reply@example.com>", TLS: mail.Plain, Timeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return box, func(c *authserver.Config) {
		c.Mail, c.Enrol = sender, enrol.Policy{Reset: true, Register: true, Domains: []string{"people.example.com", "example.org"}}
	}
}

var ticketLink = regexp.MustCompile(`https?://\S+[?]ticket=([\w-]{43})`)

// letter waits for the n-th mail to an address with a subject and returns it, with
// its links.
func (e *env) letter(box *mailbox.Mailbox, n int, to, subject string) (m mailbox.Mail, links []string) {
	e.t.Helper()
	eventually(e.t, func() bool {
		left := n
		for _, one := range box.Mails() {
			if one.To[0] == to && one.Subject == subject {
				if left--; left == 0 {
					m = one
					return true
				}
			}
		}
		return false
	})
	for _, found := range ticketLink.FindAllStringSubmatch(m.Text, -1) {
		e.secret(found[1])
		links = append(links, strings.Replace(found[0], e.config.Issuer, "", 1))
		if !strings.Contains(html.UnescapeString(m.HTML), found[0]) {
			e.t.Errorf("the HTML of the mail lacks the link of its text:\n%s", m.HTML)
		}
	}
	return m, links
}

// delivered waits until everything that was asked for so far is written. Letters
// go in batches, so the second of two that are asked for one after the other is
// in a later batch than what came before the first.
func (e *env) delivered(box *mailbox.Mailbox) (n int) {
	e.t.Helper()
	const last = "last@example.org"
	if _, err := e.store.UserByName(e.t.Context(), "last"); err != nil {
		e.addUser("last", last)
	}
	for i := range 2 {
		e.browser().asks("/oauth/reset", "login", "last").shows(e.t, 200, "on its way")
		e.letter(box, i+1, last, "Your new password")
	}
	for _, m := range box.Mails() {
		if m.To[0] != last {
			n++
		}
	}
	return n
}

// asks sends the form of a page that asks for a mail.
func (b *browser) asks(path string, pairs ...string) reply {
	b.e.t.Helper()
	return b.post(path, with(fields(b.get(path).body), pairs...))
}

// unhurried repeats what a busy machine had no time for: real passwords are
// hashed at their real cost.
func unhurried(f func() reply) reply {
	for end := time.Now().Add(2 * time.Minute); ; {
		if r := f(); r.status != http.StatusServiceUnavailable || time.Now().After(end) {
			return r
		}
	}
}

// patient is post, unhurried.
func (b *browser) patient(path string, f url.Values) reply {
	b.e.t.Helper()
	return unhurried(func() reply { return b.post(path, f) })
}

const newPassword = "another horse, another battery"

func TestResetByMailEndsEverythingAndKeepsTheSecondFactor(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, start func(...func(*authserver.Config)) *env) {
		t.Parallel()
		box, mailed := withMail(t, mailbox.Config{})
		e := start(mailed)
		e.secret(newPassword, "carl.carlsson@people.example.com")
		carl := e.addUser("carl", "Carl.Carlsson@people.example.com")
		mine, visitor := e.browser(), e.browser()
		mine.signIn("carl", password)
		app, _ := mine.enrol()
		r := mine.run(request("scope", "openid offline_access"), "", "allow")
		tokens := e.redeem(mine.code(r)).want(t, 200, "")

		// Two links; the second is used, which ends the first.
		visitor.get("/oauth/login").shows(t, 200, `href="/oauth/reset"`)
		visitor.asks("/oauth/reset", "login", "carl").shows(t, 200, "on its way")
		_, first := e.letter(box, 1, carl.Email, "Your new password")
		visitor.asks("/oauth/reset", "login", "carl.carlsson@People.example.com").shows(t, 200, "on its way")
		m, second := e.letter(box, 2, carl.Email, "Your new password")
		if len(first) != 1 || len(second) != 1 || first[0] == second[0] || !strings.Contains(m.Text, "20 minutes") {
			t.Fatalf("links %d and %d:\n%s", len(first), len(second), m.Text)
		}
		// Machines that look into mail open links, and ask for their heads.
		for range 2 {
			visitor.get(second[0]).shows(t, 200, "For the account carl")
		}
		head, err := http.Head(e.url + second[0])
		if err != nil || head.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("HEAD: %v %v", head.StatusCode, err)
		}
		page := visitor.get(second[0])
		if csp := page.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || page.header.Get("Referrer-Policy") != "same-origin" {
			t.Errorf("the page's fields: %v", page.header)
		}
		f := with(fields(page.body), "new", newPassword, "repeat", newPassword)
		e.browser().post("/oauth/reset/new", f).shows(t, 403, "")
		visitor.post("/oauth/reset/new", with(f, "repeat", "something else")).shows(t, 422, "not the same")
		visitor.post("/oauth/reset/new", with(f, "new", "short", "repeat", "short")).shows(t, 422, "too short")
		visitor.patient("/oauth/reset/new", f).shows(t, 200, "Your password was changed")
		for _, used := range []string{first[0], second[0]} {
			visitor.get(used).shows(t, http.StatusGone, "does not work any more")
		}
		visitor.post("/oauth/reset/new", f).shows(t, http.StatusGone, "")

		mine.signedOut(t)
		e.refresh(tokens.str("refresh_token")).want(t, 400, "invalid_grant")
		if e.active(tokens.str("access_token")) {
			t.Error("an access token outlived the password")
		}
		login := visitor.get("/oauth/login")
		visitor.patient("/oauth/login", with(fields(login.body), "username", "carl", "password", password)).shows(t, 422, "")
		r = visitor.patient("/oauth/login", with(fields(login.body), "username", "carl", "password", newPassword))
		if !strings.HasPrefix(r.header.Get("Location"), "/oauth/factor") {
			t.Fatalf("after the reset no second factor is asked for: %d %s", r.status, r.header.Get("Location"))
		}
		factor := visitor.get(r.header.Get("Location"))
		visitor.post("/oauth/factor", with(fields(factor.body), "code", e.codeAt(app, 1))).shows(t, 303, "")
		e.letter(box, 1, carl.Email, "Your password was changed")
		if got := e.events("password.reset", 1); got[0].Subject != carl.Subject || got[0].Actor != "user:"+carl.Subject {
			t.Errorf("audit %+v", got)
		}
		if got := e.events("reset.requested", 2); got[0].Subject != "" {
			t.Errorf("the request says who was meant: %+v", got[0])
		}
		if got := e.events("mail.sent", 3); got[0].Subject != carl.Subject || got[0].Reason != "reset" || e.counts.of("mail sent") < 3 {
			t.Errorf("audit %+v", got)
		}

		// A link that is too old.
		visitor.asks("/oauth/reset", "login", "carl").shows(t, 200, "")
		_, late := e.letter(box, 3, carl.Email, "Your new password")
		e.clock.advance(21 * time.Minute)
		visitor.get(late[0]).shows(t, http.StatusGone, "Ask for a new one")
	})
}

func TestRegistrationBeginsWithAnAddressThatIsRead(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, start func(...func(*authserver.Config)) *env) {
		t.Parallel()
		box, mailed := withMail(t, mailbox.Config{})
		e := start(mailed)
		e.secret(newPassword, "dora.doering@people.example.com")
		b := e.browser()
		b.get("/oauth/login").shows(t, 200, `href="/oauth/signup"`)
		b.asks("/oauth/signup", "address", "nobody").shows(t, 422, "not an e-mail address")
		b.asks("/oauth/signup", "address", "a@elsewhere.example.com").shows(t, 422, "not open to addresses of this domain")
		b.post("/oauth/signup", form("address", "x@example.org")).shows(t, 403, "")
		const address = "Dora.Doering@people.example.com"
		b.asks("/oauth/signup", "address", " Dora.Doering@PEOPLE.example.com").shows(t, 200, "on its way")
		b.asks("/oauth/signup", "address", address).shows(t, 200, "on its way")
		_, first := e.letter(box, 1, address, "Your account")
		m, second := e.letter(box, 2, address, "Your account")
		if !strings.Contains(m.Text, "24 hours") {
			t.Errorf("the mail does not say how long it is good:\n%s", m.Text)
		}
		page := b.get(first[0]).shows(t, 200, address, "terms of use")
		f := with(fields(page.body), "display_name", " Dora\u202e <b>D</b>\n", "new", newPassword, "repeat", newPassword)
		b.post("/oauth/signup/new", with(f, "new", "short", "repeat", "short")).shows(t, 422, "too short")
		e.browser().post("/oauth/signup/new", f).shows(t, 403, "")
		login := b.get("/oauth/login")
		b.patient("/oauth/login", with(fields(login.body), "username", strings.ToLower(address), "password", newPassword)).shows(t, 422, "")
		b.patient("/oauth/signup/new", f).shows(t, 200, "Your account is there")
		b.get(first[0]).shows(t, http.StatusGone, "")
		b.post("/oauth/signup/new", with(f, "ticket", second[0][strings.Index(second[0], "=")+1:])).shows(t, 422, "already")
		r := b.patient("/oauth/login", with(fields(login.body), "username", strings.ToLower(address), "password", newPassword))
		b.get(r.header.Get("Location")).shows(t, 200, address, "verified")
		u, err := e.store.UserByName(t.Context(), strings.ToLower(address))
		if err != nil || !u.EmailVerified || u.DisplayName != "Dora <b>D</b>" || e.events("user.registered", 1)[0].Subject != u.Subject {
			t.Errorf("user %+v, %v", u, err)
		}

		// The address is taken now: the page says the same, the owner is told.
		other := e.browser()
		other.asks("/oauth/signup", "address", strings.ToLower(address)).shows(t, 200, "on its way")
		m, links := e.letter(box, 1, strings.ToLower(address), "Your account")
		if len(links) > 0 || !strings.Contains(m.Text, "There is one already") {
			t.Errorf("the mail to the owner:\n%s", m.Text)
		}
		// Who was shut out does not come back this way, and hears nothing.
		u.Disabled = true
		if err := e.store.UpdateUser(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		other.asks("/oauth/signup", "address", address).shows(t, 200, "on its way")
		other.asks("/oauth/reset", "login", address).shows(t, 200, "on its way")
		if n := e.delivered(box); n != 3 {
			t.Errorf("%d mails, want 3", n)
		}
	})
}

func TestAddressChangesWhenTheNewOneIsConfirmed(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, start func(...func(*authserver.Config)) *env) {
		t.Parallel()
		box, mailed := withMail(t, mailbox.Config{})
		e := start(mailed)
		const next = "erik.the.new@people.example.com"
		e.secret("erik.the.old@people.example.com", next, newPassword)
		erik := e.addUser("erik", "erik.the.old@people.example.com")
		b := e.browser()
		b.signIn("erik", password).shows(t, 200, "/oauth/account/email")
		page := b.get("/oauth/account/email").shows(t, 200, erik.Email)
		f := with(fields(page.body), "address", next)
		b.post("/oauth/account/email", with(f, "address", "none")).shows(t, 422, "not an e-mail address")
		sent := b.post("/oauth/account/email", f)
		b.get(sent.header.Get("Location")).shows(t, 200, "A mail is on its way", erik.Email)
		_, links := e.letter(box, 1, next, "Confirm your e-mail address")
		visitor := e.browser() // a telephone, for example
		ask := visitor.get(links[0]).shows(t, 200, next, "erik")
		b.get("/oauth/account").shows(t, 200, erik.Email)
		e.browser().post("/oauth/email", fields(ask.body)).shows(t, 403, "")
		visitor.post("/oauth/email", fields(ask.body)).shows(t, 200, "Your address is confirmed")
		visitor.post("/oauth/email", fields(ask.body)).shows(t, http.StatusGone, "")
		b.get("/oauth/account").shows(t, 200, next, "verified")
		m, _ := e.letter(box, 1, erik.Email, "Your e-mail address was changed")
		if strings.Contains(m.Text, next) {
			t.Error("the mail to the old address tells the new one")
		}
		if got := e.events("email.confirmed", 1); got[0].Subject != erik.Subject || len(e.events("email.requested", 1)) != 1 {
			t.Errorf("audit %+v", got)
		}

		// A new password ends what waits to be confirmed.
		b.post("/oauth/account/email", with(f, "address", "eve@example.org"))
		_, links = e.letter(box, 1, "eve@example.org", "Confirm your e-mail address")
		change := b.get("/oauth/account/password")
		b.patient("/oauth/account/password", with(fields(change.body), "current", password, "new", newPassword, "repeat", newPassword)).shows(t, 303, "")
		visitor.get(links[0]).shows(t, http.StatusGone, "")
		e.letter(box, 1, next, "Your password was changed")
		e.clock.advance(11 * time.Minute)
		if r := b.get("/oauth/account/email"); r.status != 303 || !strings.HasPrefix(r.header.Get("Location"), "/oauth/login") {
			t.Errorf("an old sign-in changes the address: %d", r.status)
		}
	})
}

func TestOAuth21_AskingForMailIsThrottledAndKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, start func(...func(*authserver.Config)) *env) {
		t.Parallel()
		box, mailed := withMail(t, mailbox.Config{})
		e := start(mailed)
		gunnar := e.addUser("gunnar", "gunnar@example.org")
		b := e.browser()
		throttled := 0
		for range 7 {
			if r := b.asks("/oauth/reset", "login", "gunnar"); r.status == http.StatusTooManyRequests {
				if throttled++; r.header.Get("Retry-After") == "" {
					t.Error("429 without Retry-After")
				}
			}
		}
		if throttled != 2 {
			t.Errorf("%d of 7 requests for one name were throttled, want 2", throttled)
		}
		e.browser().signIn("gunnar", password) // not delayed by it
		if n := e.delivered(box); n != 3 {
			t.Errorf("the mailbox got %d letters, want 3", n)
		}
		m, links := e.letter(box, 1, gunnar.Email, "Your new password")
		if len(links) != 1 { // what others asked for is good for the owner
			t.Fatalf("no link:\n%s", m.Text)
		}
		b.get(links[0]).shows(t, 200, "gunnar")
		e.clock.advance(31 * time.Second) // the longest delay
		b.asks("/oauth/reset", "login", "gunnar").shows(t, 200, "on its way")
		slow := false
		for i := range 25 {
			slow = slow || b.asks("/oauth/reset", "login", strings.Repeat("x", i+1)).status == http.StatusTooManyRequests
		}
		if !slow {
			t.Error("one address over many names was not throttled")
		}
	})
}

func TestPasswordsThatAreKeptElsewhereAreNotReset(t *testing.T) {
	t.Parallel()
	box, mailed := withMail(t, mailbox.Config{})
	e := start(t, mailed)
	_, _, err := e.store.SignInIdentity(t.Context(), store.Identity{Provider: "partner", ID: "1", Seen: e.clock.now()},
		store.User{Subject: "usr_helga", Name: "helga", Email: "helga@example.org", EmailVerified: true})
	if err != nil {
		t.Fatal(err)
	}
	ivar := e.addUser("ivar", "helga@example.org")
	b := e.browser()
	b.asks("/oauth/reset", "login", "helga@example.org")
	m, links := e.letter(box, 1, "helga@example.org", "Your new password")
	if len(links) != 1 || !strings.Contains(m.Text, "ivar:") || !strings.Contains(m.Text, "helga signs in with partner") {
		t.Errorf("one letter for both accounts:\n%s", m.Text)
	}
	b.get(links[0]).shows(t, 200, "ivar")
	b.asks("/oauth/reset", "login", "alice")
	if m, links = e.letter(box, 1, "alice@example.com", "Your new password"); len(links) > 0 || !strings.Contains(m.Text, "the account alice is set by the administrator") {
		t.Errorf("the letter to a declared user:\n%s", m.Text)
	}
	// Nor is the address of who came from elsewhere changed here.
	b.signIn("alice", password)
	b.get("/oauth/account/email").shows(t, 400, "kept elsewhere")
	b.act("action", "email", "address", "x@example.org").shows(t, 400, "kept elsewhere")

	// An operator sends the link.
	call := func(subject string) int {
		return e.admin(http.MethodPost, "/api/v1/users/"+subject+"/reset-password", "").status
	}
	if got := call(ivar.Subject); got != http.StatusNoContent {
		t.Fatalf("reset by an operator: %d", got)
	}
	if _, links = e.letter(box, 2, "helga@example.org", "Your new password"); len(links) != 1 {
		t.Error("no link")
	}
	if got := e.admin(http.MethodPatch, "/api/v1/users/"+ivar.Subject, `{"email":"ivar@example.org","email_verified":true}`); got.status != 200 || got.json["email_verified"] != true {
		t.Errorf("update: %d %s", got.status, got.body)
	}
	b.get(links[0]).shows(t, http.StatusGone, "")
	e.addUser("nomail", "")
	for subject, want := range map[string]int{"usr_helga": 409, "usr_nomail": 409, "usr_nobody": 404} {
		if got := call(subject); got != want {
			t.Errorf("%s: %d, want %d", subject, got, want)
		}
	}
}

// TestHeadlessPagesCanDoWhatGoesByMail runs the same endpoints behind the
// operator's page.
func TestHeadlessPagesCanDoWhatGoesByMail(t *testing.T) {
	t.Parallel()
	box, mailed := withMail(t, mailbox.Config{})
	e := start(t, mailed, headless)
	e.secret(newPassword)
	e.addUser("nils", "nils@example.org")
	b := e.browser()
	b.arrives(b.get("/oauth/reset"), "reset")
	login := b.ask("login", "").step(t, 200, "login", "")
	if login.json["can_reset_password"] != true || login.json["can_sign_up"] != true {
		t.Errorf("login: %s", login.body)
	}
	b.ask("reset", "").step(t, 200, "reset", "")
	b.tell("reset", "login", "nils").step(t, 200, "sent", "")
	_, links := e.letter(box, 1, "nils@example.org", "Your new password")
	ticket := b.arrives(b.get(links[0]), "reset/new").Get("ticket")
	if asked := b.get("/oauth/interaction/reset/new?ticket="+ticket).step(t, 200, "reset/new", ""); asked.str("user") != "nils" || strings.Contains(asked.body, "csrf") {
		t.Errorf("reset/new: %s", asked.body)
	}
	b.tell("reset/new", "ticket", ticket, "new", newPassword, "repeat", "another").step(t, 422, "reset/new", "password_repeat")
	unhurried(func() reply {
		return b.tell("reset/new", "ticket", ticket, "new", newPassword, "repeat", newPassword)
	}).step(t, 200, "finished", "")
	b.tell("reset/new", "ticket", ticket, "new", newPassword, "repeat", newPassword).step(t, http.StatusGone, "dead_link", "")
	unhurried(func() reply {
		return b.tell("login", "username", "nils", "password", newPassword)
	}).step(t, 200, "account", "")

	b.tell("account/email", "action", "email", "address", "none").step(t, 422, "account/email", "wrong_email")
	b.tell("account/email", "action", "email", "address", "nils@people.example.com").step(t, 200, "account", "")
	_, links = e.letter(box, 1, "nils@people.example.com", "Confirm your e-mail address")
	ticket = b.arrives(b.get(links[0]), "email").Get("ticket")
	b.tell("email", "ticket", ticket).step(t, 200, "finished", "")
	if account := b.ask("account", "").step(t, 200, "account", ""); account.str("email") != "nils@people.example.com" || account.json["email_verified"] != true {
		t.Errorf("account: %s", account.body)
	}

	b.tell("signup", "address", "x@elsewhere.example.com").step(t, 422, "signup", "email_domain")
	b.tell("signup", "address", "olga@example.org").step(t, 200, "sent", "")
	_, links = e.letter(box, 1, "olga@example.org", "Your account")
	ticket = b.arrives(b.get(links[0]), "signup/new").Get("ticket")
	b.tell("signup/new", "ticket", ticket, "new", "short", "repeat", "short").step(t, 422, "signup/new", "password_length")
	unhurried(func() reply {
		return b.tell("signup/new", "ticket", ticket, "display_name", "Olga", "new", newPassword, "repeat", newPassword)
	}).step(t, 200, "finished", "")
	other := e.browser()
	other.ask("login", "")
	unhurried(func() reply {
		return other.tell("login", "username", "olga@example.org", "password", newPassword)
	}).step(t, 200, "account", "")
}
