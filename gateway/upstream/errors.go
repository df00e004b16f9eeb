package upstream

import (
	"errors"
	"os"
)

// Kinds of failure, to be compared with errors.Is. A message that was cut off
// after its first byte is io.ErrUnexpectedEOF.
var (
	// ErrConnect: no connection was made; the request cannot have been seen.
	ErrConnect = errors.New("cannot connect")
	// ErrBusy: the instance's connections are all in use.
	ErrBusy = errors.New("all connections are in use")
	// ErrTimeout: the deadline passed; Error.Phase tells in which phase.
	ErrTimeout = errors.New("timed out")
	// ErrReset: the connection ended before the first byte of the answer. On
	// a Reused connection the instance may just have closed an idle one.
	ErrReset = errors.New("connection ended before the answer")
	// ErrHeadTooLarge: the head is longer than Config.MaxHead.
	ErrHeadTooLarge = errors.New("response head too large")
	// ErrMalformed: the framing violates RFC 9112.
	ErrMalformed = errors.New("malformed response")
)

var (
	errSpokeFirst = errors.New("closed or sent something before the request")
	errNoFraming  = errors.New("framing of the body is not known")
)

// Phase is the part of an exchange in which it failed.
type Phase string

const (
	PhaseQueue   Phase = "waiting for a connection"
	PhaseConnect Phase = "connecting"
	PhaseSend    Phase = "sending the request"
	PhaseHead    Phase = "reading the response head"
	PhaseBody    Phase = "reading the response body"
)

// Error is every error of this package. Its text names addresses: it is for
// the log, not for clients.
type Error struct {
	// Kind is one of the Err variables or io.ErrUnexpectedEOF.
	Kind  error
	Phase Phase
	// Err is the cause; may be nil.
	Err error
}

func (e *Error) Error() string {
	s := string(e.Phase) + ": " + e.Kind.Error()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// Outcome is how a request to an instance went, as far as it says something
// about the instance.
type Outcome uint8

const (
	// Success: the instance works.
	Success Outcome = iota
	// Failure: a gateway failure (no connection, reset, timeout, 502–504).
	Failure
	// Neutral: nothing is known, for example because the client left.
	Neutral
)

// Judge is the usual Outcome of an attempt that ended with this status (0 if
// there was no answer) and this error (not io.EOF, which ends good content).
func Judge(status int, err error) Outcome {
	switch {
	case errors.Is(err, ErrBusy):
		return Neutral
	case err != nil, status == 502, status == 503, status == 504:
		return Failure
	}
	return Success
}
