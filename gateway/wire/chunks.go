package wire

import (
	"errors"
	"math"
)

// Bounds on what a chunked body may carry besides its content, so that nobody
// can make us read framing for ever.
const (
	maxChunkDigits    = 16
	maxChunkExtension = 64      // per chunk
	maxExtensions     = 1 << 10 // per body
	maxTrailer        = 8 << 10
)

var (
	errChunkSize    = errors.New("bad chunk size")
	errChunkExt     = errors.New("bad or long chunk extension")
	errChunkEnd     = errors.New("chunk does not end with CRLF")
	errTrailer      = errors.New("bad trailer section")
	errTrailerLarge = errors.New("trailer section too large")
)

// Chunks decodes a chunked body. It accepts exactly RFC 9112, 7.1 within the
// bounds above: whoever is more lenient sees other messages than the rest of
// the chain.
type Chunks struct {
	state  chunkState
	digits uint8
	last   bool
	size   int64 // content of this chunk that is still to come
	ext    int   // length of this chunk's extension
	exts   int   // length of all
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkBlank
	chunkExt
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	trailerLine
	trailerName
	trailerValue
	trailerLF
	trailerEnd
)

// Step decodes in up to the end of a piece of content, of the body, or of in.
// content is lent from in and ends at in[used]; trailer lines are appended to
// trailer.
func (d *Chunks) Step(in []byte, trailer *[]byte) (content []byte, used int, done bool, err error) {
	for i := 0; i < len(in); i++ {
		if d.state == chunkData {
			n := int(min(int64(len(in)-i), d.size))
			if d.size -= int64(n); d.size == 0 {
				d.state = chunkDataCR
			}
			return in[i : i+n], i + n, false, nil
		}
		if d.state >= trailerLine {
			done, err = d.trailer(in[i], trailer)
		} else {
			err = d.frame(in[i])
		}
		if done || err != nil {
			return nil, i + 1, done, err
		}
	}
	return nil, len(in), false, nil
}

// frame takes one byte around content.
func (d *Chunks) frame(b byte) error {
	switch d.state {
	case chunkSize:
		if v, ok := hexDigit(b); ok {
			if d.digits == maxChunkDigits || d.size > math.MaxInt64>>4 {
				return errChunkSize
			}
			d.digits++
			d.size = d.size<<4 | int64(v)
			return nil
		}
		if d.digits == 0 {
			return errChunkSize
		}
		d.last = d.size == 0
		return d.afterSize(b)
	case chunkBlank, chunkExt:
		return d.afterSize(b)
	case chunkSizeLF:
		if b != '\n' {
			return errChunkSize
		}
		d.state = chunkData
		if d.last {
			d.state = trailerLine
		}
	case chunkDataCR:
		if b != '\r' {
			return errChunkEnd
		}
		d.state = chunkDataLF
	case chunkDataLF:
		if b != '\n' {
			return errChunkEnd
		}
		*d = Chunks{exts: d.exts}
	}
	return nil
}

// afterSize takes one byte between the size and the end of its line: blanks
// are there only before an extension's semicolon.
func (d *Chunks) afterSize(b byte) error {
	switch {
	case b == '\r' && d.state != chunkBlank:
		d.state = chunkSizeLF
		return nil
	case d.state == chunkExt && isText(b):
	case b == ';':
		d.state = chunkExt
	case b == ' ' || b == '\t':
		d.state = chunkBlank
	case d.state == chunkSize:
		return errChunkSize
	default:
		return errChunkExt
	}
	d.ext++
	d.exts++
	if d.ext > maxChunkExtension || d.exts > maxExtensions {
		return errChunkExt
	}
	return nil
}

// trailer takes one byte of the trailer section and keeps it, but for the
// empty line that ends the section.
func (d *Chunks) trailer(b byte, kept *[]byte) (done bool, err error) {
	switch d.state {
	case trailerLine:
		switch {
		case b == '\r':
			d.state = trailerEnd
			return false, nil
		case !isToken(b):
			return false, errTrailer
		}
		d.state = trailerName
	case trailerName:
		if b == ':' {
			d.state = trailerValue
		} else if !isToken(b) {
			return false, errTrailer
		}
	case trailerValue:
		if b == '\r' {
			d.state = trailerLF
		} else if !isText(b) {
			return false, errTrailer
		}
	case trailerLF:
		if b != '\n' {
			return false, errTrailer
		}
		d.state = trailerLine
	case trailerEnd:
		if b != '\n' {
			return false, errTrailer
		}
		return true, nil
	}
	if len(*kept) == maxTrailer {
		return false, errTrailerLarge
	}
	*kept = append(*kept, b)
	return false, nil
}

func hexDigit(b byte) (byte, bool) {
	switch {
	case '0' <= b && b <= '9':
		return b - '0', true
	case 'a' <= b && b <= 'f':
		return b - 'a' + 10, true
	case 'A' <= b && b <= 'F':
		return b - 'A' + 10, true
	}
	return 0, false
}

// isText reports whether b may stand in a field value (RFC 9110, 5.5).
func isText(b byte) bool { return b >= ' ' && b != 0x7F || b == '\t' }

// isToken reports whether b may stand in a field name (RFC 9110, 5.6.2).
func isToken(b byte) bool {
	switch {
	case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		return true
	}
	switch b {
	case '!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~':
		return true
	}
	return false
}
