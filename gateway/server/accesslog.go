package server

import (
	"context"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
)

// AccessLog writes one JSON line per exchange. Lines are gathered in memory
// and written by one goroutine; when the sink cannot keep up, lines are dropped
// and counted rather than requests held up. It logs no query, no header value
// and no token.
type AccessLog struct {
	sink    io.WriteCloser
	now     func() time.Time
	shards  [accessShards]accessShard
	turn    atomic.Uint32
	dropped atomic.Uint64
}

type accessShard struct {
	mu    sync.Mutex
	lines []byte
	spare []byte
	_     [64]byte
}

const (
	accessShards = 8
	accessBuffer = 256 << 10 // per shard
	accessFlush  = 100 * time.Millisecond
)

// OpenAccessLog appends to the file at path; standard output if path is empty.
func OpenAccessLog(path string) (*AccessLog, error) {
	if path == "" {
		return &AccessLog{sink: os.Stdout, now: time.Now}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, err
	}
	return &AccessLog{sink: f, now: time.Now}, nil
}

// Record implements Recorder.
func (l *AccessLog) Record(x *plugins.Exchange, took time.Duration) {
	s := &l.shards[l.turn.Add(1)%accessShards]
	s.mu.Lock()
	if len(s.lines) > accessBuffer {
		l.dropped.Add(1)
	} else {
		s.lines = appendAccess(s.lines, x, took)
	}
	s.mu.Unlock()
}

// Dropped counts lines that were lost because the sink was too slow.
func (l *AccessLog) Dropped() uint64 { return l.dropped.Load() }

// Run writes until ctx ends, and then what is left.
func (l *AccessLog) Run(ctx context.Context) error {
	tick := time.NewTicker(accessFlush)
	defer tick.Stop()
	defer l.sink.Close()
	for {
		select {
		case <-ctx.Done():
			return l.flush()
		case <-tick.C:
			if err := l.flush(); err != nil {
				return err
			}
		}
	}
}

func (l *AccessLog) flush() error {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		lines := s.lines
		s.lines = s.spare[:0]
		s.mu.Unlock()
		if len(lines) > 0 {
			if _, err := l.sink.Write(lines); err != nil {
				return err
			}
		}
		s.spare = lines // only this goroutine touches spare
	}
	return nil
}

// appendAccess renders a line with the names of OpenTelemetry's semantic
// conventions. The path is the canonical one: without query, it holds no quote
// and no control character.
func appendAccess(b []byte, x *plugins.Exchange, took time.Duration) []byte {
	r := &x.Record
	b = append(b, `{"time":"`...)
	b = x.Time.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = appendText(b, `","http.request.method":"`, x.Method)
	b = appendText(b, `","server.address":"`, x.Host)
	b = appendText(b, `","url.path":"`, x.Path)
	b = append(b, `","http.route":"`...)
	if x.Route != nil {
		b = append(b, x.Route.Name...)
	}
	b = append(b, `","http.response.status_code":`...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	b = append(b, `,"duration_us":`...)
	b = strconv.AppendInt(b, took.Microseconds(), 10)
	b = append(b, `,"upstream_us":`...)
	b = strconv.AppendInt(b, r.Upstream.Microseconds(), 10)
	b = append(b, `,"http.request.body.size":`...)
	b = strconv.AppendInt(b, r.BytesIn, 10)
	b = append(b, `,"http.response.body.size":`...)
	b = strconv.AppendInt(b, r.BytesOut, 10)
	b = append(b, `,"client.address":"`...)
	if x.ClientIP.IsValid() {
		b = x.ClientIP.AppendTo(b)
	}
	b = appendText(b, `","request_id":"`, x.RequestID)
	if x.Principal != nil {
		b = appendText(b, `","client_id":"`, x.Principal.ClientID)
		b = appendText(b, `","subject":"`, x.Principal.Subject)
	}
	b = append(b, `","service":"`...)
	b = append(b, r.Service...)
	if r.Attempts > 0 {
		b = append(b, `","instance":"`...)
		b = r.Instance.AppendTo(b)
	}
	b = append(b, `","attempts":`...)
	b = strconv.AppendInt(b, int64(r.Attempts), 10)
	if r.Reason != "" {
		b = append(append(append(b, `,"reason":"`...), r.Reason...), '"')
	}
	if r.ShadowReason != "" {
		b = append(append(append(b, `,"shadow_reason":"`...), r.ShadowReason...), '"')
	}
	return append(b, '}', '\n')
}

// appendText appends bytes that the gate let pass as JSON text.
func appendText[T []byte | string](b []byte, before string, text T) []byte {
	b = append(b, before...)
	for i := range len(text) {
		c := text[i]
		if c == '"' || c == '\\' || c < ' ' || c > '~' {
			c = '?'
		}
		b = append(b, c)
	}
	return b
}
