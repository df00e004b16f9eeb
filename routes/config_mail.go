package routes

import "time"

// Mailing is what goes by e-mail. Without SMTP nothing does.
type Mailing struct {
	SMTP              *SMTP             `yaml:"smtp"`
	EmailVerification EmailVerification `yaml:"email_verification"`
	PasswordReset     PasswordReset     `yaml:"password_reset"`
	Registration      Registration      `yaml:"registration"`
}

// SMTP is the server that takes mail.
type SMTP struct {
	Pos      Pos           `yaml:"-"`
	Address  string        `yaml:"address"` // host:port
	From     string        `yaml:"from"`    // no-reply@example.com, or Example <no-reply@example.com>
	Username string        `yaml:"username"`
	Password Secret        `yaml:"password"`
	TLS      string        `yaml:"tls"`     // starttls (default) | implicit | none
	CA       string        `yaml:"ca"`      // file; default: the system's
	Timeout  time.Duration `yaml:"timeout"` // default 10s
}

// EmailVerification is about links that confirm an address.
type EmailVerification struct {
	TTL time.Duration `yaml:"ttl"` // default 24h
}

// PasswordReset is about links with which people set a new password.
type PasswordReset struct {
	Enabled bool          `yaml:"enabled"` // default true, with SMTP
	TTL     time.Duration `yaml:"ttl"`     // default 20m, 15m…30m
}

// Registration lets people make themselves accounts.
type Registration struct {
	Enabled        bool     `yaml:"enabled"`
	AllowedDomains []string `yaml:"allowed_domains"` // default: all
}
