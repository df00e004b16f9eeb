package server

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// raw is a client that writes frames by hand.
type raw struct {
	*http2.Framer
	net.Conn
	block bytes.Buffer
	enc   *hpack.Encoder
}

func (r *h2rig) raw(t testing.TB) *raw {
	t.Helper()
	c, err := net.Dial("tcp", r.clear)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	w := &raw{Framer: http2.NewFramer(c, c), Conn: c}
	w.enc = hpack.NewEncoder(&w.block)
	w.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := w.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return w
}

// head encodes name, value, name, value, …
func (w *raw) head(fields ...string) []byte {
	w.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = w.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(w.block.Bytes())
}

// outcome is the status of the next response, or what ended its stream.
func (w *raw) outcome(t testing.TB) string { return w.outcomeOf(t, 0) }

// outcomeOf is outcome for one stream, any if it is 0.
func (w *raw) outcomeOf(t testing.TB, stream uint32) string {
	t.Helper()
	for {
		f, err := w.ReadFrame()
		if err != nil {
			return "closed"
		}
		if id := f.Header().StreamID; stream != 0 && id != 0 && id != stream {
			continue
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return f.ErrCode.String()
		case *http2.GoAwayFrame:
			return "GOAWAY " + f.ErrCode.String()
		}
	}
}

// FuzzMeterSeesTheSameFramesHoweverTheyArrive compares a whole read with pieces.
func FuzzMeterSeesTheSameFramesHoweverTheyArrive(f *testing.F) {
	var frames bytes.Buffer
	fr := http2.NewFramer(&frames, nil)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 15})
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("abc")})
	_ = fr.WriteContinuation(1, true, []byte("def"))
	_ = fr.WriteData(1, true, bytes.Repeat([]byte("x"), 300))
	f.Add(append([]byte(http2.ClientPreface), frames.Bytes()...), uint8(1))
	f.Add([]byte(http2.ClientPreface), uint8(7))
	f.Fuzz(func(t *testing.T, stream []byte, size uint8) {
		type seen struct {
			kind   http2.FrameType
			flags  http2.Flags
			length int
		}
		watch := func(step int) (list []seen, m meter) {
			m.preface = len(http2.ClientPreface)
			for rest := stream; len(rest) > 0; {
				n := min(step, len(rest))
				m.pass(rest[:n], func(kind http2.FrameType, flags http2.Flags, length int) {
					list = append(list, seen{kind, flags, length})
				})
				rest = rest[n:]
			}
			return list, m
		}
		whole, a := watch(max(len(stream), 1))
		pieces, b := watch(int(size%64) + 1)
		if len(whole) != len(pieces) || a.block != b.block || a.between() != b.between() {
			t.Fatalf("%d and %d frames, %+v and %+v", len(whole), len(pieces), a, b)
		}
		for i := range whole {
			if whole[i] != pieces[i] {
				t.Fatalf("frame %d: %+v and %+v", i, whole[i], pieces[i])
			}
		}
	})
}
