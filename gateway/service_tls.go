package gateway

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"os"

	"github.com/gatehouse/gatehouse/gateway/certs"
	"github.com/gatehouse/gatehouse/routes"
)

// serviceTLS is how a service's instances are told from others, and a digest
// of everything that it was made from; nil for a plaintext service. The name
// and the chain are always verified.
func serviceTLS(s *routes.Service) (c *tls.Config, sum string, err error) {
	if !s.Encrypted() {
		return nil, "", nil
	}
	c = certs.ClientConfig()
	c.ServerName = serverName(s)
	t := s.TLS
	if t == nil {
		return c, c.ServerName, nil
	}
	if t.ServerName != "" {
		c.ServerName = t.ServerName
	}
	digest := sha256.New()
	fail := func(err error) (*tls.Config, string, error) {
		return nil, "", routes.Problems{{Pos: t.Pos, Message: fmt.Sprintf("service %q: tls: %v", s.Name, err)}}
	}
	read := func(path string) []byte {
		content, e := os.ReadFile(path)
		err = errors.Join(err, e)
		digest.Write(content)
		digest.Write([]byte{0})
		return content
	}
	if t.CA != "" {
		content := read(t.CA)
		if err != nil {
			return fail(err)
		}
		if c.RootCAs, err = certs.ParseCAs(content); err != nil {
			return fail(fmt.Errorf("ca: %s: %w", t.CA, err))
		}
	}
	if t.Cert != "" {
		cert, key := read(t.Cert), read(t.Key)
		if err != nil {
			return fail(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return fail(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, fmt.Sprintf("%s %x", c.ServerName, digest.Sum(nil)), nil
}

// checkServices tries the files of the services that routes use.
func checkServices(file *routes.File) error {
	var errs []error
	seen := map[*routes.Service]bool{}
	for _, r := range file.Routes {
		if r.Upstream == nil || seen[r.Upstream] {
			continue
		}
		seen[r.Upstream] = true
		_, _, err := serviceTLS(r.Upstream)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
