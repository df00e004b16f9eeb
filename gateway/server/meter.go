package server

import (
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// meter follows the frames of one direction of a connection (RFC 9113, 4.1).
type meter struct {
	preface int // bytes of the client's preface still to come
	header  [9]byte
	have    int // bytes of header
	left    int // bytes of payload still to come
	block   bool
}

// pass looks at the next bytes and calls frame for each header in them.
func (m *meter) pass(p []byte, frame func(kind http2.FrameType, flags http2.Flags, length int)) {
	n := min(m.preface, len(p))
	m.preface -= n
	p = p[n:]
	for len(p) > 0 {
		if m.left > 0 {
			n := min(m.left, len(p))
			m.left -= n
			p = p[n:]
			continue
		}
		n := copy(m.header[m.have:], p)
		m.have += n
		p = p[n:]
		if m.have < len(m.header) {
			return
		}
		m.have = 0
		h := &m.header
		m.left = int(h[0])<<16 | int(h[1])<<8 | int(h[2])
		kind, flags := http2.FrameType(h[3]), http2.Flags(h[4])
		if kind == http2.FrameHeaders || kind == http2.FrameContinuation {
			m.block = !flags.Has(http2.FlagHeadersEndHeaders)
		}
		frame(kind, flags, m.left)
	}
}

// between reports whether the last frame is complete.
func (m *meter) between() bool { return m.have == 0 && m.left == 0 }

// A client may send this many frames that carry nothing beyond what its
// requests and our answers explain, and it gets so much of that back each
// second. Floods of resets (CVE-2023-44487), pings and settings
// (CVE-2019-9512, 9515), and empty frames (CVE-2019-9518) end the connection; a
// client that cancels half of its requests, or measures the way with a ping for
// each answer, goes on for ever.
const creditLimit, creditPerSecond = 2000.0, 200.0

// price is what a frame from the client costs; a request earns something.
func price(kind http2.FrameType, flags http2.Flags, length int) float64 {
	switch kind {
	case http2.FrameHeaders:
		return -1
	case http2.FrameRSTStream:
		return 2
	case http2.FrameData:
		if length == 0 && !flags.Has(http2.FlagDataEndStream) {
			return 1
		}
		return 0
	case http2.FrameWindowUpdate:
		return 0.5
	}
	return 1
}

// worth is what a frame to the client earns it: it may be acknowledged with a
// window update for the stream and one for the connection, and with a ping.
func worth(kind http2.FrameType) float64 {
	if kind == http2.FrameData || kind == http2.FrameHeaders {
		return 2
	}
	return 0
}

// credit is what a client has left to spend.
type credit struct {
	mu   sync.Mutex
	left float64
	at   time.Time
}

// take spends n and reports whether there was so much.
func (c *credit) take(n float64, now func() time.Time) bool {
	if n == 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left -= n; c.left < 0 {
		t := now()
		c.left += t.Sub(c.at).Seconds() * creditPerSecond
		c.at = t
	}
	c.left = min(c.left, creditLimit)
	return c.left >= 0
}

func (c *credit) give(n float64) {
	if n == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = min(c.left+n, creditLimit)
}
