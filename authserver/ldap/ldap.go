// Package ldap lets people sign in with the passwords of an LDAP directory.
//
// It owns the questions that the directory is asked: who has this name (a
// search under an account of our own), in which groups is that entry, and is
// this its password (a bind as the entry). It does not own which users those
// people are here, nor limits on guessing (users).
//
//	d, err := ldap.New(ldap.Config{URLs: []string{"ldaps://ldap.example.com"}, Base: "ou=people,dc=example,dc=com", …})
//	person, err := d.Authenticate(ctx, "alice", password)
package ldap

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/gatehouse/gatehouse/authserver/users"
)

// Provider is the name under which identities of the directory are stored.
const Provider = "ldap"

// Config says where the directory is and what is where in it.
type Config struct {
	// URLs are ldaps:// or ldap://; the first one that answers is asked.
	URLs []string
	// Roots verify the servers; nil: the system's.
	Roots *x509.CertPool
	// StartTLS encrypts connections of ldap:// URLs before anything is said.
	StartTLS bool
	// BindDN and BindPassword are the account that searches; empty: nobody's.
	BindDN, BindPassword string
	// Base and Filter find a person; {name} in Filter is what was typed.
	Base, Filter string
	// Attributes of a person's entry. ID never changes; the others may be empty.
	ID, Name, Email, DisplayName string
	// MemberOf is an attribute of a person with its groups, as names or DNs.
	MemberOf string
	// GroupBase and GroupFilter find groups; {dn} and {name} in the filter are
	// the person's. GroupName is the attribute with a group's name.
	GroupBase, GroupFilter, GroupName string
	// Roles are those that members of a group have, by the group's name.
	Roles map[string][]string
	// Timeout bounds each answer of a server, Connections how many there are at
	// once.
	Timeout     time.Duration
	Connections int
}

// Directory implements users.Directory. It is safe for concurrent use.
type Directory struct {
	Config
	slots chan struct{}
	first atomic.Int64 // the server that answered last

	mu     sync.Mutex
	idle   []kept // the one that was used last at the end
	closed bool
}

// New returns a directory. It does not connect.
func New(c Config) (*Directory, error) {
	if len(c.URLs) == 0 || c.Base == "" {
		return nil, errors.New("ldap: a URL and a base are needed")
	}
	for _, filter := range []string{c.Filter, c.GroupFilter} {
		if filter == "" {
			continue
		}
		if err := CheckFilter(filter); err != nil {
			return nil, err
		}
	}
	return &Directory{Config: c, slots: make(chan struct{}, max(1, c.Connections))}, nil
}

// CheckFilter reports a filter that is none.
func CheckFilter(filter string) error {
	if _, err := goldap.CompileFilter(fill(filter, "a", "cn=a")); err != nil {
		return fmt.Errorf("ldap: the filter %q is not one (RFC 4515)", filter)
	}
	return nil
}

// fill puts a name and a DN into a filter. Escaped, they cannot be more than
// values in it.
func fill(filter, name, dn string) string {
	return strings.NewReplacer("{name}", goldap.EscapeFilter(name), "{dn}", goldap.EscapeFilter(dn)).Replace(filter)
}

// Authenticate implements users.Directory. For a name that nobody has it asks
// the same questions about an entry that does not exist, so that it takes as
// long.
func (d *Directory) Authenticate(ctx context.Context, name, password string) (users.Person, error) {
	if password == "" { // it would be an anonymous bind, which succeeds (RFC 4513, 5.1.2)
		return users.Person{}, users.ErrCredentials
	}
	var p users.Person
	err := d.with(ctx, func(conn *goldap.Conn) (clean bool, err error) {
		entry, known, err := d.find(conn, name)
		if err != nil {
			return true, err
		}
		groups, err := d.groups(conn, entry, name)
		if err != nil {
			return true, err
		}
		switch err := conn.Bind(entry.DN, password); {
		case err != nil && refused(err), err == nil && !known:
			return false, users.ErrCredentials
		case err != nil:
			return false, fmt.Errorf("ask the directory for a password: %w", explained(err))
		}
		p, err = d.person(entry, groups)
		return false, err
	})
	return p, err
}

// Provider implements users.Directory.
func (d *Directory) Provider() string { return Provider }

// Holds implements users.Directory: it looks for the entry of an id that the
// filter lets through, whatever its name is.
func (d *Directory) Holds(ctx context.Context, id string) (held bool, err error) {
	same := "(" + d.ID + "=" + goldap.EscapeFilter(id) + ")"
	if raw, err := hex.DecodeString(id); err == nil { // see person
		same = "(|" + same + "(" + d.ID + "=" + escapeAll(raw) + "))"
	}
	filter := "(&" + strings.ReplaceAll(d.Filter, "{name}", "*") + same + ")"
	err = d.with(ctx, func(conn *goldap.Conn) (clean bool, err error) {
		result, err := conn.Search(goldap.NewSearchRequest(d.Base, goldap.ScopeWholeSubtree, goldap.NeverDerefAliases, 1,
			int(d.Timeout.Seconds()+0.5), false, filter, []string{"1.1"}, nil)) // no attributes (RFC 4511, 4.5.1.8)
		switch {
		case goldap.IsErrorWithCode(err, goldap.LDAPResultNoSuchObject):
			return true, nil
		case goldap.IsErrorWithCode(err, goldap.LDAPResultSizeLimitExceeded):
			held = true
			return true, nil
		case err != nil:
			return true, fmt.Errorf("search the directory: %w", explained(err))
		}
		held = len(result.Entries) > 0
		return true, nil
	})
	return held, err
}

// escapeAll writes each byte as a filter has those that are no text (RFC 4515, 3).
func escapeAll(raw []byte) string {
	var b strings.Builder
	for _, c := range raw {
		fmt.Fprintf(&b, `\%02x`, c)
	}
	return b.String()
}

// connect opens a connection to the first server that works, and binds as the
// account that searches.
func (d *Directory) connect(ctx context.Context) (*goldap.Conn, error) {
	var problems []error
	first := int(d.first.Load())
	for i := range d.URLs {
		n := (first + i) % len(d.URLs)
		conn, err := d.dial(ctx, d.URLs[n])
		if err == nil {
			d.first.Store(int64(n))
			return conn, nil
		}
		problems = append(problems, fmt.Errorf("%s: %w", d.URLs[n], err))
	}
	return nil, fmt.Errorf("the directory does not answer: %w", errors.Join(problems...))
}

func (d *Directory) dial(ctx context.Context, url string) (*goldap.Conn, error) {
	dialer := &net.Dialer{Timeout: d.Timeout}
	if deadline, ok := ctx.Deadline(); ok {
		dialer.Deadline = deadline
	}
	config := &tls.Config{RootCAs: d.Roots, MinVersion: tls.VersionTLS12}
	conn, err := goldap.DialURL(url, goldap.DialWithDialer(dialer), goldap.DialWithTLSConfig(config))
	if err != nil {
		return nil, explained(err)
	}
	conn.SetTimeout(d.Timeout)
	if d.StartTLS && strings.HasPrefix(url, "ldap:") {
		config.ServerName = hostOf(url)
		if err := conn.StartTLS(config); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("encrypt the connection: %w", explained(err))
		}
	}
	if d.BindDN == "" {
		return conn, nil
	}
	if err := d.bind(conn); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("sign in as bind_dn: %w", explained(err))
	}
	return conn, nil
}

func hostOf(url string) string {
	host := strings.TrimSuffix(strings.TrimPrefix(url, "ldap://"), "/")
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return host
}

// find searches the entry of a name. Where there is none it returns one that
// does not exist.
func (d *Directory) find(conn *goldap.Conn, name string) (entry *goldap.Entry, known bool, err error) {
	nobody := &goldap.Entry{DN: "cn=" + rand.Text() + "," + d.Base}
	attributes := slices.DeleteFunc([]string{d.ID, d.Name, d.Email, d.DisplayName, d.MemberOf}, func(a string) bool { return a == "" })
	// Two are enough to know that there is more than one.
	result, err := conn.Search(goldap.NewSearchRequest(d.Base, goldap.ScopeWholeSubtree, goldap.NeverDerefAliases, 2,
		int(d.Timeout.Seconds()+0.5), false, fill(d.Filter, name, ""), attributes, nil))
	switch {
	case goldap.IsErrorWithCode(err, goldap.LDAPResultNoSuchObject):
		return nobody, false, nil
	case err != nil && !goldap.IsErrorWithCode(err, goldap.LDAPResultSizeLimitExceeded):
		return nil, false, fmt.Errorf("search the directory: %w", explained(err))
	case len(result.Entries) == 0:
		return nobody, false, nil
	case len(result.Entries) > 1:
		return nil, false, errors.New("the directory has more than one entry for a name: make the filter narrower")
	}
	return result.Entries[0], true, nil
}

// groups returns the names of the groups of an entry.
func (d *Directory) groups(conn *goldap.Conn, entry *goldap.Entry, name string) (groups []string, err error) {
	if d.MemberOf != "" {
		for _, value := range entry.GetEqualFoldAttributeValues(d.MemberOf) {
			groups = append(groups, groupName(value))
		}
	}
	if d.GroupBase == "" {
		return groups, nil
	}
	result, err := conn.Search(goldap.NewSearchRequest(d.GroupBase, goldap.ScopeWholeSubtree, goldap.NeverDerefAliases, 1000,
		int(d.Timeout.Seconds()+0.5), false, fill(d.GroupFilter, name, entry.DN), []string{d.GroupName}, nil))
	if err != nil {
		return nil, fmt.Errorf("search the directory's groups: %w", explained(err))
	}
	for _, g := range result.Entries {
		groups = append(groups, g.GetEqualFoldAttributeValues(d.GroupName)...)
	}
	return groups, nil
}

// groupName is the first part of a DN, or the value where it is none.
func groupName(value string) string {
	dn, err := goldap.ParseDN(value)
	if err != nil || len(dn.RDNs) == 0 || len(dn.RDNs[0].Attributes) == 0 {
		return value
	}
	return dn.RDNs[0].Attributes[0].Value
}

func (d *Directory) person(entry *goldap.Entry, groups []string) (users.Person, error) {
	get := func(attribute string) string {
		if attribute == "" {
			return ""
		}
		return entry.GetEqualFoldAttributeValue(attribute)
	}
	p := users.Person{
		Provider: Provider, Name: get(d.Name), Email: get(d.Email), DisplayName: get(d.DisplayName),
		EmailVerified: get(d.Email) != "", Groups: groups,
	}
	id := entry.GetEqualFoldRawAttributeValue(d.ID)
	if len(id) == 0 {
		return p, fmt.Errorf("an entry of the directory has no %s, which tells people apart", d.ID)
	}
	if p.ID = string(id); !utf8.Valid(id) || strings.ContainsFunc(p.ID, func(r rune) bool { return r < ' ' }) {
		p.ID = hex.EncodeToString(id) // objectGUID of Active Directory
	}
	for _, g := range groups {
		p.Roles = append(p.Roles, d.Roles[g]...)
	}
	for _, list := range []*[]string{&p.Roles, &p.Groups} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return p, nil
}

// refused tells that a server judged a password, or the account's state, and
// said no.
func refused(err error) bool {
	return goldap.IsErrorAnyOf(err, goldap.LDAPResultInvalidCredentials, goldap.LDAPResultNoSuchObject,
		goldap.LDAPResultInappropriateAuthentication, goldap.LDAPResultInsufficientAccessRights,
		goldap.LDAPResultUnwillingToPerform, goldap.LDAPResultConstraintViolation)
}

// explained leaves out what a server's message may quote.
func explained(err error) error {
	var e *goldap.Error
	if errors.As(err, &e) && e.ResultCode < goldap.ErrorNetwork {
		return fmt.Errorf("LDAP result %d (%s)", e.ResultCode, goldap.LDAPResultCodeMap[e.ResultCode])
	}
	return err
}
