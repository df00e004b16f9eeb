package servers

import (
	"context"
	_ "embed"
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

// The proxies and servers of others below are as tolerant as they can be set up:
// what one of them lets through, whoever stands in front must not have sent.
// Each keeps connections to its origin, repeats nothing, and caches nothing.

// Nginx starts an nginx that forwards everything to origin (host:port).
func Nginx(t testing.TB, origin string) *Server {
	t.Helper()
	return web(t, "nginx", origin, `
daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log stderr warn;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    ignore_invalid_headers off;
    underscores_in_headers on;
    merge_slashes off;
    upstream origin { server {origin}; keepalive 16; }
    server {
        listen {addr};
        location / {
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            proxy_next_upstream off;
        }
    }
}
`, "-p", "{dir}", "-c", "{config}")
}

// HAProxy starts a haproxy that forwards everything to origin (host:port).
func HAProxy(t testing.TB, origin string) *Server {
	t.Helper()
	return web(t, "haproxy", origin, `
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    retries 0
    option accept-invalid-http-request
    option accept-invalid-http-response
    http-reuse always
frontend all
    bind {addr}
    default_backend origin
backend origin
    server origin {origin}
`, "-db", "-f", "{config}")
}

// Apache starts an apache2 that forwards everything to origin (host:port).
func Apache(t testing.TB, origin string) *Server {
	t.Helper()
	return web(t, "apache2", origin, `
ServerRoot {dir}
DefaultRuntimeDir {dir}
ServerName apache.test
PidFile {dir}/apache.pid
ErrorLog /dev/stderr
Listen {addr}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
ThreadsPerChild 25
HttpProtocolOptions Unsafe
AllowEncodedSlashes NoDecode
MergeSlashes Off
MaxKeepAliveRequests 0
KeepAliveTimeout 60
ProxyPreserveHost On
ProxyPass "/" "http://{origin}/" nocanon retry=0
`, "-X", "-f", "{config}")
}

// Varnish starts a varnishd that forwards everything to origin (host:port).
func Varnish(t testing.TB, origin string) *Server {
	t.Helper()
	return web(t, "varnishd", origin, `
vcl 4.1;
backend origin { .host = "{host}"; .port = "{port}"; }
sub vcl_recv { return (pass); }
sub vcl_backend_fetch { return (fetch); } # with the content of a GET, too
`, "-F", "-a", "{addr}", "-f", "{config}", "-n", "{dir}", "-j", "none", "-s", "default,16m", "-l", "1m")
}

// Caddy starts a caddy that forwards everything to origin (host:port).
func Caddy(t testing.TB, origin string) *Server {
	t.Helper()
	return web(t, "caddy", origin, `{
  "admin": {"disabled": true, "config": {"persist": false}},
  "storage": {"module": "file_system", "root": "{dir}"},
  "apps": {"http": {"servers": {"all": {
    "listen": ["{addr}"],
    "automatic_https": {"disable": true},
    "routes": [{"handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": "{origin}"}]}]}]
  }}}}
}`, "run", "--config", "{config}")
}

//go:embed node.mjs
var nodeScript string

// Node starts a Node.js server that answers by itself. It numbers the whole
// requests that it reads; an answer has that number in Origin-Id and the
// request's target as its content. A request with X-Answer is answered with the
// bytes that this field holds in base64, and the connection ends: at once with
// X-Then: close, else a little later. GET /seen is not counted: its answer is the
// list of the others since the last such request, as [{"id", "method", "target"}].
func Node(t testing.TB) *Server {
	t.Helper()
	return web(t, "node", "127.0.0.1:9", nodeScript, "--insecure-http-parser", "{config}", "{ownport}")
}

// web starts a server that answers HTTP in one process, with config in a file.
// {addr} and {ownport} in config and args are where it listens, {origin}, {host}
// and {port} where it forwards to, {dir} is a folder of its own and {config} the file.
func web(t testing.TB, binary, origin, config string, args ...string) *Server {
	t.Helper()
	path := binary
	if _, err := exec.LookPath(path); err != nil {
		path = filepath.Join("/usr/sbin", binary) // Debian's place of servers, which is not in everybody's PATH
	}
	path = Need(t, binary, path)
	dir := t.TempDir()
	file := filepath.Join(dir, "config.mjs")
	host, originPort, err := net.SplitHostPort(origin)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, binary, func(port int) spec {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		fill := strings.NewReplacer("{addr}", addr, "{ownport}", strconv.Itoa(port), "{origin}", origin, "{host}", host,
			"{port}", originPort, "{dir}", dir, "{config}", file, "{uid}", strconv.Itoa(os.Getuid()))
		if err := os.WriteFile(file, []byte(fill.Replace(config)), 0o600); err != nil {
			t.Fatal(err)
		}
		filled := make([]string, len(args))
		for i, a := range args {
			filled[i] = fill.Replace(a)
		}
		return spec{binary: path, args: filled, dir: dir, stop: syscall.SIGTERM, ready: listens(addr)}
	})
}

// listens is satisfied when something accepts connections at addr.
func listens(addr string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err != nil {
			return fmt.Errorf("nobody listens: %w", err)
		}
		return conn.Close()
	}
}
