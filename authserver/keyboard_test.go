package authserver_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// keyboard is a person at a browser who has no mouse. Nothing but keys moves
// the focus; scripts of the test only look where it is.
type keyboard struct {
	t   *testing.T
	ctx context.Context
}

func (k keyboard) do(steps ...chromedp.Action[chromedp.Void]) {
	k.t.Helper()
	if err := chromedp.Do(k.ctx, steps...); err != nil {
		k.t.Fatal(err)
	}
}

func (k keyboard) see(selector string) {
	k.t.Helper()
	k.do(chromedp.WaitVisible(chromedp.CSS(selector)))
}

func (k keyboard) look(script string) string {
	k.t.Helper()
	seen, err := chromedp.Run(k.ctx, chromedp.Evaluate[string](script))
	if err != nil {
		k.t.Fatal(err)
	}
	return seen
}

// to presses Tab until something has the focus, and fails the test unless that
// can be seen.
func (k keyboard) to(selector string) {
	k.t.Helper()
	k.see(selector)
	unseen := 0 // the styles may be on their way
	for steps := 0; steps < 60; {
		switch k.look(`(() => { const at = document.activeElement, style = getComputedStyle(at);
			if (!at.matches("` + strings.ReplaceAll(selector, `"`, `\"`) + `")) return "elsewhere";
			return parseFloat(style.outlineWidth) >= 2 && style.outlineStyle !== "none" ? "here" : "unseen"; })()`) {
		case "here":
			return
		case "unseen":
			if unseen++; unseen > 500 {
				k.t.Fatalf("%s has the focus, and nobody sees it", selector)
			}
			time.Sleep(10 * time.Millisecond)
			continue
		}
		k.do(chromedp.KeyEvent(kb.Tab))
		steps++
	}
	k.t.Fatalf("Tab does not lead to %s", selector)
}

// press goes to something and presses Enter.
func (k keyboard) press(selector string) {
	k.t.Helper()
	k.to(selector)
	k.do(chromedp.KeyEvent(kb.Enter))
}

// fill goes to a field and types.
func (k keyboard) fill(selector, text string) {
	k.t.Helper()
	k.to(selector)
	k.do(chromedp.KeyEvent(text))
}

// focused has the browser behave as the window that the person works in.
func focused() chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
		return err
	})
}

// authenticator adds one to the browser that has passkeys and knows its user.
func authenticator() chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		if _, err := cdp.Call(ctx, target, webauthn.Enable, webauthn.EnableParams{}); err != nil {
			return err
		}
		_, err := cdp.Call(ctx, target, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{
			Options: &webauthn.VirtualAuthenticatorOptions{
				Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
				HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
			},
		})
		return err
	})
}

// TestBrowserDoesEverythingWithTheKeyboard goes through every page without a
// mouse: sign-in, second step, passkey, account, device, logout, an error.
func TestBrowserDoesEverythingWithTheKeyboard(t *testing.T) {
	e := start(t, atLocalhost)
	e.addUser("carol", "")
	k := keyboard{t, chromium(t)}
	open := func(path string) { k.do(chromedp.Navigate(e.config.Issuer + path)) }
	signIn := func(pw string) {
		t.Helper()
		k.fill("#username", "carol")
		k.fill("#password", pw)
		k.press(`form[action="/oauth/login"] button`)
	}
	k.do(focused(), authenticator())

	open("/oauth/login")
	signIn("not the password")
	k.see(`#problem[role="alert"]`)
	k.fill("#password", password)
	k.press(`form[action="/oauth/login"] button`)

	// An authenticator app, with its recovery codes.
	k.press(`a[href="/oauth/account/app"]`)
	k.see("#code")
	secret := strings.ReplaceAll(k.look(`document.querySelector("main code").textContent`), " ", "")
	e.secret(secret)
	k.fill("#code", e.codeAt(secret, 0))
	k.press(`form button`)
	k.see(".codes")
	recovery := k.look(`document.querySelector(".codes code").textContent`)
	e.secret(recovery)
	k.press(`a[href="/oauth/account"]`)

	// A passkey.
	k.press(`a[href="/oauth/account/passkey"]`)
	k.fill("#name", "Laptop")
	k.press(`form[data-passkey] button`)
	k.see(`p.done[role="status"]`)

	// Another password, which asks for the one before.
	const fresh = "another password of carol"
	e.secret(fresh)
	k.press(`a[href="/oauth/account/password"]`)
	k.fill("#current", password)
	k.fill("#new", fresh)
	k.fill("#repeat", fresh)
	k.press(`form[action="/oauth/account/password"] button`)
	k.see(`p.done[role="status"]`)

	// A device.
	device := e.post("/oauth/device_authorization", "", "", form("client_id", "tv", "scope", "read:orders")).want(t, 200, "")
	open("/oauth/device")
	k.fill("#user_code", device.str("user_code"))
	k.press(`form button`)
	k.press(`button[value="allow"]`)
	k.see(`p[role="status"]`)

	// What the account has, taken away.
	open("/oauth/account")
	k.press(`button[value="withdraw"]`)
	k.see(`p.done[role="status"]`)
	k.press(`button[value="end_others"]`)
	k.see(`p.done[role="status"]`)
	k.press(`form[action="/oauth/logout"] button`)
	k.do(chromedp.WaitNotPresent(chromedp.CSS(`form`)))

	// The second step, by a recovery code, and for an application.
	e.clock.advance(time.Minute)
	open(authorizeURL(request()))
	signIn(fresh)
	k.fill("#code", recovery)
	k.press(`form[action="/oauth/factor"] button`)
	k.to(`button[value="deny"]`)
	k.to(`button[value="allow"]`) // round the page, and not into a trap

	// A passkey alone.
	open("/oauth/logout")
	k.press(`form[action="/oauth/logout"] button`)
	k.do(chromedp.WaitNotPresent(chromedp.CSS(`form`)))
	open("/oauth/login")
	k.press(`form[data-passkey="get"] button`)
	k.press(`button[value="remove_passkey"]`)
	k.see(`p.done[role="status"]`)

	open("/oauth/authorize")
	k.see(`p[role="alert"]`)
	if got := len(e.events("login.succeeded", 4)); got != 4 {
		t.Errorf("%d sign-ins", got)
	}
}
