package forward

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/gatehouse/gatehouse/gateway/upstream"
	"github.com/gatehouse/gatehouse/gateway/wire"
	"github.com/gatehouse/gatehouse/plugins"
)

var (
	errNotAccepted = errors.New("accepted another handshake than the client's")
	errNoKey       = errors.New("not exactly one Sec-WebSocket-Key")
)

// Close codes (RFC 6455, 7.4.1).
const (
	closeGoingAway = 1001
	closePolicy    = 1008
)

// upgradeLines ask for the tunnel, and announce it.
const upgradeLines = "Connection: Upgrade\r\nUpgrade: websocket\r\n"

// accepted checks that a 101 answers this client's handshake (RFC 6455, 4.2.2):
// a cache or a confused service could have sent another.
func (f *forwarder) accepted(x *plugins.Exchange, sc *scratch) error {
	if !f.wantsTunnel(x) {
		return errSwitched
	}
	key, n := x.Field("sec-websocket-key")
	if n != 1 {
		return errNoKey
	}
	h := sha1.New()
	h.Write(key)
	io.WriteString(h, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
	want := base64.StdEncoding.EncodeToString(h.Sum(nil))
	found := 0
	for i := range sc.fields {
		if wire.EqualFold(sc.fields[i].Name, "sec-websocket-accept") {
			if string(sc.fields[i].Value) != want {
				return errNotAccepted
			}
			found++
		}
	}
	if found != 1 || !wire.EqualFold(sc.answer.Upgrade, "websocket") {
		return errNotAccepted
	}
	return nil
}

func (f *forwarder) wantsTunnel(x *plugins.Exchange) bool { return x.WebSocket && f.streams.WebSocket }

const (
	tunnelBuffer = 8 << 10
	// tunnelWrite bounds one write to the service.
	tunnelWrite = 30 * time.Second
	// farewell bounds the writing of a close frame.
	farewell = time.Second
)

// tunnel carries bytes both ways until either side ends, or the stream is due.
// The service's connection is never used again.
func (f *forwarder) tunnel(x *plugins.Exchange, c *upstream.Conn, sc *scratch) *plugins.Error {
	sc.lines = append(sc.lines, upgradeLines...)
	client, err := x.Client.Upgrade(plugins.ResponseHead{
		Status: http.StatusSwitchingProtocols, Reason: sc.answer.Reason, Fields: sc.lines,
	})
	if err != nil {
		var e *plugins.Error
		if errors.As(err, &e) {
			return e
		}
		return gone(err)
	}
	c.Detach()
	c.BodyUntilClose()
	x.Client.Watch(nil)
	sc.enter(x, f.streams, true, f.now())
	x.Client.Watch(&sc.standing)

	up := &upstreamward{client: client, c: c, s: &sc.standing, now: f.now, done: make(chan struct{})}
	go up.run()
	var down frames
	for {
		p, err := c.Next(sc.end.Add(tunnelWrite))
		if len(p) > 0 {
			sc.touch(f.now())
			x.Record.BytesOut += int64(len(p))
			down.pass(p)
			if _, err := client.Write(p); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	x.Client.Watch(nil)
	ended := sc.ended()
	if ended != nil && down.between() {
		_, _ = client.Write(closeFrame(closeCode(ended.Code), false)) // the client may have left
	}
	client.Close()
	<-up.done
	x.Record.BytesIn = up.read
	if ended != nil && up.frames.between() {
		_ = c.Write(closeFrame(closeCode(ended.Code), true), f.now().Add(farewell))
	}
	c.Abort()
	if ended != nil {
		return ended
	}
	return nil
}

func closeCode(reason string) uint16 {
	switch reason {
	case plugins.TokenExpired, plugins.TokenRevoked:
		return closePolicy
	}
	return closeGoingAway
}

// upstreamward is the client's half of a tunnel.
type upstreamward struct {
	client plugins.Tunnel
	c      *upstream.Conn
	s      *standing
	now    func() time.Time
	done   chan struct{}
	// Valid once done is closed.
	frames frames
	read   int64
}

func (u *upstreamward) run() {
	defer close(u.done)
	buf := make([]byte, tunnelBuffer)
	for {
		n, err := u.client.Read(buf)
		if n > 0 {
			now := u.now()
			u.s.touch(now)
			u.read += int64(n)
			u.frames.pass(buf[:n])
			if u.c.Write(buf[:n], now.Add(tunnelWrite)) != nil {
				u.c.AbortRead()
				return
			}
		}
		if err != nil {
			u.c.AbortRead()
			return
		}
	}
}

// frames follows the frames of one direction (RFC 6455, 5.2), to know where a
// frame of ours can stand.
type frames struct {
	head [10]byte
	have int
	left uint64 // of the frame's mask and payload
}

// pass takes in the next bytes.
func (f *frames) pass(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, uint64(len(p)))
			f.left -= n
			p = p[n:]
			continue
		}
		f.head[f.have] = p[0]
		f.have++
		p = p[1:]
		if f.have >= 2 && f.have == f.headLength() {
			f.left = f.length()
			f.have = 0
		}
	}
}

func (f *frames) headLength() int {
	switch f.head[1] & 0x7f {
	case 126:
		return 4
	case 127:
		return 10
	}
	return 2
}

func (f *frames) length() uint64 {
	n := uint64(f.head[1] & 0x7f)
	switch n {
	case 126:
		n = uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		n = binary.BigEndian.Uint64(f.head[2:])
	}
	if f.head[1]&0x80 != 0 {
		n += 4
	}
	return n
}

// between reports whether the last frame has ended.
func (f *frames) between() bool { return f.have == 0 && f.left == 0 }

// closeFrame is a close frame with a code, as servers or as clients send it:
// theirs are masked, which the mask of zeros is too.
func closeFrame(code uint16, masked bool) []byte {
	b := []byte{0x88, 2}
	if masked {
		b[1] |= 0x80
		b = append(b, 0, 0, 0, 0)
	}
	return binary.BigEndian.AppendUint16(b, code)
}
