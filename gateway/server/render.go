package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/gatehouse/gatehouse/plugins"
)

// refuse renders err as problem+json (RFC 9457). Where the response has begun
// already there is nothing left to say, but to callers of gRPC: the connection
// is cut instead.
func (st *state) refuse(err error) {
	x := &st.x
	var e *plugins.Error
	if !errors.As(err, &e) {
		// An error nobody foresaw refuses, and tells the client nothing.
		e = &plugins.Error{Status: http.StatusInternalServerError, Code: plugins.Internal, Err: err}
	}
	if e.Code == plugins.ClientGone && st.out.slow() {
		e = &plugins.Error{Status: e.Status, Code: plugins.ResponseTooSlow, Err: e.Err}
	}
	x.Record.Reason = e.Code
	if e.Status >= http.StatusInternalServerError || e.Code == plugins.Internal {
		st.server.logger.LogAttrs(context.Background(), levelOf(e), "request failed",
			slog.String("reason", e.Code), slog.String("request_id", string(x.RequestID)), slog.Any("error", e.Err))
	}
	if st.out.begun() {
		if !st.out.breakOff(e) {
			st.out.cut()
		}
		return
	}
	if e.Code == plugins.ClientGone || e.Code == plugins.ResponseTooSlow {
		x.Record.Status = e.Status
		st.out.cut()
		return
	}
	if x.GRPC {
		if st.out.WriteHead(grpcRefusal(e, x)) == nil {
			_ = st.out.Finish()
		}
		x.Record.Status = e.Status
		return
	}
	content := problem(e, x)
	fields := make([]byte, 0, 512)
	fields = append(fields, "Content-Type: application/problem+json\r\nCache-Control: no-store\r\nContent-Length: "...)
	fields = strconv.AppendInt(fields, int64(len(content)), 10)
	fields = append(fields, "\r\nX-Request-Id: "...)
	fields = append(fields, x.RequestID...)
	fields = append(fields, '\r', '\n')
	for _, h := range e.Header {
		fields = append(fields, h[0]...)
		fields = append(fields, ": "...)
		fields = append(fields, h[1]...)
		fields = append(fields, '\r', '\n')
	}
	head := plugins.ResponseHead{
		Status: e.Status, Fields: fields, Length: int64(len(content)), Date: true, Own: true,
		// Content that nobody read would be taken for the next request, and
		// who writes ambiguous requests is not asked for another.
		Close: st.body.pending() || e.Code == plugins.BadRequest,
	}
	if st.out.WriteHead(head) != nil {
		return
	}
	if _, err := st.out.Write(content); err != nil {
		return
	}
	_ = st.out.Finish()
}

func levelOf(e *plugins.Error) slog.Level {
	if e.Code == plugins.Internal || e.Code == plugins.PrincipalMissing {
		return slog.LevelError
	}
	return slog.LevelDebug
}

// document is the body of a refusal.
type document struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail,omitempty"`
	Instance string `json:"instance"`
	Reason   string `json:"reason"`
}

func problem(e *plugins.Error, x *plugins.Exchange) []byte {
	b, err := json.Marshal(document{
		Type: "urn:gatehouse:problem:" + e.Code, Title: plugins.Title(e.Code), Status: e.Status,
		Detail: e.Detail, Instance: string(x.RequestID), Reason: e.Code,
	})
	if err != nil { // strings and numbers always encode
		return []byte(`{"status":500}`)
	}
	return append(b, '\n')
}
