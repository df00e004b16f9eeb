package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"
)

// How a connection to an SMTP server is encrypted.
const (
	StartTLS = "starttls" // RFC 3207, and never without
	Implicit = "implicit" // RFC 8314, 3.3
	Plain    = "none"
)

// SMTPConfig is how an SMTP server is reached.
type SMTPConfig struct {
	Address string // host:port
	// From is the sender, with or without a name.
	From string
	// Username and Password, if the server wants any; never sent in the open.
	Username, Password string
	TLS                string
	// Roots are who signs the server's certificate; nil: the system's.
	Roots *x509.CertPool
	// Timeout bounds each step.
	Timeout time.Duration
}

// SMTP is a Sender that hands messages to a server, one connection each.
type SMTP struct {
	client *gomail.Client
	from   string
	domain string
}

// NewSMTP checks the configuration. Whether the server answers is seen when
// something is sent.
func NewSMTP(c SMTPConfig) (*SMTP, error) {
	host, port, err := net.SplitHostPort(c.Address)
	if err != nil {
		return nil, fmt.Errorf("smtp: address: %w", err)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("smtp: address: %q is not a port", port)
	}
	from, err := netmail.ParseAddress(c.From)
	if err != nil {
		return nil, fmt.Errorf("smtp: from: %w", err)
	}
	options := []gomail.Option{
		gomail.WithPort(int(number)), gomail.WithTimeout(c.Timeout), gomail.WithoutNoop(),
		gomail.WithTLSConfig(&tls.Config{ServerName: host, RootCAs: c.Roots, MinVersion: tls.VersionTLS12}),
	}
	switch c.TLS {
	case StartTLS:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	case Implicit:
		options = append(options, gomail.WithSSL())
	case Plain:
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		return nil, fmt.Errorf("smtp: tls: %q is none of starttls, implicit, none", c.TLS)
	}
	if c.Username != "" {
		options = append(options, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover), gomail.WithUsername(c.Username), gomail.WithPassword(c.Password))
	}
	client, err := gomail.NewClient(host, options...)
	if err != nil {
		return nil, fmt.Errorf("smtp: %w", err)
	}
	_, domain, _ := strings.Cut(from.Address, "@")
	return &SMTP{client: client, from: from.String(), domain: domain}, nil
}

// Send implements Sender. It takes a few timeouts at most.
func (s *SMTP) Send(ctx context.Context, m Message) error {
	letter, err := s.letter(m)
	if err != nil {
		return err
	}
	connection, err := s.client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return failure("connect", err)
	}
	// What the server says to a farewell changes nothing.
	defer func() { _ = s.client.CloseWithSMTPClient(connection) }()
	return failure("send", s.client.SendWithSMTPClient(connection, letter))
}

func (s *SMTP) letter(m Message) (*gomail.Msg, error) {
	l := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if err := l.From(s.from); err != nil {
		return nil, &RefusedError{"the sender is no address"}
	}
	if err := l.To(m.To); err != nil {
		return nil, &RefusedError{"the receiver is no address"}
	}
	l.Subject(m.Subject)
	l.SetDate()
	l.SetMessageIDWithValue(m.ID + "@" + s.domain)
	// RFC 3834, 5: nobody is to answer by a machine.
	l.SetGenHeader("Auto-Submitted", "auto-generated")
	l.SetBodyString(gomail.TypeTextPlain, m.Text)
	l.AddAlternativeString(gomail.TypeTextHTML, m.HTML)
	return l, nil
}

// failure is err without what a server says in words: it repeats addresses.
func failure(doing string, err error) error {
	if err == nil {
		return nil
	}
	var refusal *gomail.SendError
	if errors.As(err, &refusal) {
		code, reason := refusal.ErrorCode(), refusal.Reason
		text := fmt.Sprintf("%s: %d %s", reason, code, refusal.EnhancedStatusCode())
		if code >= 500 && (reason == gomail.ErrSMTPRcptTo || reason == gomail.ErrSMTPDataClose) {
			return &RefusedError{text}
		}
		return errors.New(text)
	}
	var answer *textproto.Error
	if errors.As(err, &answer) {
		return fmt.Errorf("%s: the mail server answered %d", doing, answer.Code)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
