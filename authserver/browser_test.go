package authserver_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// chromium starts a browser that ends with the test, or skips it.
func chromium(t *testing.T) context.Context {
	t.Helper()
	binary := servers.Need(t, "chromium", "chromium")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(binary), chromedp.NoSandbox,
		chromedp.Flag("accept-lang", "en"))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// TestBrowserSignsInWithTheKeyboardAndComesBack covers what only a browser
// knows: that the Content-Security-Policy lets the forms lead to the client,
// that our cookies come back and our forms are taken for our own.
func TestBrowserSignsInWithTheKeyboardAndComesBack(t *testing.T) {
	ctx := chromium(t)
	e := start(t)
	answers := make(chan url.Values, 1)
	client := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cb" {
			answers <- r.URL.Query()
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, `<p id="back">welcome back</p>`)
		}
	}))
	defer client.Close()
	redirect := strings.Replace(client.URL, "localhost", "127.0.0.1", 1) + "/cb"

	err := chromedp.Do(ctx,
		chromedp.Navigate(e.url+authorizeURL(request("client_id", "native", "redirect_uri", redirect))),
		chromedp.WaitVisible(chromedp.CSS(`form[action="/oauth/login"]`)),
		// The name has the focus already.
		chromedp.KeyEvent("alice"), chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent("not the password"), chromedp.KeyEvent(kb.Enter),
		chromedp.WaitVisible(chromedp.CSS(`#problem[role="alert"]`)),
		chromedp.KeyEvent(password), chromedp.KeyEvent(kb.Enter), // now the password has
		chromedp.WaitVisible(chromedp.CSS(`form[action="/oauth/consent"]`)),
		chromedp.Focus(chromedp.CSS(`button[value="allow"]`)), chromedp.KeyEvent(kb.Enter),
	)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case q := <-answers:
		if q.Get("state") != "s-1" || q.Get("iss") != e.config.Issuer {
			t.Errorf("answer %v", q)
		}
		e.secret(q.Get("code"))
		e.token("", "", redemption(q.Get("code"), "client_id", "native", "redirect_uri", redirect)).want(t, 200, "")
	case <-ctx.Done():
		t.Fatal("the browser did not come back to the client: the policy of a page stopped it")
	}
	back := chromedp.WaitVisible(chromedp.CSS("#back"))
	// The second time only consent is asked, and denied.
	err = chromedp.Do(ctx, back,
		chromedp.Navigate(e.url+authorizeURL(request("client_id", "native", "redirect_uri", redirect))),
		chromedp.WaitVisible(chromedp.CSS(`form[action="/oauth/consent"]`)),
		chromedp.Click(chromedp.CSS(`button[value="deny"]`)),
	)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case q := <-answers:
		if q.Get("error") != "access_denied" {
			t.Errorf("answer %v", q)
		}
	case <-ctx.Done():
		t.Fatal("the browser did not come back to the client")
	}
	if err := chromedp.Do(ctx, back,
		chromedp.Navigate(e.url+"/oauth/login"),
		chromedp.WaitVisible(chromedp.CSS(`form[action="/oauth/logout"]`)),
	); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS(`button[type="submit"]`))); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx,
		chromedp.Navigate(e.url+"/oauth/login"),
		chromedp.WaitVisible(chromedp.CSS(`#password`)),
	); err != nil {
		t.Fatal(err)
	}
}
