package web

import (
	"context"
	"net/http"
)

// CORS lets scripts of registered origins read the answers of next, without
// credentials, and answers their preflights. Any other origin sees no CORS
// field, so its browser keeps the answer from it.
type CORS struct {
	// Known reports whether an origin belongs to a registered client.
	Known func(ctx context.Context, origin string) bool
}

// Handler wraps next, which serves the methods given.
func (c *CORS) Handler(next http.Handler, methods string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		if origin == "" && r.Method != http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		h := w.Header()
		h.Add("Vary", "Origin")
		known := origin != "" && c.Known(r.Context(), origin)
		if known {
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Expose-Headers", "WWW-Authenticate, Retry-After, DPoP-Nonce")
		}
		if r.Method != http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		if known {
			h.Set("Access-Control-Allow-Methods", methods)
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, DPoP")
			h.Set("Access-Control-Max-Age", "600")
		}
		h.Set("Allow", methods+", OPTIONS")
		w.WriteHeader(http.StatusNoContent)
	})
}
