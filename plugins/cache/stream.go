package cache

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
)

// fetch asks the service, to confirm what is stored where there is something.
func (u *rule) fetch(x *plugins.Exchange, q question, old *entry, next plugins.Handler) error {
	s := &stream{Stream: x.Client, rule: u, x: x, q: q}
	if old != nil && (old.etag != "" || old.changed != "") && string(x.Method) == http.MethodGet {
		s.stale = old
		for i := range x.Fields {
			if f := &x.Fields[i]; is(f.Name, "if-none-match") {
				f.Drop = true // answered from what the service confirms
			}
		}
		if old.etag != "" {
			x.AddRequestField("If-None-Match", []byte(old.etag))
		} else {
			x.AddRequestField("If-Modified-Since", []byte(old.changed))
		}
	}
	x.Client = s
	err := next(x)
	x.Client = s.Stream
	u.store.gathering.Add(-s.reserved)
	switch {
	case s.confirmed != nil:
		u.plugin.results[revalidated].Add(1)
	case s.stale != nil:
		u.plugin.results[stale].Add(1)
	default:
		u.plugin.results[miss].Add(1)
	}
	if err == nil && s.confirmed != nil {
		if s.forget {
			u.store.forget(q.uri)
		} else {
			u.store.put(s.confirmed)
		}
		return s.confirmed.answer(x, q, "hit; detail=revalidated")
	}
	return err
}

// stream keeps a copy of a response that may be stored.
type stream struct {
	plugins.Stream
	rule *rule
	x    *plugins.Exchange
	q    question
	// stale is what the service was asked to confirm, confirmed what it did.
	stale, confirmed *entry
	kept             *entry // nil: the response is not stored
	reserved         int64  // of the store's bound for responses under way
	forget           bool   // the service does not want it stored any more
}

// WriteHead implements plugins.Stream.
func (s *stream) WriteHead(h plugins.ResponseHead) error {
	if s.stale != nil && h.Status == http.StatusNotModified {
		s.confirmed = s.renewed(h)
		return nil
	}
	if string(s.x.Method) == http.MethodGet && !h.Own {
		if e := s.candidate(h); e != nil && s.reserve(h.Length) {
			s.kept = e
		}
	}
	how := "Cache-Status: gatehouse; fwd=miss\r\n"
	if s.stale != nil {
		how = "Cache-Status: gatehouse; fwd=stale\r\n"
	}
	h.Fields = append(slices.Clone(h.Fields), how...)
	return s.Stream.WriteHead(h)
}

// reserve keeps responses under way within the store's bound, too.
func (s *stream) reserve(length int64) bool {
	if length < 0 {
		length = s.rule.maxEntry
	}
	if length > s.rule.maxEntry {
		return false
	}
	if s.rule.store.gathering.Add(length) > s.rule.store.most {
		s.rule.store.gathering.Add(-length)
		return false
	}
	s.reserved = length
	return true
}

// storable are the statuses that are stored; each with an explicit life only.
var storable = []int{200, 203, 301, 308, 404, 410}

// candidate makes the entry of a response that may be stored (RFC 9111, 3).
func (s *stream) candidate(h plugins.ResponseHead) *entry {
	if !slices.Contains(storable, h.Status) {
		return nil
	}
	e := &entry{uri: s.q.uri, status: h.Status, stored: s.x.Time}
	var ok bool
	if e.vary, ok = varyOf(h.Fields); !ok {
		return nil
	}
	dated := false
	for line := range bytes.Lines(h.Fields) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case is(name, "set-cookie"):
			return nil
		case is(name, "age"), is(name, "content-length"), is(name, "cache-status"):
			continue
		case is(name, "date"):
			dated = true
		case is(name, "etag"):
			e.etag = string(bytes.TrimSpace(value))
		case is(name, "last-modified"):
			e.changed = string(bytes.TrimSpace(value))
		}
		e.fields = append(e.fields, line...)
	}
	if !dated {
		e.fields = fmt.Appendf(e.fields, "Date: %s\r\n", s.x.Time.UTC().Format(http.TimeFormat))
	}
	if !e.judge(h.Fields, s.x.Time) || e.private && s.q.credentials {
		return nil
	}
	e.variant = variantOf(e.vary, s.x)
	return e
}

// judge reads how long, and for whom, the response may be used; false: it may
// not be stored.
func (e *entry) judge(fields []byte, now time.Time) bool {
	d := control{}
	var date, expires, age string
	for line := range bytes.Lines(fields) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		text := strings.TrimSpace(string(value))
		switch {
		case is(name, "cache-control"):
			for k, v := range directives(value) {
				d[k] = v
			}
		case is(name, "date"):
			date = text
		case is(name, "expires"):
			expires = text
		case is(name, "age"):
			age = text
		}
	}
	if d.has("no-store") || d.has("private") {
		return false
	}
	e.private = !d.has("public") && !d.has("s-maxage") && !d.has("must-revalidate")
	made, err := http.ParseTime(date)
	if err != nil {
		made = now
	}
	e.age = max(0, now.Sub(made))
	if told, ok := (control{"age": age}).seconds("age"); ok && age != "" {
		e.age = max(e.age, told)
	}
	var explicit bool
	if e.life, explicit = d.seconds("s-maxage"); !explicit {
		if e.life, explicit = d.seconds("max-age"); !explicit && expires != "" {
			// A date that is malformed has passed (RFC 9111, 5.3).
			explicit = true
			if until, err := http.ParseTime(expires); err == nil {
				e.life = max(0, until.Sub(made))
			}
		}
	}
	if d.has("no-cache") {
		e.life = 0
	}
	// What is never fresh is worth storing only where it can be confirmed.
	return explicit && e.life > e.age || (explicit || d.has("no-cache")) && (e.etag != "" || e.changed != "")
}

// renewed is the stale entry with what the confirmation says of it (RFC 9111, 4.3.4).
func (s *stream) renewed(h plugins.ResponseHead) *entry {
	e := *s.stale
	told := map[string]bool{}
	var fresh []byte
	for line := range bytes.Lines(h.Fields) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		lower := strings.ToLower(string(name))
		switch lower {
		case "cache-control", "date", "etag", "expires", "last-modified", "age":
			told[lower] = true
			fresh = append(fresh, line...)
		}
	}
	e.fields = nil
	for line := range bytes.Lines(s.stale.fields) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		if lower := strings.ToLower(string(name)); !told[lower] && lower != "date" {
			e.fields = append(e.fields, line...)
		}
	}
	if !told["date"] {
		fresh = fmt.Appendf(fresh, "Date: %s\r\n", s.x.Time.UTC().Format(http.TimeFormat))
	}
	e.fields = append(e.fields, fresh...)
	e.stored = s.x.Time
	s.forget = !e.judge(e.fields, s.x.Time)
	e.fields = withoutAge(e.fields)
	return &e
}

func withoutAge(fields []byte) (rest []byte) {
	for line := range bytes.Lines(fields) {
		if name, _, _ := bytes.Cut(line, []byte(":")); !is(name, "age") {
			rest = append(rest, line...)
		}
	}
	return rest
}

// Write implements plugins.Stream.
func (s *stream) Write(p []byte) (int, error) {
	if s.confirmed != nil {
		return len(p), nil
	}
	if s.kept != nil {
		if int64(len(s.kept.content)+len(p)) > s.rule.maxEntry {
			s.kept = nil
		} else {
			s.kept.content = append(s.kept.content, p...)
		}
	}
	return s.Stream.Write(p)
}

// Flush implements plugins.Stream.
func (s *stream) Flush() error {
	if s.confirmed != nil {
		return nil
	}
	return s.Stream.Flush()
}

// Trailer implements plugins.Stream: what has one is not stored.
func (s *stream) Trailer(lines []byte) {
	s.kept = nil
	if s.confirmed == nil {
		s.Stream.Trailer(lines)
	}
}

// Finish implements plugins.Stream: only a complete response is stored.
func (s *stream) Finish() error {
	if s.confirmed != nil {
		return nil
	}
	if err := s.Stream.Finish(); err != nil {
		return err
	}
	if e := s.kept; e != nil {
		e.fields = fmt.Appendf(e.fields, "Content-Length: %d\r\n", len(e.content))
		s.rule.store.put(e)
	}
	return nil
}

// Splice moves content inside the kernel where it is not stored; see
// gateway/forward.
func (s *stream) Splice(src *net.TCPConn, n int64) (moved int64, ok bool, err error) {
	inner, can := s.Stream.(interface {
		Splice(src *net.TCPConn, n int64) (moved int64, ok bool, err error)
	})
	if s.kept != nil || s.confirmed != nil || !can {
		return 0, false, nil
	}
	return inner.Splice(src, n)
}
