package dev

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/mail/mailbox"
)

// Mails takes the mail of a development server and shows it on a page, in place
// of sending it.
type Mails struct {
	box         *mailbox.Mailbox
	smtp, shown net.Listener
}

// OpenMails listens on loopback, for the page at this address.
func OpenMails(page string) (*Mails, error) {
	shown, err := net.Listen("tcp", page)
	if err != nil {
		return nil, err
	}
	smtp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, shown.Close())
	}
	return &Mails{mailbox.New(mailbox.Config{}), smtp, shown}, nil
}

// SMTP is where mail is taken.
func (m *Mails) SMTP() string { return m.smtp.Addr().String() }

// URL is where it is shown.
func (m *Mails) URL() string { return "http://" + m.shown.Addr().String() + "/" }

// Run takes and shows mail until ctx ends.
func (m *Mails) Run(ctx context.Context) error {
	page := &http.Server{Handler: m, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	done := make(chan error, 2)
	go func() { done <- m.box.Serve(m.smtp) }()
	go func() { done <- page.Serve(m.shown) }()
	<-ctx.Done()
	errs := []error{m.box.Close(), page.Close()}
	for range 2 {
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Close ends what Run was never called for.
func (m *Mails) Close() error { return errors.Join(m.smtp.Close(), m.shown.Close()) }

var mailPage = template.Must(template.New("").Funcs(template.FuncMap{"link": func(s string) bool { return strings.HasPrefix(s, "http") }}).Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Mail that was not sent</title></head>
<body><h1>Mail that was not sent</h1>
{{range .}}<section><h2>{{.Subject}}</h2><p>{{.At.Format "15:04:05"}}, to {{range .To}}{{.}} {{end}}</p>
{{range .Lines}}<p>{{if link .}}<a href="{{.}}">{{.}}</a>{{else}}{{.}}{{end}}</p>
{{end}}</section>
{{else}}<p>There is none yet. Reload this page.</p>
{{end}}</body></html>
`))

// ServeHTTP shows all mails, the newest first. The Host has to be an address, so
// that no other site's script reads them under a name of its own.
func (m *Mails) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.Host)
	if ip := net.ParseIP(host); r.URL.Path != "/" || err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		http.NotFound(w, r)
		return
	}
	type view struct {
		mailbox.Mail
		Lines []string
	}
	var views []view
	for _, one := range slices.Backward(m.box.Mails()) {
		lines := slices.DeleteFunc(strings.Split(one.Text, "\n"), func(l string) bool { return strings.TrimSpace(l) == "" })
		views = append(views, view{one, lines})
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	if err := mailPage.Execute(w, views); err != nil {
		fmt.Fprintln(w, "the page was cut off")
	}
}
