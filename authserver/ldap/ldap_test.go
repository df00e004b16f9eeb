package ldap

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

const people = `dn: dc=example,dc=com
objectClass: organization
objectClass: dcObject
o: Example
dc: example

dn: ou=people,dc=example,dc=com
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example,dc=com
objectClass: organizationalUnit
ou: groups

dn: uid=alice,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: alice
cn: Alice A
sn: A
mail: alice@example.com
userPassword: alice's password

dn: uid=b*b,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: b*b
cn: Bob
sn: B
userPassword: bob's password

dn: uid=gone,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: gone
cn: Gone
sn: G
employeeType: disabled
userPassword: gone's password

dn: cn=admins,ou=groups,dc=example,dc=com
objectClass: groupOfNames
cn: admins
member: uid=alice,ou=people,dc=example,dc=com

dn: cn=staff,ou=groups,dc=example,dc=com
objectClass: groupOfNames
cn: staff
member: uid=alice,ou=people,dc=example,dc=com
member: uid=b*b,ou=people,dc=example,dc=com
`

func config(urls ...string) Config {
	return Config{
		URLs: urls, BindDN: "cn=admin,dc=example,dc=com", BindPassword: "admin", Base: "ou=people,dc=example,dc=com",
		Filter: "(&(uid={name})(!(employeeType=disabled)))", ID: "entryUUID", Name: "uid", Email: "mail", DisplayName: "cn",
		GroupBase: "ou=groups,dc=example,dc=com", GroupFilter: "(member={dn})", GroupName: "cn",
		Roles: map[string][]string{"admins": {"admin", "user"}, "staff": {"user"}}, Timeout: 5 * time.Second, Connections: 2,
	}
}

func open(t *testing.T, c Config) *Directory {
	t.Helper()
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestPeopleSignInWithTheirPasswordsOnly(t *testing.T) {
	server := servers.LDAP(t, people)
	d := open(t, config("ldap://"+server.Addr))
	alice, err := d.Authenticate(t.Context(), "alice", "alice's password")
	if err != nil {
		t.Fatal(err)
	}
	if alice.ID == "" || alice.Provider != "ldap" || alice.Name != "alice" || alice.Email != "alice@example.com" || alice.DisplayName != "Alice A" ||
		fmt.Sprint(alice.Groups, alice.Roles) != "[admins staff] [admin user]" {
		t.Errorf("%+v", alice)
	}
	if again, err := d.Authenticate(t.Context(), "ALICE", "alice's password"); err != nil || again.ID != alice.ID {
		t.Errorf("the same person, %+v, %v", again, err)
	}
	if bob, err := d.Authenticate(t.Context(), "b*b", "bob's password"); err != nil || fmt.Sprint(bob.Roles) != "[user]" || bob.ID == alice.ID {
		t.Errorf("%+v, %v", bob, err)
	}
	for name, password := range map[string]string{
		"alice": "wrong", "nobody": "alice's password", "gone": "gone's password", "": "x", "*": "alice's password", "a*": "alice's password",
		"alice)(uid=*": "alice's password", "alice\x00": "alice's password", "b?b": "bob's password",
	} {
		if p, err := d.Authenticate(t.Context(), name, password); !errors.Is(err, users.ErrCredentials) {
			t.Errorf("%q with %q: %+v, %v", name, password, p, err)
		}
	}
	// No password would be an anonymous bind, which servers accept.
	if _, err := d.Authenticate(t.Context(), "alice", ""); !errors.Is(err, users.ErrCredentials) {
		t.Errorf("no password: %v", err)
	}
}

func TestSecondServerAnswersWhenTheFirstDoesNot(t *testing.T) {
	server := servers.LDAP(t, people)
	d := open(t, config("ldap://127.0.0.1:1", "ldap://"+server.Addr))
	for range 2 {
		if _, err := d.Authenticate(t.Context(), "alice", "alice's password"); err != nil {
			t.Fatal(err)
		}
	}
	if d.first.Load() != 1 {
		t.Error("the server that works is not asked first")
	}
	server.Stop()
	if _, err := d.Authenticate(t.Context(), "alice", "alice's password"); err == nil || errors.Is(err, users.ErrCredentials) ||
		!strings.Contains(err.Error(), "does not answer") || strings.Contains(err.Error(), "alice's") {
		t.Errorf("an outage: %v", err)
	}
	server.Restart()
	if _, err := d.Authenticate(t.Context(), "alice", "alice's password"); err != nil {
		t.Errorf("after the outage: %v", err)
	}
}

func TestHangingServerIsGivenUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := config("ldap://" + l.Addr().String())
	c.Timeout, c.Connections = 200*time.Millisecond, 1
	d := open(t, c)
	if _, err := d.Authenticate(t.Context(), "alice", "x"); err == nil || errors.Is(err, users.ErrCredentials) {
		t.Errorf("a hanging server: %v", err)
	}
	// Whoever waits for a connection waits no longer than asked.
	d.slots <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := d.Authenticate(ctx, "alice", "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no free connection: %v", err)
	}
}

func TestWrongSettingsAreNoWrongPasswords(t *testing.T) {
	server := servers.LDAP(t, people)
	for name, change := range map[string]func(*Config){
		"another bind password": func(c *Config) { c.BindPassword = "nonsense" },
		"an id nobody has":      func(c *Config) { c.ID = "employeeNumber" },
		"a filter for many":     func(c *Config) { c.Filter = "(|(uid={name})(uid=*))" },
		"groups nowhere":        func(c *Config) { c.GroupBase = "ou=nowhere,dc=example,dc=com" },
		"no encryption there":   func(c *Config) { c.StartTLS = true },
	} {
		c := config("ldap://" + server.Addr)
		change(&c)
		if _, err := open(t, c).Authenticate(t.Context(), "alice", "alice's password"); err == nil || errors.Is(err, users.ErrCredentials) || strings.Contains(err.Error(), "nonsense") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, filter := range []string{"uid={name}", "(uid={name}", "(&)(", "(uid={name}))"} {
		if _, err := New(Config{URLs: []string{"ldaps://x"}, Base: "dc=x", Filter: filter}); err == nil {
			t.Errorf("filter %q is accepted", filter)
		}
	}
}

func TestPersonWhoIsGoneIsNotHeld(t *testing.T) {
	server := servers.LDAP(t, people)
	d := open(t, config("ldap://"+server.Addr))
	holds := func(id string) bool {
		t.Helper()
		held, err := d.Holds(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	alice, err := d.Authenticate(t.Context(), "alice", "alice's password")
	if err != nil {
		t.Fatal(err)
	}
	bob, err := d.Authenticate(t.Context(), "b*b", "bob's password")
	if err != nil {
		t.Fatal(err)
	}
	if !holds(alice.ID) || !holds(bob.ID) {
		t.Error("who is there is not held")
	}
	for _, id := range []string{"", "*", "nobody", "00000000-0000-0000-0000-000000000000", alice.ID + ")(uid=*", "0a0b"} {
		if holds(id) {
			t.Errorf("%q is held", id)
		}
	}
	admin, err := goldap.DialURL("ldap://" + server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	disable := goldap.NewModifyRequest("uid=alice,ou=people,dc=example,dc=com", nil)
	disable.Replace("employeeType", []string{"disabled"})
	if err := errors.Join(admin.Bind("cn=admin,dc=example,dc=com", "admin"), admin.Modify(disable),
		admin.ModifyDN(goldap.NewModifyDNRequest("uid=b*b,ou=people,dc=example,dc=com", "uid=robert", true, ""))); err != nil {
		t.Fatal(err)
	}
	if holds(alice.ID) {
		t.Error("who is disabled is held")
	}
	if !holds(bob.ID) {
		t.Error("who has another name now is not held")
	}
	if err := admin.Del(goldap.NewDelRequest("uid=robert,ou=people,dc=example,dc=com", nil)); err != nil {
		t.Fatal(err)
	}
	if holds(bob.ID) {
		t.Error("who was removed is held")
	}
	server.Stop()
	if _, err := d.Holds(t.Context(), alice.ID); err == nil {
		t.Error("a directory that is away said something")
	}
}

// between passes connections on to a server, and counts and cuts them.
type between struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
	count int
}

func (b *between) serve(addr string) {
	for {
		in, err := b.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", addr)
		if err != nil {
			in.Close()
			continue
		}
		b.mu.Lock()
		b.conns, b.count = append(b.conns, in, out), b.count+1
		b.mu.Unlock()
		go func() { _, _ = io.Copy(out, in); out.Close() }()
		go func() { _, _ = io.Copy(in, out); in.Close() }()
	}
}

func (b *between) cut() (count int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Close()
	}
	b.conns = nil
	return b.count
}

func TestConnectionsAreKeptAndReplaced(t *testing.T) {
	server := servers.LDAP(t, people)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &between{Listener: l}
	go b.serve(server.Addr)
	defer b.cut()
	defer l.Close()
	d := open(t, config("ldap://"+l.Addr().String()))
	ask := func() {
		t.Helper()
		// Whoever signed in before, the next search is the account's, not theirs.
		for _, password := range []string{"alice's password", "wrong", "alice's password"} {
			_, err := d.Authenticate(t.Context(), "alice", password)
			if want := password == "wrong"; want != errors.Is(err, users.ErrCredentials) || !want && err != nil {
				t.Fatalf("%q: %v", password, err)
			}
		}
		if held, err := d.Holds(t.Context(), "nobody"); held || err != nil {
			t.Fatal(held, err)
		}
	}
	ask()
	ask()
	if n := b.cut(); n != 1 {
		t.Errorf("%d connections for eight questions", n)
	}
	ask() // what is cut is replaced, and nobody notices
	if n := b.cut(); n != 2 {
		t.Errorf("%d connections after one was cut", n)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// pair is a certificate for 127.0.0.1 and its key, as files.
func pair(t *testing.T) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.ParseIP("127.0.0.1")},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(parsed)
	return cert, key, roots
}

func TestConnectionsAreEncryptedToTheRightServer(t *testing.T) {
	cert, key, roots := pair(t)
	server := servers.LDAP(t, people, "TLSCertificateFile "+cert, "TLSCertificateKeyFile "+key)
	c := config("ldap://" + server.Addr)
	c.StartTLS, c.Roots = true, roots
	if _, err := open(t, c).Authenticate(t.Context(), "alice", "alice's password"); err != nil {
		t.Error(err)
	}
	encrypted := servers.LDAPS(t, people, "TLSCertificateFile "+cert, "TLSCertificateKeyFile "+key)
	other := config("ldaps://" + encrypted.Addr)
	other.Roots = roots
	if _, err := open(t, other).Authenticate(t.Context(), "alice", "alice's password"); err != nil {
		t.Error(err)
	}
	other.URLs = []string{"ldaps://localhost:" + encrypted.Addr[strings.LastIndexByte(encrypted.Addr, ':')+1:]}
	if _, err := open(t, other).Authenticate(t.Context(), "alice", "alice's password"); err == nil {
		t.Error("a certificate of another name was believed")
	}
	_, _, other.Roots = pair(t)
	other.URLs = []string{"ldaps://" + encrypted.Addr}
	if _, err := open(t, other).Authenticate(t.Context(), "alice", "alice's password"); err == nil {
		t.Error("a server of another authority was believed")
	}
	_, _, c.Roots = pair(t)
	if _, err := open(t, c).Authenticate(t.Context(), "alice", "alice's password"); err == nil {
		t.Error("a server with another's certificate was believed")
	}
}

// FuzzNamesAreValuesOnly: whatever is typed, the filter compares one attribute
// with it.
func FuzzNamesAreValuesOnly(f *testing.F) {
	for _, s := range []string{"alice", "*", "a)(uid=*", "\\", "\x00", "ü", "{dn}", "{name}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		packet, err := goldap.CompileFilter(fill("(uid={name})", name, "cn=x"))
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if packet.Tag != goldap.FilterEqualityMatch || len(packet.Children) != 2 || packet.Children[1].Data.String() != name {
			t.Errorf("%q became another filter", name)
		}
	})
}
