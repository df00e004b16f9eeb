package web

import (
	"context"
	"net/http"
)

// Front shows the pages of one request in place of our templates.
type Front struct {
	// Show is Pages.Show for every page but errors.
	Show func(w http.ResponseWriter, r *http.Request, page Page) error
	// Vouched tells that the front made sure already that what was sent comes
	// from where it has to: forms need no token of Guard then.
	Vouched bool
}

type frontKey struct{}

// WithFront has f show the pages of the request with this context.
func WithFront(ctx context.Context, f *Front) context.Context {
	return context.WithValue(ctx, frontKey{}, f)
}

func frontOf(ctx context.Context) *Front {
	f, _ := ctx.Value(frontKey{}).(*Front)
	return f
}

// JSON is text that is JSON already: templates put it into a page as text, and
// a Front into its answer as the value that it is.
type JSON string

// MarshalJSON implements json.Marshaler.
func (j JSON) MarshalJSON() ([]byte, error) { return []byte(j), nil }
