package servers

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// LDAP starts a slapd with the entries of an LDIF under dc=example,dc=com. Its
// administrator is cn=admin,dc=example,dc=com with the password "admin". args
// are further lines of its configuration.
func LDAP(t testing.TB, ldif string, lines ...string) *Server {
	t.Helper()
	return slapd(t, "ldap", ldif, lines)
}

// LDAPS is LDAP with TLS from the first byte on, for which lines name the
// certificate.
func LDAPS(t testing.TB, ldif string, lines ...string) *Server {
	t.Helper()
	return slapd(t, "ldaps", ldif, lines)
}

func slapd(t testing.TB, scheme, ldif string, lines []string) *Server {
	t.Helper()
	path := "slapd"
	if _, err := exec.LookPath(path); err != nil {
		path = "/usr/sbin/slapd" // Debian's, which is not in everybody's PATH
	}
	binary := Need(t, "slapd", path)
	dir := t.TempDir()
	config, data := filepath.Join(dir, "slapd.conf"), filepath.Join(dir, "data.ldif")
	text := fmt.Sprintf(`include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
%s
database mdb
maxsize 10485760
suffix "dc=example,dc=com"
rootdn "cn=admin,dc=example,dc=com"
rootpw admin
directory %s
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
`, strings.Join(lines, "\n"), dir)
	for path, content := range map[string]string{config: text, data: ldif} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	load := exec.Command(binary, "-T", "add", "-f", config, "-l", data)
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("slapadd: %v\n%s", err, out)
	}
	return start(t, "slapd", func(port int) spec {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		return spec{
			binary: binary, args: []string{"-d", "0", "-f", config, "-h", scheme + "://" + addr + "/"}, dir: dir, stop: syscall.SIGTERM,
			ready: listens(addr),
		}
	})
}
