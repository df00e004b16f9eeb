package server

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/gatehouse/gatehouse/plugins"
)

// isGRPC reports whether the request is one of gRPC.
func isGRPC(header http.Header) bool {
	values := header["Content-Type"]
	if len(values) != 1 {
		return false
	}
	v := values[0]
	const kind = "application/grpc"
	return len(v) >= len(kind) && strings.EqualFold(v[:len(kind)], kind) &&
		(len(v) == len(kind) || v[len(kind)] == '+' || v[len(kind)] == ';' || v[len(kind)] == ' ')
}

// grpcStatus is the code that a gRPC client gets for a refusal, as the mapping
// of HTTP statuses in the gRPC specification has it, where that is not finer
// known here.
func grpcStatus(e *plugins.Error) int {
	switch e.Code {
	case plugins.TokenExpired, plugins.TokenRevoked: // also in the middle of a call
		return 16 // UNAUTHENTICATED
	case plugins.StreamExpired, plugins.Draining:
		return 14 // UNAVAILABLE
	}
	switch e.Status {
	case http.StatusBadRequest:
		return 13 // INTERNAL
	case http.StatusUnauthorized:
		return 16 // UNAUTHENTICATED
	case http.StatusForbidden:
		return 7 // PERMISSION_DENIED
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return 12 // UNIMPLEMENTED
	case http.StatusTooManyRequests, http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge:
		return 8 // RESOURCE_EXHAUSTED
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusMisdirectedRequest:
		return 14 // UNAVAILABLE
	case http.StatusGatewayTimeout, http.StatusRequestTimeout:
		return 4 // DEADLINE_EXCEEDED
	case statusClientGone:
		return 1 // CANCELLED
	case http.StatusInternalServerError:
		return 13 // INTERNAL
	}
	return 2 // UNKNOWN
}

const statusClientGone = 499

// grpcRefusal renders a refusal as a response without content, whose header
// section is its trailer section too ("Trailers-Only").
func grpcRefusal(e *plugins.Error, x *plugins.Exchange) plugins.ResponseHead {
	b := appendStatus(append(make([]byte, 0, 512), "Content-Type: application/grpc\r\n"...), e)
	b = append(append(append(b, "X-Request-Id: "...), x.RequestID...), '\r', '\n')
	for _, h := range e.Header {
		b = append(append(append(append(b, h[0]...), ": "...), h[1]...), '\r', '\n')
	}
	return plugins.ResponseHead{Status: http.StatusOK, Fields: b, Date: true, Own: true}
}

// appendStatus renders what a refusal is to a caller of gRPC, as fields.
func appendStatus(b []byte, e *plugins.Error) []byte {
	message := e.Detail
	if message == "" {
		message = plugins.Title(e.Code)
	}
	b = strconv.AppendInt(append(b, "Grpc-Status: "...), int64(grpcStatus(e)), 10)
	b = append(b, "\r\nGrpc-Message: "...)
	return append(appendPercent(b, e.Code+": "+message), '\r', '\n')
}

// appendPercent escapes a message as gRPC wants it: all but visible ASCII and
// space, and the percent sign.
func appendPercent(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			b = append(b, '%', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}
