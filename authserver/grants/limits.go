package grants

import (
	"net/http"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

// Limiter counts requests of one kind by who makes them.
type Limiter interface {
	// Take counts a request of key, and returns how long key has to wait where
	// that is one too many; 0: it is not. It waits no longer than a moment for
	// whatever it shares with replicas.
	Take(key string) (wait time.Duration)
}

// Limits bound how often the endpoint may be asked; a nil one does not. A flood
// of one client, address or user then costs the others nothing.
type Limits struct {
	// Address counts every request, before anything else is looked at; Client
	// only those of clients that proved who they are, so that nobody can use up
	// another's share; Subject those that are about a user.
	Address, Client, Subject Limiter
}

func (l *Limits) client(id string) error { return take(l.Client, id) }

func (l *Limits) subject(subject string) error { return take(l.Subject, subject) }

func take(l Limiter, key string) error {
	if l == nil || key == "" {
		return nil
	}
	wait := l.Take(key)
	if wait <= 0 {
		return nil
	}
	return &oauth.Error{
		Status: http.StatusTooManyRequests, Code: oauth.TemporarilyUnavailable, Retry: wait,
		Description: "too many requests; Retry-After tells when to come back",
	}
}
