package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// serveSPA serves the application of tools/clients/spa.html where its client
// is registered.
func serveSPA(t *testing.T, o *outside) (url string) {
	t.Helper()
	library := filepath.Join(outsideClients, "node_modules", "oidc-client-ts", "dist", "browser", "oidc-client-ts.min.js")
	if _, err := os.Stat(library); err != nil {
		servers.Missing(t, "the npm clients are not installed: npm ci in tools/clients: %v", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/oidc-client-ts.min.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, library) })
	mux.HandleFunc("/settings.json", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": o.issuer})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(outsideClients, "spa.html"))
	})
	o.application.Config.Handler = mux
	o.application.Start()
	return o.application.URL
}

// TestOutsideOIDCClientTS has npm oidc-client-ts run in a page of its own in
// Chromium, with tokens for whoever has them and with tokens bound to a key.
func TestOutsideOIDCClientTS(t *testing.T) {
	binary := servers.Need(t, "chromium", "chromium")
	o := startOutside(t)
	app := serveSPA(t, o)
	for name, query := range map[string]string{"Bearer": "", "DPoP": "?dpop"} {
		t.Run(name, func(t *testing.T) {
			// The server's certificate is verified by the other clients; a browser
			// would want its CA in a store of the system.
			options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(binary), chromedp.NoSandbox, chromedp.Flag("ignore-certificate-errors", true))
			ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
			defer cancel()
			ctx, cancel = chromedp.NewContext(ctx)
			defer cancel()
			if err := chromedp.Do(ctx); err != nil { // starts the browser, which outlives a step
				t.Fatal(err)
			}
			do := func(actions ...chromedp.Action[chromedp.Void]) {
				t.Helper()
				step, cancel := context.WithTimeout(ctx, 2*time.Minute)
				defer cancel()
				if err := chromedp.Do(step, actions...); err != nil {
					page, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("location.href + ' ' + document.body.innerText"))
					t.Fatalf("%v: the page is %q", err, page)
				}
			}
			see := func(selector string) chromedp.Action[chromedp.Void] {
				return chromedp.WaitVisible(chromedp.CSS(selector))
			}
			script := func(text string) {
				t.Helper()
				if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](text+"; true")); err != nil {
					t.Fatal(err)
				}
			}
			do(chromedp.Navigate(app+"/"+query), see("#ready"))
			script("manager.signinRedirect()")
			do(see(`form[action="/oauth/login"]`),
				chromedp.SendKeys(chromedp.CSS("#username"), "alice"), chromedp.SendKeys(chromedp.CSS("#password"), outsidePassword),
				chromedp.Click(chromedp.CSS(`form[action="/oauth/login"] button`)),
				see(`form[action="/oauth/consent"]`), chromedp.Click(chromedp.CSS(`button[value="allow"]`)),
				see("#signed-in"))
			text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("flows()", chromedp.EvalAwaitPromise))
			if err != nil {
				t.Fatal(err)
			}
			var went map[string]string
			if err := json.Unmarshal([]byte(text), &went); err != nil {
				t.Fatal(err)
			}
			for _, flow := range []string{"API", "silent renew", "revocation"} {
				if problem, ran := went[flow]; !ran || problem != "" {
					t.Errorf("%s: it ran: %v %s", flow, ran, problem)
				}
			}
			script("manager.signoutRedirect()")
			do(see("#bye"))
		})
	}
	wantNoSecret(t, o.running, outsidePassword)
}
