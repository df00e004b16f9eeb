package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gatehouse/gatehouse/authserver/dpop"
	"github.com/gatehouse/gatehouse/routes"
)

// wellKnownResource comes between host and path of a resource's name and makes
// the URL of its metadata (RFC 9728, 3.1).
const wellKnownResource = "/.well-known/oauth-protected-resource"

// resources publishes what clients need to know about the protected resources,
// one document for each audience that is a URL.
type resources struct {
	current atomic.Pointer[map[string][]byte] // by host, without port, and path
}

// resourceDocument is the metadata of a resource (RFC 9728, 2).
type resourceDocument struct {
	Resource        string   `json:"resource"`
	Servers         []string `json:"authorization_servers"`
	Scopes          []string `json:"scopes_supported"`
	Methods         []string `json:"bearer_methods_supported"`
	Proofs          []string `json:"dpop_signing_alg_values_supported"`
	ProofRequired   bool     `json:"dpop_bound_access_tokens_required"`
	CertificateAble bool     `json:"tls_client_certificate_bound_access_tokens,omitempty"`
}

// publish replaces the documents with those of file.
func (r *resources) publish(file *routes.File) {
	documents := map[string][]byte{}
	for audience, of := range audiences(file) {
		text, err := json.Marshal(describe(file, audience, of))
		if err != nil {
			panic("strings do not encode: " + err.Error())
		}
		if key, ok := documentKey(metadataURL(audience)); ok {
			documents[key] = text
		}
		// Clients that know only the issuer look on its host.
		if a := file.AuthServer; a != nil && audience == a.Audience {
			if key, ok := documentKey(hostURL(a.Issuer)); ok {
				documents[key] = text
			}
		}
	}
	r.current.Store(&documents)
}

// audiences are the protected routes by what their tokens must be for.
func audiences(file *routes.File) map[string][]*routes.Route {
	by := map[string][]*routes.Route{}
	if file.AuthServer != nil {
		by[file.AuthServer.Audience] = nil
	}
	for _, route := range file.Routes {
		if route.Auth == nil {
			continue
		}
		audience := route.Auth.Audience
		if audience == "" && file.AuthServer != nil {
			audience = file.AuthServer.Audience
		}
		if audience != "" {
			by[audience] = append(by[audience], route)
		}
	}
	return by
}

func describe(file *routes.File, audience string, of []*routes.Route) resourceDocument {
	d := resourceDocument{
		Resource: audience, Servers: []string{}, Scopes: []string{}, Methods: []string{"header"},
		Proofs: dpop.Algorithms, ProofRequired: len(of) > 0, CertificateAble: mutualTLS(file),
	}
	trusted := func(issuer string) bool {
		return len(of) == 0 || slices.ContainsFunc(of, func(r *routes.Route) bool {
			return len(r.Auth.Issuers) == 0 || slices.Contains(r.Auth.Issuers, issuer)
		})
	}
	if file.AuthServer != nil && trusted(file.AuthServer.Issuer) {
		d.Servers = append(d.Servers, file.AuthServer.Issuer)
	}
	for _, other := range file.Issuers {
		if slices.Contains(other.Audiences, audience) && trusted(other.Issuer) {
			d.Servers = append(d.Servers, other.Issuer)
		}
	}
	for _, r := range of {
		d.Scopes = append(append(d.Scopes, r.Auth.Scopes...), r.Auth.AnyScopes...)
		d.ProofRequired = d.ProofRequired && r.Auth.DPoP == "required"
	}
	slices.Sort(d.Scopes)
	d.Scopes = slices.Compact(d.Scopes)
	return d
}

// metadataURL is where the metadata of a resource is found, "" where its name
// is not a URL.
func metadataURL(resource string) string {
	u, err := url.Parse(resource)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return ""
	}
	return u.Scheme + "://" + u.Host + wellKnownResource + strings.TrimSuffix(u.EscapedPath(), "/")
}

// hostURL is the place of the metadata of a whole host, that of an issuer.
func hostURL(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host + wellKnownResource
}

// challenged is the URL of the metadata that refusals on a route point to, ""
// where there is none. A route without an audience of its own has the server's.
func challenged(file *routes.File, audience string) string {
	a := file.AuthServer
	if audience == "" && a != nil {
		if place := metadataURL(a.Audience); place != "" {
			return place
		}
		return hostURL(a.Issuer)
	}
	return metadataURL(audience)
}

// documentKey is the key of the document at a URL.
func documentKey(place string) (string, bool) {
	u, err := url.Parse(place)
	if err != nil || place == "" {
		return "", false
	}
	host, _, ok := routes.CanonicalHost(nil, []byte(u.Host))
	return string(host) + u.Path, ok
}

// owns implements gateway.Local.
func (r *resources) owns(host, path []byte) bool {
	if len(path) < len(wellKnownResource) || string(path[:len(wellKnownResource)]) != wellKnownResource {
		return false
	}
	_, ok := (*r.current.Load())[string(host)+string(path)]
	return ok
}

// ServeHTTP answers requests that owns admits.
func (r *resources) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	host, _, _ := routes.CanonicalHost(nil, []byte(q.Host))
	h := w.Header()
	// Pages of any origin may read what anybody may.
	h.Set("Access-Control-Allow-Origin", "*")
	if q.Method != http.MethodGet && q.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "public, max-age=300")
	_, _ = w.Write((*r.current.Load())[string(host)+q.URL.Path]) // the client is gone; there is nobody to tell
}
