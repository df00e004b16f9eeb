package wire

// matrixSeeds are requests of the request matrix (EDGE: S01 to S29), and of what
// must pass beside them, for the fuzz targets to start from.
var matrixSeeds = []string{
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551619\r\n\r\nabc",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
	"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer Encoding: chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: 1\r\n\r\n",
	"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: admin:pw@a\r\n\r\n", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET //b/p HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a#/../b HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /a/..%2fb/%2e%2e/c HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For, X-User-Id\r\nX-User-Id: 1\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.2\r\nHost: a\r\n\r\n", "GET /\r\n\r\n",
}

// matrixHeads are the header sections of matrixSeeds.
func matrixHeads() (heads []string) {
	for _, seed := range matrixSeeds {
		if n, err := HeadLength([]byte(seed), 0); err == nil && n > 0 {
			if _, _, _, header, err := CutRequestLine([]byte(seed)[:n]); err == nil {
				heads = append(heads, string(header))
			}
		}
	}
	return heads
}
