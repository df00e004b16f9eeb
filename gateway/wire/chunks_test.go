package wire

import (
	"bufio"
	"bytes"
	"io"
	"net/http/httputil"
	"strconv"
	"strings"
	"testing"
)

// decode runs the decoder over in, cut into pieces of at most size bytes.
func decode(in []byte, size int) (content, trailer, rest []byte, done bool, err error) {
	var d Chunks
	for len(in) > 0 && !done && err == nil {
		piece := in[:min(size, len(in))]
		var p []byte
		var used int
		p, used, done, err = d.Step(piece, &trailer)
		content = append(content, p...)
		in = in[used:]
	}
	return content, trailer, in, done, err
}

func TestChunkedDecoding(t *testing.T) {
	tests := map[string]struct {
		in, content, trailer string
		err                  error
	}{
		"one":                       {"3\r\nabc\r\n0\r\n\r\n", "abc", "", nil},
		"two":                       {"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", "abcd", "", nil},
		"empty":                     {"0\r\n\r\n", "", "", nil},
		"hex in both cases":         {"0a\r\n0123456789\r\n0A\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", "", nil},
		"several zeros end":         {"000\r\n\r\n", "", "", nil},
		"leading zeros":             {"0000000000000001\r\na\r\n0\r\n\r\n", "a", "", nil},
		"content looks like end":    {"5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n", "", nil},
		"extension":                 {"1;a=b\r\nx\r\n0;c\r\n\r\n", "x", "", nil},
		"extension after blanks":    {"1 \t;a=\"b c\" ; d\r\nx\r\n0\r\n\r\n", "x", "", nil},
		"trailers":                  {"0\r\nA: b\r\nC:\r\n\r\n", "", "A: b\r\nC:\r\n", nil},
		"no size":                   {"\r\nabc", "", "", errChunkSize},
		"sign":                      {"+3\r\nabc", "", "", errChunkSize},
		"negative":                  {"-3\r\nabc", "", "", errChunkSize},
		"prefix":                    {"0x3\r\nabc", "", "", errChunkSize},
		"not hex":                   {"g\r\nabc", "", "", errChunkSize},
		"blank first":               {" 3\r\nabc", "", "", errChunkSize},
		"blank and no extension":    {"3 \r\nabc", "", "", errChunkExt},
		"blank inside":              {"3 3\r\nabc", "", "", errChunkExt},
		"underscore":                {"1_0\r\nabc", "", "", errChunkSize},
		"overflow":                  {"ffffffffffffffff\r\n", "", "", errChunkSize},
		"just an overflow":          {"8000000000000000\r\n", "", "", errChunkSize},
		"too many digits":           {"00000000000000001\r\na", "", "", errChunkSize},
		"line feed after size":      {"3\nabc\r\n", "", "", errChunkSize},
		"carriage return only":      {"3\rabc\r\n", "", "", errChunkSize},
		"line feed in extension":    {"3;a\nabc\r\n", "", "", errChunkExt},
		"control in extension":      {"3;a\x00\r\nabc\r\n", "", "", errChunkExt},
		"long extension":            {"3;" + strings.Repeat("a", 64) + "\r\nabc", "", "", errChunkExt},
		"many extensions":           {strings.Repeat("1;"+strings.Repeat("a", 60)+"\r\nx\r\n", 17), "xxxxxxxxxxxxxxxx", "", errChunkExt},
		"size is too small":         {"2\r\nabc\r\n0\r\n\r\n", "ab", "", errChunkEnd},
		"line feed after content":   {"3\r\nabc\n0\r\n\r\n", "abc", "", errChunkEnd},
		"return after content":      {"3\r\nabc\r0\r\n\r\n", "abc", "", errChunkEnd},
		"line feed ends trailers":   {"0\r\n\n", "", "", errTrailer},
		"line feed in trailers":     {"0\r\nA: b\n\r\n", "", "A: b", errTrailer},
		"return ends trailers":      {"0\r\n\rx", "", "", errTrailer},
		"return in a trailer":       {"0\r\nA: b\rc\r\n\r\n", "", "A: b\r", errTrailer},
		"trailer without name":      {"0\r\n: b\r\n\r\n", "", "", errTrailer},
		"trailer without colon":     {"0\r\nab\r\n\r\n", "", "ab", errTrailer},
		"blank in a trailer name":   {"0\r\nA : b\r\n\r\n", "", "A", errTrailer},
		"folded trailer":            {"0\r\nA: b\r\n c\r\n\r\n", "", "A: b\r\n", errTrailer},
		"control in a trailer":      {"0\r\nA: \x01\r\n\r\n", "", "A: ", errTrailer},
		"trailers without end":      {"0\r\nA: " + strings.Repeat("a", maxTrailer), "", "A: " + strings.Repeat("a", maxTrailer-3), errTrailerLarge},
		"blank after the size line": {"0\r\n \r\n\r\n", "", "", errTrailer},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			for size := 1; size < 7; size++ {
				content, trailer, rest, done, err := decode([]byte(tc.in+"NEXT"), size)
				if string(content) != tc.content || string(trailer) != tc.trailer || err != tc.err {
					t.Fatalf("in pieces of %d: content %q, trailer %q, error %v", size, content, trailer, err)
				}
				if done != (tc.err == nil) || done && string(rest) != "NEXT" {
					t.Fatalf("in pieces of %d: done %v, rest %q", size, done, rest)
				}
			}
		})
	}
}

func TestAppendChunkIsDecodedAgain(t *testing.T) {
	var out []byte
	for _, p := range []string{"a", "", strings.Repeat("b", 300)} {
		out = appendChunk(out, []byte(p))
	}
	out = append(out, "0\r\n\r\n"...)
	content, _, rest, done, err := decode(out, len(out))
	if string(content) != "a"+strings.Repeat("b", 300) || !done || len(rest) != 0 || err != nil {
		t.Errorf("content %q, done %v, rest %q, error %v", content, done, rest, err)
	}
}

// What the decoder accepts, the standard library's reader accepts with the
// same content and the same end, however the input is cut.
func FuzzChunksAgainstStandardLibrary(f *testing.F) {
	for _, s := range []string{
		"3\r\nabc\r\n0\r\n\r\n", "0\r\n\r\n", "5;a=b\r\nabcde\r\n00\r\nA: b\r\n\r\nrest", "1\nx\n0\n\n", "ffffffffffffffff\r\n",
		"3 \r\nabc\r\n0\r\n\r\n", "0x1\r\na", "1\r\na\r\n1 ;q=\"\"\r\nb\r\n0\r\nX:\r\n\r\n",
	} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		content, trailer, rest, done, err := decode(in, len(in)+1)
		c2, t2, r2, d2, e2 := decode(in, int(cut)+1)
		if !bytes.Equal(content, c2) || !bytes.Equal(trailer, t2) || done != d2 || err != e2 || done && !bytes.Equal(rest, r2) {
			t.Fatalf("depends on how the input is cut: %q/%q, %v/%v", content, c2, err, e2)
		}
		if !done {
			return
		}
		src := bufio.NewReader(bytes.NewReader(in))
		std, err := io.ReadAll(httputil.NewChunkedReader(src))
		if err != nil {
			return // it refuses blanks before an extension, and too many small chunks
		}
		if !bytes.Equal(std, content) {
			t.Fatalf("we read %q, the standard library %q", content, std)
		}
		// Its reader stops before the trailer section.
		left, _ := io.ReadAll(src)
		if want := string(trailer) + "\r\n" + string(rest); string(left) != want {
			t.Fatalf("the body ends before %q, for the standard library before %q", want, left)
		}
	})
}

func FuzzHeadEndsWhereTheEmptyLineIs(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nA: b\r\n\r\nrest"), uint8(2))
	f.Add([]byte("HTTP/1.1 200 OK\nA: b\n\n"), uint8(1))
	f.Add([]byte("\r\n\r\n\r\n"), uint8(3))
	f.Fuzz(func(t *testing.T, in []byte, cut uint8) {
		end := bytes.Index(in, headEnd) + len(headEnd)
		seen := 0
		for have := 0; have < len(in); {
			have = min(have+int(cut)+1, len(in))
			n, err := HeadLength(in[:have], seen)
			seen = have
			switch {
			case n > 0 && n != end:
				t.Fatalf("head of %q ends at %d, found %d", in, end, n)
			case n > 0:
				return
			case err != nil:
				if lf := bytes.ReplaceAll(in[:have], []byte("\r\n"), nil); bytes.IndexByte(lf, '\n') < 0 {
					t.Fatalf("no bare line feed in %q", in[:have])
				}
				return
			}
		}
		if end >= len(headEnd) {
			t.Fatalf("no end found in %q", in)
		}
	})
}

func BenchmarkChunks(b *testing.B) {
	var in []byte
	for range 8 {
		in = append(append(in, "3e8\r\n"...), append(make([]byte, 1000), "\r\n"...)...)
	}
	in = append(in, "0\r\n\r\n"...)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		var d Chunks
		for p, trailer := in, []byte(nil); len(p) > 0; {
			_, used, _, err := d.Step(p, &trailer)
			if err != nil {
				b.Fatal(err)
			}
			p = p[used:]
		}
	}
}

// appendChunk appends p as one chunk; an empty p appends nothing.
func appendChunk(dst, p []byte) []byte {
	if len(p) == 0 {
		return dst
	}
	dst = strconv.AppendUint(dst, uint64(len(p)), 16)
	dst = append(dst, '\r', '\n')
	dst = append(dst, p...)
	return append(dst, '\r', '\n')
}
