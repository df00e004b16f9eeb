package wire

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/valyala/fasthttp"
)

// FuzzRequestAgainstOthers: a head that passes here is, if net/http and fasthttp
// accept it at all, the same message to them: method, target, framing. They may
// be stricter about what is no matter of framing: net/http about targets,
// hosts and versions, fasthttp about methods and targets.
func FuzzRequestAgainstOthers(f *testing.F) {
	for _, seed := range append(matrixSeeds,
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding:\tCHUNKED \r\n\r\n0\r\n\r\n",
		"GET /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX-A: \x80\r\nx_y: 1\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: Content-Length\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\nHost: a\n\n", "GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
	) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		n, err := HeadLength(raw, 0)
		if err != nil || n == 0 {
			return
		}
		method, target, http10, header, err := CutRequestLine(raw[:n])
		if err != nil {
			return
		}
		var r Request
		if _, err := ScanRequest(header, &r, nil, 100); err != nil || r.Hosts != 1 || http10 && r.Chunked {
			return
		}
		if _, ok := SplitTarget(target); !ok {
			return
		}
		length := max(r.Length, 0)
		if req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw))); err == nil {
			if req.Method != string(method) || req.RequestURI != string(target) {
				t.Fatalf("%q: net/http reads %s %s", raw, req.Method, req.RequestURI)
			}
			if chunked := len(req.TransferEncoding) > 0; chunked != r.Chunked || !chunked && req.ContentLength != length {
				t.Fatalf("%q: net/http reads a length of %d, chunked %v", raw, req.ContentLength, chunked)
			}
		}
		var h fasthttp.RequestHeader
		if err := h.Read(bufio.NewReaderSize(bytes.NewReader(raw), 64<<10)); err != nil || err == io.EOF {
			return
		}
		if !bytes.Equal(h.Method(), method) || !bytes.Equal(h.RequestURI(), target) {
			t.Fatalf("%q: fasthttp reads %s %s", raw, h.Method(), h.RequestURI())
		}
		switch theirs := int64(h.ContentLength()); {
		case r.Chunked != (theirs == -1), !r.Chunked && max(theirs, 0) != length:
			t.Fatalf("%q: fasthttp reads a length of %d", raw, theirs)
		}
	})
}
