package main

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"text/template"
)

// place is what the proxies' configurations are made of.
type place struct {
	Dir                                              string
	Origin, Redis, Issuer                            int // ports
	Nginx, Haproxy, HaproxyPlain, Gatehouse, Control int // ports
	NginxTLS, GatehouseTLS                           int // ports
	Workers                                          int // processors that a proxy may use
	Admin, KEK                                       string
}

func (p place) Host() string     { return apiHost }
func (p place) Audience() string { return audience }
func (p place) Scope() string    { return scope }

// secrets fills in random ones.
func (p *place) secrets() error {
	b := make([]byte, 64)
	if _, err := rand.Read(b); err != nil {
		return fmt.Errorf("making secrets: %w", err)
	}
	p.Admin = base64.RawURLEncoding.EncodeToString(b[:32])
	p.KEK = base64.StdEncoding.EncodeToString(b[32:])
	return nil
}

func (p place) render(text string) (string, error) {
	t, err := template.New("configuration").Parse(text)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	if err := t.Execute(&out, p); err != nil {
		return "", err
	}
	return out.String(), nil
}

// nginxConf is the yardstick: the plainest reverse proxy that keeps its
// connections to the origin and tells it the client's address. The limits on
// requests per connection are lifted, for ours has none.
const nginxConf = `worker_processes {{.Workers}};
daemon off;
pid {{.Dir}}/nginx.pid;
error_log stderr error;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path {{.Dir}}/nginx-body;
    proxy_temp_path {{.Dir}}/nginx-proxy;
    fastcgi_temp_path {{.Dir}}/nginx-fastcgi;
    uwsgi_temp_path {{.Dir}}/nginx-uwsgi;
    scgi_temp_path {{.Dir}}/nginx-scgi;
    keepalive_requests 1000000000;
    upstream origin {
        server 127.0.0.1:{{.Origin}};
        keepalive 128;
        keepalive_requests 1000000000;
    }
    server {
        listen 127.0.0.1:{{.Nginx}};
        listen 127.0.0.1:{{.NginxTLS}} ssl http2;
        ssl_certificate {{.Dir}}/tls.crt;
        ssl_certificate_key {{.Dir}}/tls.key;
        ssl_protocols TLSv1.3;
        server_name {{.Host}};
        location / {
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
        }
    }
}
`

// haproxyConf checks what our enforced route checks, as far as its language
// goes: signature, algorithm, issuer, audience, expiry, scope and a limit per
// client, held in its own memory. It does not remember verified tokens.
const haproxyConf = `global
    maxconn 2000
    nbthread {{.Workers}}
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    option forwardfor
    http-reuse always
frontend api
    bind 127.0.0.1:{{.Haproxy}}
    http-request set-var(txn.bearer) http_auth_bearer
    http-request deny deny_status 401 unless { var(txn.bearer) -m found }
    http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
    http-request set-var(txn.iss) var(txn.bearer),jwt_payload_query('$.iss')
    http-request set-var(txn.aud) var(txn.bearer),jwt_payload_query('$.aud')
    http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
    http-request set-var(txn.scope) var(txn.bearer),jwt_payload_query('$.scope')
    http-request set-var(txn.client) var(txn.bearer),jwt_payload_query('$.client_id')
    http-request set-var(txn.now) date()
    http-request deny deny_status 401 unless { var(txn.alg) -m str ES256 }
    http-request deny deny_status 401 unless { var(txn.iss) -m str http://127.0.0.1:{{.Issuer}} }
    http-request deny deny_status 401 unless { var(txn.bearer),jwt_verify(txn.alg,"{{.Dir}}/issuer.pem") -m int 1 }
    http-request deny deny_status 401 if { var(txn.exp),sub(txn.now) -m int lt 0 }
    http-request deny deny_status 403 unless { var(txn.aud) -m str {{.Audience}} }
    http-request deny deny_status 403 unless { var(txn.scope) -m reg (^|\ ){{.Scope}}(\ |$) }
    http-request track-sc0 var(txn.client) table limits
    http-request deny deny_status 429 if { sc_http_req_rate(0,limits) gt 600000 }
    http-request set-header X-Auth-Client %[var(txn.client)]
    http-request del-header Authorization
    default_backend origin
frontend plain
    bind 127.0.0.1:{{.HaproxyPlain}}
    default_backend origin
backend limits
    stick-table type string len 64 size 100k expire 1m store http_req_rate(1m)
backend origin
    server origin 127.0.0.1:{{.Origin}}
`

// gatehouseConf has a public and a fully enforced route over the same service.
// The limit is in Redis and never refuses; the own authorization server is on,
// so that its revocations are consulted as in production.
const gatehouseConf = `listeners:
  - address: 127.0.0.1:{{.Gatehouse}}
  - address: 127.0.0.1:{{.GatehouseTLS}}
    tls: {cert: tls.crt, key: tls.key, min_version: "1.3"}
admin: {address: "127.0.0.1:{{.Control}}", token: "{{.Admin}}"}
store: sqlite:{{.Dir}}/gatehouse.db
redis: redis://127.0.0.1:{{.Redis}}/0
authserver:
  issuer: http://127.0.0.1:{{.Gatehouse}}
  key_encryption_key: "{{.KEK}}"
  scopes:
    "{{.Scope}}": Read what the bench serves
issuers:
  - issuer: http://127.0.0.1:{{.Issuer}}
    jwks_uri: http://127.0.0.1:{{.Issuer}}/jwks
    audiences: ["{{.Audience}}"]
    algorithms: [ES256]
services:
  origin:
    targets: ["http://127.0.0.1:{{.Origin}}"]
    breaker: {failures: 50%, min_requests: 50, window: 10s, open: 2s}
routes:
  - name: plain
    hosts: [{{.Host}}]
    path: /plain/**
    service: origin
    public: true
  - name: guard
    hosts: [{{.Host}}]
    path: /guard/**
    methods: [GET, HEAD]
    service: origin
    auth: {scopes: ["{{.Scope}}"], audience: "{{.Audience}}"}
    rate_limit: {limit: 600000, per: 1m, by: client, mode: leased}
`
