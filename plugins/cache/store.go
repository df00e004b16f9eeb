package cache

import (
	"bytes"
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
)

// entry is one stored response; immutable.
type entry struct {
	uri     string
	vary    []string // names in lower case
	variant [sha256.Size]byte
	status  int
	fields  []byte // complete lines, with Date and Content-Length
	content []byte
	etag    string
	changed string // Last-Modified
	// stored is when the response was made, age how old it was then.
	stored time.Time
	age    time.Duration
	life   time.Duration
	// private: it may not be given to requests that carry credentials
	// (RFC 9111, 3.5).
	private bool
}

// fresh reports whether the entry may be used without asking the service.
func (e *entry) fresh(now time.Time, most time.Duration) bool {
	age := e.ageAt(now)
	return age < e.life && (most < 0 || age <= most)
}

func (e *entry) ageAt(now time.Time) time.Duration { return e.age + max(0, now.Sub(e.stored)) }

// size is what the entry takes of the store.
func (e *entry) size() int64 {
	return int64(len(e.uri)+len(e.fields)+len(e.content)+len(e.etag)+len(e.changed)) + 512
}

// store keeps the entries that were used last, up to a number of bytes.
type store struct {
	most int64
	// gathering is how much responses under way may add.
	gathering atomic.Int64

	mu    sync.Mutex
	bytes int64
	byURI map[string][]*list.Element // of *entry
	order *list.List                 // the entry that was used last comes first
}

// mostVariants bounds the responses of one URI.
const mostVariants = 16

func newStore(most int64) *store {
	return &store{most: most, byURI: map[string][]*list.Element{}, order: list.New()}
}

// size is how much is stored.
func (s *store) size() (entries int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.order.Len(), s.bytes
}

// find returns the response that was selected by the same fields; nil if there
// is none.
func (s *store) find(uri string, x *plugins.Exchange) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, element := range s.byURI[uri] {
		e := element.Value.(*entry)
		if e.variant == variantOf(e.vary, x) {
			s.order.MoveToFront(element)
			return e
		}
	}
	return nil
}

// put stores e in the place of what was selected by the same fields.
func (s *store) put(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, element := range s.byURI[e.uri] {
		if old := element.Value.(*entry); old.variant == e.variant {
			s.drop(element)
			break
		}
	}
	if e.size() > s.most {
		return
	}
	if all := s.byURI[e.uri]; len(all) >= mostVariants {
		s.drop(all[0])
	}
	s.byURI[e.uri] = append(s.byURI[e.uri], s.order.PushFront(e))
	s.bytes += e.size()
	for s.bytes > s.most {
		s.drop(s.order.Back())
	}
}

func (s *store) forget(uri string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.byURI[uri]) > 0 {
		s.drop(s.byURI[uri][0])
	}
}

// drop is called with mu held.
func (s *store) drop(element *list.Element) {
	e := element.Value.(*entry)
	s.order.Remove(element)
	s.bytes -= e.size()
	rest := s.byURI[e.uri][:0:0]
	for _, other := range s.byURI[e.uri] {
		if other != element {
			rest = append(rest, other)
		}
	}
	if len(rest) == 0 {
		delete(s.byURI, e.uri)
	} else {
		s.byURI[e.uri] = rest
	}
}

// variantOf hashes what a request says in the fields of a Vary. Values are not
// kept: they could be secrets.
func variantOf(vary []string, x *plugins.Exchange) [sha256.Size]byte {
	h := sha256.New()
	for _, name := range vary {
		h.Write(binary.AppendUvarint(nil, uint64(len(name))))
		h.Write([]byte(name))
		for i := range x.Fields {
			if f := &x.Fields[i]; !f.Drop && is(f.Name, name) {
				h.Write(binary.AppendUvarint([]byte{1}, uint64(len(f.Value))))
				h.Write(f.Value)
			}
		}
		h.Write([]byte{0})
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// varyOf reads the lines of a head. ok is false where the response was selected
// by what a cache cannot see: "*", credentials, and what only the gateway tells
// a service.
func varyOf(fields []byte) (names []string, ok bool) {
	for line := range bytes.Lines(fields) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if !is(name, "vary") {
			continue
		}
		for element := range strings.SplitSeq(strings.ToLower(string(value)), ",") {
			element = strings.TrimSpace(element)
			switch {
			case element == "":
				continue
			case element == "*", element == "authorization", element == "cookie", element == "forwarded", element == "x-real-ip",
				strings.HasPrefix(element, "x-auth-"), strings.HasPrefix(element, "x-forwarded-"):
				return nil, false
			}
			names = append(names, element)
		}
	}
	return names, true
}

func is(name []byte, lower string) bool {
	return len(name) == len(lower) && bytes.EqualFold(name, []byte(lower))
}
