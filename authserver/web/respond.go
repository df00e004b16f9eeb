package web

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/jose"
	"github.com/gatehouse/gatehouse/authserver/oauth"
)

// Endpoint answers one request. nil means that a response was written; an
// error means that nothing was written and the caller renders it.
type Endpoint func(w http.ResponseWriter, r *http.Request) error

// API turns endpoints for programs into handlers: it renders their errors as
// the JSON of RFC 6749, 5.2, logs the causes, forbids caching, and bounds the
// time of a request.
type API struct {
	Logger *slog.Logger
	// Timeout bounds everything that a request waits for.
	Timeout time.Duration
	// Realm is named in challenges: the issuer.
	Realm string
	// Failed learns the code of every refusal; may be nil.
	Failed func(code string)
}

// Handler serves e with POST for the methods given, and answers any other
// with 405.
func (a *API) Handler(e Endpoint, methods ...string) http.Handler {
	allow := strings.Join(methods, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		noStore(w.Header())
		if !contains(methods, r.Method) {
			w.Header().Set("Allow", allow)
			a.render(w, r, &oauth.Error{
				Status: http.StatusMethodNotAllowed, Code: oauth.InvalidRequest,
				Description: "use " + allow,
			})
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), a.Timeout)
		defer cancel()
		if err := e(w, r.WithContext(ctx)); err != nil {
			a.render(w, r, err)
		}
	})
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func (a *API) render(w http.ResponseWriter, r *http.Request, err error) {
	e := protocolError(err)
	logCause(r, a.Logger, e)
	if a.Failed != nil {
		a.Failed(e.Code)
	}
	if e.Retry > 0 {
		w.Header().Set("Retry-After", retryAfter(e.Retry))
	}
	switch {
	case e.Basic:
		w.Header().Set("WWW-Authenticate", `Basic realm="`+a.Realm+`", charset="UTF-8"`)
	case e.DPoP:
		w.Header().Set("WWW-Authenticate", `DPoP realm="`+a.Realm+`", algs="`+strings.Join(jose.Algorithms[:], " ")+
			`", error="`+e.Code+`", error_description="`+e.Description+`"`)
	case e.Code == oauth.InvalidToken || e.Code == oauth.InsufficientScope:
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+a.Realm+`", error="`+e.Code+`", error_description="`+e.Description+`"`)
	}
	WriteJSON(w, e.Status, struct {
		Error       string `json:"error"`
		Description string `json:"error_description,omitempty"`
	}{e.Code, e.Description})
}

// protocolError is err as the client may see it.
func protocolError(err error) *oauth.Error {
	var e *oauth.Error
	if errors.As(err, &e) {
		return e
	}
	return oauth.Unavailable(err)
}

func logCause(r *http.Request, l *slog.Logger, e *oauth.Error) {
	if e.Err == nil && e.Status < 500 {
		return
	}
	// The path only: queries hold codes, states and tokens.
	l.LogAttrs(r.Context(), slog.LevelWarn, "authorization server request failed",
		slog.String("path", r.URL.Path), slog.String("code", e.Code), slog.Any("error", e.Err))
}

// retryAfter rounds up to whole seconds.
func retryAfter(d time.Duration) string {
	return strconv.Itoa(int((d + time.Second - 1) / time.Second))
}

// noStore keeps what follows out of every cache (RFC 6749, 5.1).
func noStore(h http.Header) {
	h["Cache-Control"] = headerNoStore
	h["Pragma"] = headerNoCache
	h["X-Content-Type-Options"] = headerNoSniff
}

var (
	headerNoStore = []string{"no-store"}
	headerNoCache = []string{"no-cache"}
	headerNoSniff = []string{"nosniff"}
	headerJSON    = []string{"application/json"}
)

// WriteJSON sends v. v must be a value that always encodes.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic("web: value does not encode: " + err.Error())
	}
	WriteBody(w, status, body)
}

// WriteBody sends a body that is JSON already.
func WriteBody(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"] = headerJSON
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone; there is nobody to tell
}

// ClientIP is the address of the client: the gateway puts it into RemoteAddr
// by its rules for trusted proxies. The zero Addr where there is none.
func ClientIP(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return ip.Unmap()
}

// ClientAddress is ClientIP for the audit log, "" where there is none.
func ClientAddress(r *http.Request) string {
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && at.Addr().Is4() {
		host, _, _ := strings.Cut(r.RemoteAddr, ":") // which has one spelling
		return host
	}
	ip := ClientIP(r)
	if !ip.IsValid() {
		return ""
	}
	return ip.String()
}

// Certificate is the client's certificate on the request's connection, whose
// key it holds and whose chain the listener verified; nil where there is none.
// No header can put one there.
func Certificate(r *http.Request) *x509.Certificate {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return nil
	}
	return r.TLS.VerifiedChains[0][0]
}

// Redirect answers with 303, which makes the browser fetch the target with GET
// and drop what it posted (RFC 9700, 4.12).
func Redirect(w http.ResponseWriter, target string) {
	noStore(w.Header())
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusSeeOther)
}
