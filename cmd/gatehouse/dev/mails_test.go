package dev

import (
	"context"
	"io"
	"net/http"
	netsmtp "net/smtp"
	"strings"
	"testing"
)

func TestMailsAreShownAndNotSent(t *testing.T) {
	m, err := OpenMails("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	show := func(host string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, m.URL(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			req.Host = host
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if status, page := show(""); status != 200 || !strings.Contains(page, "none yet") {
		t.Errorf("%d:\n%s", status, page)
	}
	content := "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n" +
		"--b\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<b>Go on:\r\nhttp://127.0.0.1/x?ticket=3D1\r\n--b--\r\n"
	if err := netsmtp.SendMail(m.SMTP(), nil, "a@example.com", []string{"b@example.com"}, []byte(content)); err != nil {
		t.Fatal(err)
	}
	status, page := show("")
	for _, want := range []string{"Grüße", "b@example.com", `<a href="http://127.0.0.1/x?ticket=1">`, "&lt;b&gt;Go on:"} {
		if status != 200 || !strings.Contains(page, want) {
			t.Errorf("%d, the page lacks %s:\n%s", status, want, page)
		}
	}
	if err := netsmtp.SendMail(m.SMTP(), nil, "a@example.com", []string{"b@example.com"}, []byte("no mail at all")); err == nil {
		t.Error("what is no mail is taken")
	}
	if status, _ := show("evil.example.com"); status != http.StatusNotFound {
		t.Errorf("under another name: %d", status)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
