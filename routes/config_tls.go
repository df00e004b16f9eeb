package routes

import (
	"net/netip"
	"time"
)

// TLS is how a listener's connections are encrypted. In the file it is a
// mapping, a list of certificates, or the word "terminated".
type TLS struct {
	Pos Pos `yaml:"-"`
	// Terminated says that a balancer of trusted_proxies did it.
	Terminated bool `yaml:"terminated"`
	// ClientCertHeader believes the Client-Cert field (RFC 9440) of the
	// balancer that terminated TLS.
	ClientCertHeader bool `yaml:"client_cert_header"`
	// Cert and Key are the first of Certificates once loaded.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
	// Certificates are chosen by the name that the client asks for; the first
	// one is for all others.
	Certificates []Certificate `yaml:"certificates"`
	ACME         *ACME         `yaml:"acme"` // further certificates
	// ClientCA is a PEM file of the CAs whose clients are believed; empty: no
	// certificate is asked for.
	ClientCA   string `yaml:"client_ca"`
	ClientAuth string `yaml:"client_auth"` // require (default) | request
	MinVersion string `yaml:"min_version"` // 1.2 (default) | 1.3
}

// Certificate is a chain with its key. Both are PEM files, here relative to
// the working folder: Load has put the folder of the naming file before them.
type Certificate struct {
	Pos  Pos    `yaml:"-"`
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// ACME has certificates issued by an ACME server (RFC 8555).
type ACME struct {
	Pos     Pos      `yaml:"-"`
	Domains []string `yaml:"domains"`
	Email   string   `yaml:"email"`
	// Directory is the URL of the server's directory; default Let's Encrypt.
	Directory string `yaml:"directory"`
	// Storage is the folder of account and certificates; default: gatehouse/acme
	// in the user's state folder.
	Storage string `yaml:"storage"`
	// CA is a PEM file of the CAs that may certify the directory itself;
	// default: the system's.
	CA string `yaml:"ca"`
}

// ProxyProtocol is for a listener whose balancer tells the client's address in
// a PROXY protocol header.
type ProxyProtocol struct {
	Pos Pos `yaml:"-"`
	// Trusted are the balancers; they must send a header.
	Trusted []netip.Prefix `yaml:"trusted"`
	Timeout time.Duration  `yaml:"timeout"` // default 5s: until the header is there
}

// ServiceTLS is how instances of a service that is called over TLS are told from
// others, and what they are shown.
type ServiceTLS struct {
	Pos Pos `yaml:"-"`
	// CA is a PEM file of the CAs that may certify instances; default: the
	// system's.
	CA string `yaml:"ca"`
	// ServerName is the name that certificates must have; default: the host of
	// the targets, or the name in Consul.
	ServerName string `yaml:"server_name"`
	// Cert and Key are the client certificate that instances are shown; empty:
	// none.
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}
