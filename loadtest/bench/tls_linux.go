package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"time"
)

// certificate makes the one that all proxies show: ECDSA P-256, for apiHost.
func certificate() (cert, key []byte, pool *x509.CertPool, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("making a certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: apiHost}, DNSNames: []string{apiHost},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("making a certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("making a certificate: %w", err)
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return cert, key, pool, nil
}

// The clients of HTTP/2 share connections, as browsers and gateways do.
const multiplexedConnections = 8

// callers are the clients of an encrypted row: net/http's, because what is
// measured is the proxy and not they.
type callers struct {
	url     string
	tokens  []string
	clients []*http.Client // used in turn
}

func (r *rig) callers(o options, s subject) (*callers, error) {
	su, err := r.supply(o, s)
	if err != nil {
		return nil, err
	}
	c := &callers{url: "https://" + local(s.port(r.place)) + s.path}
	for _, raw := range su.standing {
		_, rest, _ := strings.Cut(string(raw), "Bearer ")
		token, _, _ := strings.Cut(rest, "\r\n")
		c.tokens = append(c.tokens, token)
	}
	connections := o.connections
	var protocols http.Protocols
	if s.version == 2 {
		connections = min(connections, multiplexedConnections)
		protocols.SetHTTP2(true)
	} else {
		protocols.SetHTTP1(true)
	}
	for range connections {
		c.clients = append(c.clients, &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: r.roots, ServerName: apiHost, MinVersion: tls.VersionTLS13},
			Protocols:       &protocols, MaxConnsPerHost: 1, DisableCompression: true,
		}})
	}
	return c, nil
}

func (c *callers) close() {
	for _, client := range c.clients {
		client.CloseIdleConnections()
	}
}

// call sends one request and checks its answer.
func (c *callers) call(ctx context.Context, client, turn, version int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, nil)
	if err != nil {
		return err
	}
	req.Host = apiHost
	req.Header.Set("User-Agent", "gatehouse-bench/1")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.tokens[turn%len(c.tokens)])
	resp, err := c.clients[client%len(c.clients)].Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.ProtoMajor != version:
		return fmt.Errorf("answered over %s", resp.Proto)
	case resp.StatusCode != http.StatusOK || !bytes.Equal(content, originContent):
		return fmt.Errorf("status %d with %d bytes", resp.StatusCode, len(content))
	}
	return nil
}

// driveTLS does one run of an encrypted row: like drive, with a goroutine for
// each of the connections.
func (r *rig) driveTLS(ctx context.Context, c *callers, s subject, l load) (tally, error) {
	answering, stop := context.WithCancel(ctx)
	origin := make(chan error, 1)
	served := r.wire.served
	go func() { origin <- r.wire.answerUntil(answering) }()
	all := make([]tally, l.connections)
	var started, done sync.WaitGroup
	begin, end := make(chan struct{}), make(chan struct{})
	for i := range all {
		started.Add(1)
		done.Go(func() {
			t := &all[i]
			measuring := false
			started.Done()
			for turn := i; ; turn += l.connections {
				select {
				case <-end:
					return
				case <-begin:
					measuring = true
				default:
				}
				sent := time.Now()
				if err := c.call(ctx, i, turn, s.version); err != nil {
					t.errors, t.sample = t.errors+1, err
					return
				}
				t.answered++
				if measuring {
					t.requests++
					t.latency.add(time.Since(sent))
				}
			}
		})
	}
	started.Wait()
	err := sleep(ctx, l.warm)
	var from time.Time
	var elapsed time.Duration
	if err == nil {
		from = time.Now()
		close(begin)
		err = errors.Join(l.mark(), sleep(ctx, l.measure), l.mark())
		elapsed = time.Since(from)
	}
	close(end)
	done.Wait()
	stop()
	err = errors.Join(err, <-origin)
	sum := tally{elapsed: elapsed, atOrigin: r.wire.served - served}
	for i := range all {
		sum.add(&all[i])
	}
	return sum, err
}

// add takes in what another connection saw.
func (t *tally) add(o *tally) {
	t.requests += o.requests
	t.answered += o.answered
	t.errors += o.errors
	if t.sample == nil {
		t.sample = o.sample
	}
	t.latency.join(&o.latency)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// answerUntil is the origin alone, until ctx ends.
func (w *wire) answerUntil(ctx context.Context) error {
	for ctx.Err() == nil {
		events, err := w.wait()
		if err != nil {
			return err
		}
		for i := range events {
			switch p := w.peers[events[i].Fd]; {
			case p == nil:
			case p.fd == w.listen:
				if err := w.accept(); err != nil {
					return err
				}
			default:
				w.serve(p)
			}
		}
	}
	return nil
}
