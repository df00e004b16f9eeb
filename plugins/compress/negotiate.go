package compress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/gatehouse/gatehouse/plugins"
)

// Coding is one of the content codings.
type Coding uint8

const (
	zstandard Coding = iota
	brotliCoding
	gzipCoding
	numCodings
)

var names = [numCodings]string{"zstd", "br", "gzip"}

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Coding) UnmarshalText(text []byte) error {
	i := slices.Index(names[:], string(text))
	if i < 0 {
		return fmt.Errorf("%q is none of %s", text, strings.Join(names[:], ", "))
	}
	*c = Coding(i)
	return nil
}

// MediaType is a media type without parameters, or KIND/*.
type MediaType string

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *MediaType) UnmarshalText(text []byte) error {
	kind, sub, ok := strings.Cut(strings.ToLower(string(text)), "/")
	if !ok || kind == "" || sub == "" || strings.ContainsAny(kind+sub, " ;,/") || strings.Contains(kind, "*") ||
		sub != "*" && strings.Contains(sub, "*") {
		return fmt.Errorf("%q is not a media type such as application/json or text/*", text)
	}
	*m = MediaType(strings.ToLower(string(text)))
	return nil
}

// matches compares with the value of a Content-Type field.
func (m MediaType) matches(value []byte) bool {
	value, _, _ = bytes.Cut(value, []byte(";"))
	value = bytes.TrimSpace(value)
	if kind, all := strings.CutSuffix(string(m), "*"); all {
		return len(value) > len(kind) && bytes.EqualFold(value[:len(kind)], []byte(kind))
	}
	return bytes.EqualFold(value, []byte(m))
}

// encoder is what the libraries have in common.
type encoder interface {
	io.WriteCloser
	Flush() error
	Reset(w io.Writer)
}

var makers = [numCodings]func() (encoder, error){
	zstandard: func() (encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
			zstd.WithWindowSize(256<<10), zstd.WithEncoderLevel(zstd.SpeedFastest))
	},
	brotliCoding: func() (encoder, error) {
		return brotli.NewWriterOptions(nil, brotli.WriterOptions{Quality: 4, LGWin: 18}), nil
	},
	gzipCoding: func() (encoder, error) { return gzip.NewWriterLevel(nil, gzip.DefaultCompression) },
}

// coder keeps spare encoders of one coding.
type coder struct {
	make func() (encoder, error)
	pool sync.Pool // of encoder
}

func (c *coder) get() (encoder, error) {
	if e, ok := c.pool.Get().(encoder); ok {
		return e, nil
	}
	return c.make()
}

var errBusy = errors.New("too many responses are being encoded")

// take lends an encoder; give ends the loan.
func (p *Plugin) take(c Coding) (encoder, error) {
	if p.active.Add(1) > mostEncoders {
		p.active.Add(-1)
		return nil, errBusy
	}
	e, err := p.coders[c].get()
	if err != nil {
		p.active.Add(-1)
	}
	return e, err
}

func (p *Plugin) give(c Coding, e encoder) {
	e.Reset(nil)
	p.coders[c].pool.Put(e)
	p.active.Add(-1)
}

// negotiate returns the coding of the highest quality that the client accepts,
// of several the one that stands first in preference (RFC 9110, 12.5.3).
func negotiate(x *plugins.Exchange, preference []Coding) (best Coding, ok bool) {
	var quality [numCodings]int // in thousandths, one more; 0: not named
	others := 0
	for i := range x.Fields {
		f := &x.Fields[i]
		if len(f.Name) != len("accept-encoding") || !bytes.EqualFold(f.Name, []byte("accept-encoding")) {
			continue
		}
		for element := range bytes.SplitSeq(f.Value, []byte(",")) {
			name, parameters, _ := bytes.Cut(element, []byte(";"))
			name = bytes.TrimSpace(name)
			q := qualityOf(parameters)
			if len(name) == 1 && name[0] == '*' {
				others = q + 1
			}
			for c := range names {
				if bytes.EqualFold(name, []byte(names[c])) || c == int(gzipCoding) && bytes.EqualFold(name, []byte("x-gzip")) {
					quality[c] = q + 1
				}
			}
		}
	}
	most := 1
	for _, c := range preference {
		q := quality[c]
		if q == 0 {
			q = others
		}
		if q > most {
			best, ok, most = c, true, q
		}
	}
	return best, ok
}

// qualityOf reads ";q=0.5" in thousandths; 1000 where there is none, 0 where it
// is malformed.
func qualityOf(parameters []byte) int {
	for p := range bytes.SplitSeq(parameters, []byte(";")) {
		key, value, ok := bytes.Cut(bytes.TrimSpace(p), []byte("="))
		if !ok || !bytes.EqualFold(bytes.TrimSpace(key), []byte("q")) {
			continue
		}
		q, err := strconv.ParseFloat(string(bytes.TrimSpace(value)), 64)
		if err != nil || !(q >= 0 && q <= 1) {
			return 0
		}
		return int(q * 1000)
	}
	return 1000
}
