package cache

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
)

// question is what a request says about caches.
type question struct {
	uri string
	// bypass: nothing stored is used, and nothing is stored.
	bypass bool
	// noCache: only what the service confirms now is used.
	noCache bool
	maxAge  time.Duration // -1: any
	// credentials: the response is meant for whoever sent them, unless it says
	// otherwise.
	credentials  bool
	ifNoneMatch  string
	hasNoneMatch bool
}

func ask(x *plugins.Exchange) question {
	q := question{uri: uriOf(x), maxAge: -1, credentials: x.Principal != nil, bypass: x.Body != nil}
	for i := range x.Fields {
		f := &x.Fields[i]
		switch {
		case is(f.Name, "authorization"), is(f.Name, "cookie"):
			q.credentials = true
		case is(f.Name, "range"), is(f.Name, "if-match"), is(f.Name, "if-unmodified-since"), is(f.Name, "if-modified-since"),
			is(f.Name, "if-range"), is(f.Name, "upgrade"):
			q.bypass = true
		case is(f.Name, "if-none-match"):
			// Several fields are one list (RFC 9110, 5.3).
			q.ifNoneMatch, q.hasNoneMatch = strings.TrimPrefix(q.ifNoneMatch+","+string(f.Value), ","), true
		case is(f.Name, "pragma"):
			q.noCache = q.noCache || strings.Contains(strings.ToLower(string(f.Value)), "no-cache")
		case is(f.Name, "cache-control"):
			d := directives(f.Value)
			q.bypass = q.bypass || d.has("no-store") || d.has("only-if-cached")
			q.noCache = q.noCache || d.has("no-cache") || d.has("min-fresh")
			if most, ok := d.seconds("max-age"); ok {
				q.maxAge = most
			}
		}
	}
	return q
}

// uriOf is the key: what was asked for, not what it is rewritten to.
func uriOf(x *plugins.Exchange) string {
	b := make([]byte, 0, len(x.Authority)+len(x.Path)+len(x.Query)+8)
	if x.TLS {
		b = append(b, 's')
	}
	b = append(append(b, "://"...), bytes.ToLower(x.Authority)...)
	b = append(b, x.Path...)
	if x.HasQuery {
		b = append(append(b, '?'), x.Query...)
	}
	return string(b)
}

// control are the directives of Cache-Control, names in lower case.
type control map[string]string

func directives(value []byte) control {
	d := control{}
	for element := range strings.SplitSeq(string(value), ",") {
		name, argument, _ := strings.Cut(strings.TrimSpace(element), "=")
		if name = strings.ToLower(name); name != "" {
			if before, twice := d[name]; twice && before != argument {
				// What contradicts itself is over at once (RFC 9111, 4.2.1).
				argument = "0"
			}
			d[name] = argument
		}
	}
	return d
}

func (d control) has(name string) bool { _, ok := d[name]; return ok }

// seconds reads a delta; one that is malformed is 0: stale (RFC 9111, 4.2.1).
func (d control) seconds(name string) (time.Duration, bool) {
	text, ok := d[name]
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.Trim(text, `"`), 10, 31)
	if err != nil {
		return 0, true
	}
	return time.Duration(n) * time.Second, true
}

// matches compares tags weakly (RFC 9110, 8.8.3.2 and 13.1.2).
func (q *question) matches(etag string) bool {
	if !q.hasNoneMatch || etag == "" {
		return false
	}
	if strings.TrimSpace(q.ifNoneMatch) == "*" {
		return true
	}
	for tag := range strings.SplitSeq(q.ifNoneMatch, ",") {
		if strings.TrimPrefix(strings.TrimSpace(tag), "W/") == strings.TrimPrefix(etag, "W/") {
			return true
		}
	}
	return false
}

// answer sends the entry.
func (e *entry) answer(x *plugins.Exchange, q question, how string) error {
	h := plugins.ResponseHead{Status: e.status, Length: int64(len(e.content))}
	content := e.content
	fields := make([]byte, 0, len(e.fields)+96)
	if q.matches(e.etag) {
		h.Status, h.Length, content = http.StatusNotModified, 0, nil
		for line := range bytes.Lines(e.fields) {
			if name, _, _ := bytes.Cut(line, []byte(":")); !is(name, "content-length") && !is(name, "content-type") && !is(name, "content-encoding") {
				fields = append(fields, line...)
			}
		}
	} else {
		fields = append(fields, e.fields...)
	}
	if string(x.Method) == http.MethodHead {
		h.Length, content = 0, nil
	}
	fields = append(fields, "Age: "...)
	fields = strconv.AppendInt(fields, int64(e.ageAt(x.Time)/time.Second), 10)
	fields = append(append(append(fields, "\r\nCache-Status: gatehouse; "...), how...), "\r\n"...)
	h.Fields = fields
	if err := x.Client.WriteHead(h); err != nil {
		return err
	}
	if len(content) > 0 {
		if _, err := x.Client.Write(content); err != nil {
			return err
		}
	}
	return x.Client.Finish()
}
