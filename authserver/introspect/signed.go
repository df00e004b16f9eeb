package introspect

import (
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

// mediaSigned is an answer that others can check later (RFC 9701).
const mediaSigned = "application/token-introspection+jwt"

// wantsSigned reports whether the request asks for a signed answer. Whoever
// accepts anything gets JSON.
func wantsSigned(r *http.Request) bool {
	for _, field := range r.Header["Accept"] {
		for part := range strings.SplitSeq(field, ",") {
			media, params, err := mime.ParseMediaType(part)
			if err == nil && media == mediaSigned && params["q"] != "0" {
				return true
			}
		}
	}
	return false
}

// writeSigned sends the answer in a JWT for the client that asked.
func (e *Endpoint) writeSigned(w http.ResponseWriter, client string, a answer) error {
	token, err := e.Tokens.MintIntrospection(client, e.Now(), a)
	if err != nil {
		return oauth.Failed(err)
	}
	h := w.Header()
	h.Set("Content-Type", mediaSigned)
	h.Set("Content-Length", strconv.Itoa(len(token)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write([]byte(token)) // the client is gone; there is nobody to tell
	return nil
}
