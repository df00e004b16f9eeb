// Package fetch gets small documents from URLs that a client chose, without
// letting the client reach what only this server can reach (OWASP: server-side
// request forgery).
//
// It owns where such a request may go, how long it may take and how much it may
// bring. It does not own what is in the document, nor caching.
//
//	f := fetch.New(fetch.Config{})
//	body, header, err := f.Get(ctx, "https://client.example.com/jwks")
package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// timeout bounds a whole request, from the look-up of the name on.
	timeout = 3 * time.Second
	// most bounds a document.
	most = 64 << 10
)

// Config is what a Fetcher may do. The zero value allows https to public
// addresses.
type Config struct {
	// Networks are allowed besides public addresses. Where one of them holds a
	// loopback address, http is allowed to that address too.
	Networks []netip.Prefix
	// Roots verify servers; nil: the system's.
	Roots *x509.CertPool
}

// Fetcher gets documents. It is safe for concurrent use.
type Fetcher struct {
	networks []netip.Prefix
	client   *http.Client
}

// New returns a Fetcher.
func New(c Config) *Fetcher {
	f := &Fetcher{networks: c.Networks}
	// The address is judged where the socket is opened: a name may resolve to
	// something else between two look-ups.
	dialer := &net.Dialer{Timeout: timeout, ControlContext: f.control}
	f.client = &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			// No proxy: it would be the one to open the socket.
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 16 << 10,
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("redirects are not followed") },
	}
	return f
}

// Check reports what is wrong with a URL as far as its text tells: whether its
// name leads to an allowed address is known when it is fetched.
func (f *Fetcher) Check(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Opaque != "" {
		return errors.New("not an https URL")
	}
	host := u.Hostname()
	ip, ipErr := netip.ParseAddr(host)
	if ipErr == nil && !f.allowed(ip) {
		return errors.New("an address that is not public")
	}
	loopback := ipErr == nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
	if loopback && ipErr != nil && !f.allowed(netip.MustParseAddr("127.0.0.1")) {
		return errors.New("an address that is not public")
	}
	if u.Scheme != "https" && !(u.Scheme == "http" && loopback) {
		return errors.New("not an https URL")
	}
	return nil
}

// Get returns the document at a URL. Only status 200 counts.
func (f *Fetcher) Get(ctx context.Context, raw string) ([]byte, http.Header, error) {
	req, err := f.request(ctx, http.MethodGet, raw, nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Accept", "application/json")
	res, err := f.client.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("fetch %s: %w", raw, cause(err))
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("fetch %s: status %d", raw, res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	if err != nil {
		return nil, nil, fmt.Errorf("fetch %s: %w", raw, cause(err))
	}
	if len(body) > most {
		return nil, nil, fmt.Errorf("fetch %s: more than 64 KiB", raw)
	}
	return body, res.Header, nil
}

// Post sends a form and returns the status of the answer, whose content is
// dropped.
func (f *Fetcher) Post(ctx context.Context, raw string, form url.Values) (status int, err error) {
	req, err := f.request(ctx, http.MethodPost, raw, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := f.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("post to %s: %w", raw, cause(err))
	}
	return res.StatusCode, res.Body.Close()
}

func (f *Fetcher) request(ctx context.Context, method, raw string, body io.Reader) (*http.Request, error) {
	if err := f.Check(raw); err != nil {
		return nil, fmt.Errorf("%q is %w", raw, err)
	}
	return http.NewRequestWithContext(ctx, method, raw, body)
}

// cause takes the URL, which the caller names anyway, out of the error.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func (f *Fetcher) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !f.allowed(to.Addr()) {
		return errors.New("an address that is not public")
	}
	return nil
}

// special are the networks that no public service is in (RFC 6890), and those
// whose addresses hold another address that the network would send on to.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	"224.0.0.0/4", "240.0.0.0/4",
	"::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16",
	"fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)

func prefixes(list ...string) (all []netip.Prefix) {
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func (f *Fetcher) allowed(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	in := func(p netip.Prefix) bool { return p.Contains(ip) }
	return slices.ContainsFunc(f.networks, in) || !slices.ContainsFunc(special, in)
}
