// Package mailbox is an SMTP server that keeps what it is sent instead of
// delivering it, for development and for tests.
//
// It owns receiving and reading mails. It does not own how they are shown.
//
//	box := mailbox.New(mailbox.Config{})
//	go box.Serve(listener)
//	for _, m := range box.Mails() { … }
package mailbox

import (
	"bytes"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"mime"
	"mime/multipart"
	"net"
	netmail "net/mail"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

const (
	// keep bounds how many mails are kept: the newest.
	keep    = 100
	maxSize = 1 << 20
	timeout = time.Minute
)

// Config is how a mailbox behaves; the zero one takes everything.
type Config struct {
	// TLS lets clients encrypt the connection with STARTTLS; nil: they cannot.
	TLS *tls.Config
	// Username and Password, if not empty, have to be given first.
	Username, Password string
	// Refuse returns the code with which a receiver is refused; 0 takes it.
	Refuse func(to string) int
}

// Mail is one that was received.
type Mail struct {
	From       string
	To         []string
	Header     netmail.Header
	Subject    string // decoded
	Text, HTML string
	// Encrypted: the connection was.
	Encrypted bool
	At        time.Time
}

// Mailbox is safe for concurrent use.
type Mailbox struct {
	config Config
	server *smtp.Server

	mu    sync.Mutex
	mails []Mail
}

// New returns an empty mailbox; see Serve.
func New(c Config) *Mailbox {
	b := &Mailbox{config: c}
	s := smtp.NewServer(smtp.BackendFunc(func(conn *smtp.Conn) (smtp.Session, error) {
		return &session{box: b, conn: conn, known: c.Username == ""}, nil
	}))
	s.Domain, s.TLSConfig = "mailbox", c.TLS
	s.ReadTimeout, s.WriteTimeout, s.MaxMessageBytes, s.MaxRecipients = timeout, timeout, maxSize, 10
	s.ErrorLog = log.New(io.Discard, "", 0)
	b.server = s
	return b
}

// Serve takes connections until Close.
func (b *Mailbox) Serve(l net.Listener) error {
	if err := b.server.Serve(l); !errors.Is(err, smtp.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends Serve and every connection.
func (b *Mailbox) Close() error { return b.server.Close() }

// Mails returns what is kept, the oldest first.
func (b *Mailbox) Mails() []Mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.mails)
}

func (b *Mailbox) take(m Mail) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mails = append(b.mails, m)
	if len(b.mails) > keep {
		b.mails = slices.Delete(b.mails, 0, len(b.mails)-keep)
	}
}

// session is one connection.
type session struct {
	box   *Mailbox
	conn  *smtp.Conn
	known bool
	from  string
	to    []string
}

// AuthMechanisms implements smtp.AuthSession.
func (s *session) AuthMechanisms() []string {
	if s.box.config.Username == "" {
		return nil
	}
	return []string{sasl.Plain}
}

// Auth implements smtp.AuthSession.
func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, password string) error {
		given, want := []byte(username+"\x00"+password), []byte(s.box.config.Username+"\x00"+s.box.config.Password)
		if subtle.ConstantTimeCompare(given, want) != 1 {
			return smtp.ErrAuthFailed
		}
		s.known = true
		return nil
	}), nil
}

// Mail implements smtp.Session.
func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if !s.known {
		return smtp.ErrAuthRequired
	}
	s.from = from
	return nil
}

// Rcpt implements smtp.Session.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if refuse := s.box.config.Refuse; refuse != nil {
		if code := refuse(to); code != 0 {
			return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 1, 1}, Message: "no mailbox for <" + to + ">"}
		}
	}
	s.to = append(s.to, to)
	return nil
}

// Data implements smtp.Session.
func (s *session) Data(r io.Reader) error {
	m, err := parse(r)
	if err != nil {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "the mail cannot be read"}
	}
	_, m.Encrypted = s.conn.TLSConnectionState()
	m.From, m.To, m.At = s.from, slices.Clone(s.to), time.Now()
	s.box.take(m)
	return nil
}

// Reset implements smtp.Session.
func (s *session) Reset() { s.from, s.to = "", nil }

// Logout implements smtp.Session.
func (s *session) Logout() error { return nil }

// parse reads a mail with a text and an HTML part.
func parse(r io.Reader) (m Mail, err error) {
	raw, err := io.ReadAll(r)
	if err != nil {
		return m, err
	}
	message, err := netmail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return m, err
	}
	m.Header = message.Header
	if m.Subject, err = new(mime.WordDecoder).DecodeHeader(message.Header.Get("Subject")); err != nil {
		return m, err
	}
	kind, params, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
	if err != nil {
		return m, err
	}
	if !strings.HasPrefix(kind, "multipart/") {
		return m, fmt.Errorf("a mail of the kind %q has no parts", kind)
	}
	parts := multipart.NewReader(message.Body, params["boundary"])
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return m, nil
		}
		if err != nil {
			return m, err
		}
		body, err := io.ReadAll(part)
		if err != nil {
			return m, err
		}
		switch kind, _, _ := mime.ParseMediaType(part.Header.Get("Content-Type")); kind {
		case "text/plain":
			m.Text = strings.ReplaceAll(string(body), "\r\n", "\n")
		case "text/html":
			m.HTML = string(body)
		}
	}
}
