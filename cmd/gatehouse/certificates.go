package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse/gatehouse/gateway"
	"github.com/gatehouse/gatehouse/gateway/certs"
	"github.com/gatehouse/gatehouse/gateway/proxied"
	"github.com/gatehouse/gatehouse/gateway/server"
	"github.com/gatehouse/gatehouse/routes"
)

// secured is what stands before HTTP on the clients' listeners: those whose TLS
// ends here, in the order of the file, and those whose balancer tells the
// client's address.
type secured struct {
	proxied   []*proxied.Listener
	acme      map[*routes.TLS]*certs.ACME // by section of the first file
	tickets   *certs.Tickets
	listeners []*certs.Listener
	logger    *slog.Logger
}

func newSecured(file *routes.File, logger *slog.Logger) (*secured, error) {
	s := &secured{tickets: tickets(file), acme: map[*routes.TLS]*certs.ACME{}, logger: logger}
	httpPort := 0
	for _, l := range file.Listeners {
		if l.TLS == nil && httpPort == 0 {
			_, httpPort = hostPort(l.Address)
		}
	}
	for _, l := range file.Listeners {
		if l.TLS == nil || l.TLS.ACME == nil {
			continue
		}
		host, port := hostPort(l.Address)
		a, err := certs.NewACME(l.TLS.ACME, certs.ACMEConfig{
			Host: host, TLSPort: port, HTTPPort: httpPort, Now: time.Now,
			Report: func(domain string, err error) {
				logger.Error("certificate not obtained; it is tried again", "domain", domain, "error", err)
			},
		})
		if err != nil {
			s.close()
			return nil, err
		}
		s.acme[l.TLS] = a
	}
	return s, nil
}

// hostPort takes an address apart, of which Load has seen that it is one.
func hostPort(address string) (host string, port int) {
	host, text, _ := net.SplitHostPort(address)
	port, _ = strconv.Atoi(text)
	return host, port
}

func (s *secured) close() {
	for _, a := range s.acme {
		a.Close()
	}
}

// run obtains and renews certificates.
func (s *secured) run(start func(string, func(context.Context) error)) {
	for _, a := range s.acme {
		start("acme", a.Run)
	}
}

// locals answer the challenges that are made over HTTP.
func (s *secured) locals() (list []gateway.Local) {
	for _, a := range s.acme {
		list = append(list, gateway.Local{Owns: a.Owns, Handler: gateway.HTTP(a)})
	}
	return list
}

// tickets seals sessions with the secret of the file, else with one derived
// from the keys that all replicas have anyway.
func tickets(file *routes.File) *certs.Tickets {
	var secrets [][]byte
	for _, s := range file.Server.TicketSecret {
		secrets = append(secrets, []byte(s.Reveal()))
	}
	if len(secrets) == 0 && file.AuthServer != nil {
		for _, kek := range file.AuthServer.KeyEncryptionKey {
			// Load has seen that it decodes.
			if raw, err := base64.StdEncoding.DecodeString(kek.Reveal()); err == nil {
				secrets = append(secrets, raw)
			}
		}
	}
	return certs.NewTickets(secrets...)
}

// ownTLS are the sections whose handshakes are ours.
func ownTLS(file *routes.File) (list []*routes.TLS) {
	for _, l := range file.Listeners {
		if l.TLS != nil && !l.TLS.Terminated {
			list = append(list, l.TLS)
		}
	}
	return list
}

// open reads the files of a listener's section for the first time.
func (s *secured) open(t *routes.TLS) (*certs.Listener, error) {
	l, err := certs.New(t, certs.Config{Tickets: s.tickets, Protocols: []string{"h2", "http/1.1"}, ACME: s.acme[t], Now: time.Now})
	if err != nil {
		return nil, err
	}
	s.listeners = append(s.listeners, l)
	return l, nil
}

// behind makes ln a listener behind balancers.
func (s *secured) behind(ln net.Listener, p *routes.ProxyProtocol) net.Listener {
	l := proxied.Listen(ln, proxied.Config{Trusted: p.Trusted, Timeout: p.Timeout})
	s.proxied = append(s.proxied, l)
	return l
}

// check refuses what load could not do.
func (s *secured) check(file *routes.File) error {
	var errs []error
	for i, t := range ownTLS(file) {
		if i < len(s.listeners) {
			errs = append(errs, s.listeners[i].Check(t))
		}
	}
	return errors.Join(errs...)
}

// load reads all files again.
func (s *secured) load(file *routes.File) error {
	for i, t := range ownTLS(file) {
		if i >= len(s.listeners) {
			break
		}
		stale, err := s.listeners[i].Load(t)
		if err != nil {
			return err
		}
		for _, err := range stale {
			s.logger.Error("certificate not reloaded; the last good one stays", "error", err)
		}
	}
	return nil
}

// register exports when the certificates end.
func (s *secured) register(r *prometheus.Registry) {
	var (
		expiry = desc("gateway_tls_cert_expiry_timestamp_seconds", "When the certificate in use expires.", "name")
		failed = desc("gateway_acme_failures_total", "Failed attempts to obtain or renew a certificate by ACME.", "name")
		untold = desc("gateway_proxy_protocol_refused_total", "Connections of balancers without a PROXY protocol header.")
		stale  = desc("gateway_tls_cert_stale", "1 while the certificate's files hold something that cannot be used.", "name")
	)
	r.MustRegister(scrape{descs: []*prometheus.Desc{expiry, stale, failed, untold}, fill: func(add adder) {
		for name, c := range s.status() {
			add(expiry, gauge, float64(c.Expiry.Unix()), name)
			add(stale, gauge, truth(c.Stale), name)
		}
		failures := map[string]uint64{} // two listeners may have a domain
		for _, a := range s.acme {
			for name, n := range a.Failures() {
				failures[name] += n
			}
		}
		for name, n := range failures {
			add(failed, counter, float64(n), name)
		}
		refused := uint64(0)
		for _, l := range s.proxied {
			refused += l.Refused()
		}
		add(untold, counter, float64(refused))
	}})
}

// status is the worst certificate of each name: a name may be served by several
// listeners, or with keys of two kinds.
func (s *secured) status() map[string]certs.Status {
	worst := map[string]certs.Status{}
	for _, l := range s.listeners {
		for _, c := range l.Status() {
			if known, ok := worst[c.Name]; ok {
				c.Stale = c.Stale || known.Stale
				if known.Expiry.Before(c.Expiry) {
					c.Expiry = known.Expiry
				}
			}
			worst[c.Name] = c
		}
	}
	return worst
}

// checkCertificates reads every file that a TLS section names.
func checkCertificates(file *routes.File) error {
	var errs []error
	offline := certs.Config{Tickets: certs.NewTickets(), Now: time.Now}
	for _, t := range ownTLS(file) {
		_, err := certs.New(t, offline)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// transport tells the server about a listener.
func transport(t *routes.TLS) server.Transport {
	if t == nil {
		return server.Transport{}
	}
	return server.Transport{Encrypted: true, ClientCertTold: t.ClientCertHeader}
}

// transportName is what of a listener cannot change while running.
func transportName(l routes.Listener) string {
	terminated, told, acme := false, false, routes.ACME{}
	if l.TLS != nil {
		terminated, told = l.TLS.Terminated, l.TLS.ClientCertHeader
		if l.TLS.ACME != nil {
			acme = *l.TLS.ACME
			acme.Pos = routes.Pos{}
		}
	}
	balancers := "none"
	if p := l.ProxyProtocol; p != nil {
		balancers = fmt.Sprint(p.Trusted, p.Timeout)
	}
	return fmt.Sprintf("%s balancers=%s %s http3=%v tls=%v terminated=%v client_cert_header=%v acme=%v", l.Address, balancers, l.Protocol, l.HTTP3, l.TLS != nil, terminated, told, acme)
}
