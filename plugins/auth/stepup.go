package auth

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// stepUp is what a route demands of the sign-in behind a token (RFC 9470). The
// zero value demands nothing.
type stepUp struct {
	acrs    []string
	maxAge  time.Duration
	refusal *plugins.Error
}

func newStepUp(a *routes.Auth, c challenge) stepUp {
	header := c.header(oauth.InsufficientAuthentication)
	if len(a.ACRValues) > 0 {
		header[0][1] += `, acr_values="` + quoted.Replace(strings.Join(a.ACRValues, " ")) + `"`
	}
	if a.MaxAge > 0 {
		header[0][1] += `, max_age="` + strconv.FormatInt(int64(a.MaxAge/time.Second), 10) + `"`
	}
	return stepUp{acrs: a.ACRValues, maxAge: a.MaxAge, refusal: &plugins.Error{
		Status: http.StatusUnauthorized, Code: plugins.StepUpRequired, Header: header,
		Detail: "The user has to sign in again for this, in the way and as lately as the challenge says.",
	}}
}

// suffices decides whether the sign-in was of a kind, and as lately, as the
// route wants it. A token that does not say when it was is too old.
func (s *stepUp) suffices(p *plugins.Principal, now time.Time) *plugins.Error {
	if len(s.acrs) > 0 && !slices.Contains(s.acrs, p.ACR) || s.maxAge > 0 && now.Sub(p.AuthTime) > s.maxAge {
		return s.refusal
	}
	return nil
}
