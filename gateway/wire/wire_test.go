package wire

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
)

func scan(raw string) (Request, []plugins.Field, error) {
	var r Request
	fields, err := ScanRequest([]byte(raw), &r, nil, 100)
	return r, fields, err
}

func TestViolationsOfRequestHeads(t *testing.T) {
	f := func(raw string, want error) {
		t.Helper()
		if _, _, err := scan(raw); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", raw, err, want)
		}
	}
	f("A: 1\r\n\r\n", nil)
	f("", ErrIncompleteHead)
	f("A:\r\n\r\n", nil)
	f("A: \t b \t\r\n\r\n", nil)
	f("A: \x80\xff\r\n\r\n", nil)
	f("A: 1\n\r\n", ErrLineEnd)
	f("A: 1\r\n\n", ErrLineEnd)
	f("A: 1\r\n\r\nB: 2\r\n\r\n", ErrLineEnd)
	f("A: 1", ErrIncompleteHead)
	f(": 1\r\n\r\n", ErrName)
	f("A 1\r\n\r\n", ErrName)
	f("A : 1\r\n\r\n", ErrName)
	f("A\x00: 1\r\n\r\n", ErrName)
	f("A: 1\r\n b\r\n\r\n", ErrFolded)
	f("A: 1\r2\r\n\r\n", ErrValue)
	f("A: aaaaaaaaaaaaaaaaaaaaaaa\x7f\r\n\r\n", ErrValue)
	f("A: aaaaaaaaaaaaaaa\x1faaaaaaa\r\n\r\n", ErrValue)
	f("Content-Length: 1\r\nContent-Length: 1\r\n\r\n", ErrLength)
	f("Content-Length: 1, 1\r\n\r\n", ErrLength)
	f("Content-Length: -1\r\n\r\n", ErrLength)
	f("Content-Length:\r\n\r\n", ErrLength)
	f("Content-Length: 99999999999999999999\r\n\r\n", ErrLength)
	f("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", ErrCoding)
	f("Transfer-Encoding: chunked, chunked\r\n\r\n", ErrCoding)
	f("Transfer-Encoding: identity\r\n\r\n", ErrCoding)
	f("Transfer-Encoding: \x0bchunked\r\n\r\n", ErrValue)
	f("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", ErrBothLengths)
	f("Host: a\r\nHost: a\r\n\r\n", ErrHostCount)
	f(strings.Repeat("A: 1\r\n", 101)+"\r\n", ErrTooMany)
}

func TestFieldsThatDoNotTravel(t *testing.T) {
	f := func(raw string, kept ...string) {
		t.Helper()
		_, fields, err := scan(raw + "\r\n")
		if err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		var got []string
		for _, field := range fields {
			if !field.Drop {
				got = append(got, string(field.Name))
			}
		}
		if strings.Join(got, " ") != strings.Join(kept, " ") {
			t.Errorf("%q: kept %q, want %q", raw, got, kept)
		}
	}
	f("Accept: a\r\nConnection: close\r\n", "Accept")
	f("Connection: X-A\r\nX-A: 1\r\nX-B: 1\r\n", "X-B")
	f("X-A: 1\r\nConnection: keep-alive\r\nConnection: x-a\r\n")
	f("Connection: Host, Authorization, Cookie, Content-Length\r\nHost: a\r\nAuthorization: b\r\nCookie: c\r\nContent-Length: 0\r\n", "Host", "Authorization", "Cookie", "Content-Length")
	f("TE: trailers\r\nTrailer: X\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\nProxy-Authorization: y\r\nUpgrade: h2c\r\nHTTP2-Settings: z\r\n")
	for _, spelling := range []string{"X-Auth-Subject", "x-auth-subject", "X_Auth_Subject", "X.Auth.Subject", "x-AUTH_anything"} {
		f(spelling + ": root\r\n")
	}
	for _, spelling := range []string{"Client-Cert", "client-cert-chain", "CLIENT_CERT", "Client.Cert.Chain", "Client_cert-chain"} {
		f(spelling + ": :AAAA:\r\n")
	}
	f("Client-Certificate: 1\r\nClient-Cer: 1\r\nX-Client-Cert: 1\r\n", "Client-Certificate", "Client-Cer", "X-Client-Cert")
	f("X-Authenticated: 1\r\nXauth: 1\r\n", "X-Authenticated", "Xauth")
	f("Under_Score: 1\r\n")
	f("X-HTTP-Method-Override: DELETE\r\nX-Original-URL: /a\r\nX-Rewrite-URL: /b\r\n")
}

func TestRequestLines(t *testing.T) {
	f := func(raw, method, target string, http10 bool, want error) {
		t.Helper()
		m, tg, old, rest, err := CutRequestLine([]byte(raw))
		if !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", raw, err, want)
		}
		if want == nil && (string(m) != method || string(tg) != target || old != http10 || string(rest) != "A: b\r\n") {
			t.Errorf("%q: got %q %q %v %q", raw, m, tg, old, rest)
		}
	}
	f("GET /a HTTP/1.1\r\nA: b\r\n", "GET", "/a", false, nil)
	f("x-Y_z * HTTP/1.0\r\nA: b\r\n", "x-Y_z", "*", true, nil)
	f("GET /a b HTTP/1.1\r\nA: b\r\n", "GET", "/a b", false, nil) // SplitTarget refuses it
	f("GET /a HTTP/2.0\r\n", "", "", false, ErrVersion)
	f("GET /a HTTP/0.9\r\n", "", "", false, ErrVersion)
	for _, raw := range []string{
		"\r\n", "GET\r\n", "GET \r\n", "GET /\r\n", "GET  HTTP/1.1\r\n", " GET / HTTP/1.1\r\n", "G@T / HTTP/1.1\r\n",
		"GET / http/1.1\r\n", "GET / HTTP/1.1 \r\n", "GET / HTTP/1.11\r\n", "GET / HTTP/11\r\n", "GET\t/\tHTTP/1.1\r\n",
	} {
		f(raw, "", "", false, ErrRequestLine)
	}
	f("GET / HTTP/1.1\nHost: a\r\n", "", "", false, ErrLineEnd)
}

func TestTrailersThatMeanSomethingToOthersStay(t *testing.T) {
	f := func(raw, want string) {
		t.Helper()
		if got := AppendTrailers(nil, []byte(raw)); string(got) != want {
			t.Errorf("%q: got %q, want %q", raw, got, want)
		}
	}
	f("", "")
	f("Grpc-Status: 0\r\nDigest: x\r\n", "Grpc-Status: 0\r\nDigest: x\r\n")
	f("Content-Length: 1\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=b\r\nX-Auth-Subject: root\r\nHost: a\r\nConnection: close\r\nAuthorization: x\r\nA: b\r\n", "A: b\r\n")
}

func TestResponsesAreScannedWithTheSameRigour(t *testing.T) {
	f := func(head, want string, status int, wantErr error) {
		t.Helper()
		var r Response
		got, _, err := ScanResponse([]byte(head), &r, nil, nil)
		if !errors.Is(err, wantErr) {
			t.Errorf("%q: got %v, want %v", head, err, wantErr)
		}
		if err == nil && (string(got) != want || r.Status != status) {
			t.Errorf("%q: got %q %d", head, got, r.Status)
		}
	}
	f("HTTP/1.1 200 OK\r\nA: 1\r\nA: 2\r\nConnection: close, B\r\nB: 3\r\n\r\n", "A: 1\r\nA: 2\r\n", 200, nil)
	f("HTTP/1.1 204\r\n\r\n", "", 204, nil)
	f("HTTP/1.0 404 Not Found\r\nunder_score: 1\r\n\r\n", "under_score: 1\r\n", 404, nil)
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", 200, nil)
	f("HTTP/2.0 200 OK\r\n\r\n", "", 0, ErrStatusLine)
	f("HTTP/1.1 20 OK\r\n\r\n", "", 0, ErrStatusLine)
	f("HTTP/1.1 999 OK\r\n\r\n", "", 0, ErrStatusLine)
	f("HTTP/1.1 200OK\r\n\r\n", "", 0, ErrStatusLine)
	f("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", 0, ErrCoding)
	f("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "", 0, ErrBothLengths)
	f("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "", 0, ErrLength)
	f("HTTP/1.1 200 OK\r\nA: 1\n\r\n", "", 0, ErrLineEnd)
}

func TestTargets(t *testing.T) {
	f := func(raw, authority, path, query string, ok bool) {
		t.Helper()
		got, gotOK := SplitTarget([]byte(raw))
		if gotOK != ok {
			t.Errorf("%q: accepted %v", raw, gotOK)
		} else if ok && (string(got.Authority) != authority || string(got.Path) != path || string(got.Query) != query) {
			t.Errorf("%q: got %q %q %q", raw, got.Authority, got.Path, got.Query)
		}
	}
	f("/a?b?c", "", "/a", "b?c", true)
	f("//evil/p", "", "//evil/p", "", true)
	f("http://a:1/b", "a:1", "/b", "", true)
	f("HTTPS://a?x", "a", "/", "x", true)
	f("http://", "", "", "", false)
	f("ftp://a/", "", "", "", false)
	f("a/b", "", "", "", false)
	f("/a#b", "", "", "", false)
	f("/a b", "", "", "", false)
	f("/a\\b", "", "", "", false)
	f("/\xff", "", "", "", false)
	f("", "", "", "", false)
}

// FuzzScanRequest: what the scan accepts, net/http accepts too and understands
// alike, so that no server behind us can see another request.
func FuzzScanRequest(f *testing.F) {
	for _, seed := range append(matrixHeads(),
		"Host: a\r\n\r\n", "Host: a\r\nContent-Length: 3\r\n\r\n", "Host: a\r\nTransfer-Encoding: chunked\r\n\r\n",
		"Host: a\r\nA : b\r\n\r\n", "Host: a\r\nA: b\r\n c\r\n\r\n", "Host: a\nB: c\r\n\r\n", "Host: a\r\nX_Y: \x80\r\n\r\n",
		"Host: a\r\nConnection: close, X\r\nX: 1\r\n\r\n", "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
	) {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var r Request
		fields, err := ScanRequest(raw, &r, nil, 100)
		if err != nil || !bytes.HasSuffix(raw, []byte("\r\n\r\n")) || r.Hosts != 1 {
			return
		}
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(append([]byte("POST / HTTP/1.1\r\n"), raw...))))
		if err != nil {
			// net/http is stricter about Host and obs-text; anything else that
			// it refuses must not pass here.
			if strings.Contains(err.Error(), "Host") || strings.Contains(err.Error(), "header") {
				return
			}
			t.Fatalf("%q: net/http refuses: %v", raw, err)
		}
		if chunked := len(req.TransferEncoding) > 0; chunked != r.Chunked {
			t.Fatalf("%q: chunked %v, net/http says %v", raw, r.Chunked, chunked)
		}
		if !r.Chunked && max(r.Length, 0) != req.ContentLength {
			t.Fatalf("%q: length %d, net/http says %d", raw, r.Length, req.ContentLength)
		}
		var joined []byte
		for _, field := range fields {
			joined = append(joined, field.Line...)
		}
		if !bytes.Equal(append(joined, '\r', '\n'), raw) {
			t.Fatalf("%q: the lines do not make the head again", raw)
		}
	})
}

func FuzzScanResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 304\r\nA: b\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: a, b\r\na: 1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, head []byte) {
		var r Response
		lines, _, err := ScanResponse(head, &r, nil, nil)
		if err != nil {
			return
		}
		if r.Status < 100 || r.Status > 599 || r.Chunked && r.Length >= 0 {
			t.Fatalf("%q: %+v", head, r)
		}
		// What travels on is a valid header section by itself.
		var again Response
		twice, _, err := ScanResponse(append(append([]byte("HTTP/1.1 200 OK\r\n"), lines...), '\r', '\n'), &again, nil, nil)
		if err != nil || !bytes.Equal(twice, lines) {
			t.Fatalf("%q: lines %q are not stable: %v", head, lines, err)
		}
	})
}

func BenchmarkScanRequest(b *testing.B) {
	raw := []byte("Host: api.example.com\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAuthorization: Bearer " + strings.Repeat("a", 700) + "\r\nX-Custom: 1\r\n\r\n")
	fields := make([]plugins.Field, 0, 16)
	var r Request
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ScanRequest(raw, &r, fields[:0], 100); err != nil {
			b.Fatal(err)
		}
	}
}
