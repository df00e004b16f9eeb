package compress

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

func TestMistakesAreNamedWithTheirPlace(t *testing.T) {
	plugintest.Bad(t, "testdata/bad/*.yaml", func(path string) error {
		_, err := plugintest.Load(path, New())
		return err
	})
}

func step(t testing.TB, p *Plugin, setting string) plugins.Step {
	t.Helper()
	steps := plugintest.Steps(t, p, `
routes:
  - {path: /orders, service: orders, public: true, compress: `+setting+`}
  - {path: /v2, service: orders-v2, public: true}
`)
	if steps[1] != nil {
		t.Error("a route without compress has a step")
	}
	return steps[0]
}

func decode(t testing.TB, coding, content string) string {
	t.Helper()
	var r io.Reader = strings.NewReader(content)
	var err error
	switch coding {
	case "gzip":
		r, err = gzip.NewReader(r)
	case "br":
		r = brotli.NewReader(r)
	case "zstd":
		r, err = zstd.NewReader(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%s: %v", coding, err)
	}
	return string(got)
}

func TestCodingsAreNegotiated(t *testing.T) {
	f := func(preference, accept, want string) {
		t.Helper()
		var list []Coding
		for name := range strings.SplitSeq(preference, " ") {
			var c Coding
			if err := c.UnmarshalText([]byte(name)); err != nil {
				t.Fatal(err)
			}
			list = append(list, c)
		}
		var header []string
		if accept != "" {
			header = strings.Split("Accept-Encoding: "+strings.ReplaceAll(accept, "|", "|Accept-Encoding: "), "|")
		}
		got := ""
		if c, ok := negotiate(plugintest.New("GET", "h", "/", header...), list); ok {
			got = names[c]
		}
		if got != want {
			t.Errorf("%q of %q: %q, want %q", preference, accept, got, want)
		}
	}
	const all = "zstd br gzip"
	f(all, "", "")
	f(all, "identity", "")
	f(all, "gzip, deflate, br, zstd", "zstd")
	f(all, "gzip, br", "br")
	f("gzip br", "gzip, br", "gzip")
	f(all, "gzip;q=1, br;q=0.9", "gzip")
	f(all, "gzip; q=0.5 , br;Q=0.501", "br")
	f(all, "gzip;q=0", "")
	f(all, "*", "zstd")
	f(all, "*;q=0, gzip", "gzip")
	f(all, "zstd;q=0, *", "br")
	f(all, "GZIP", "gzip")
	f(all, "x-gzip", "gzip")
	f(all, "gzip;q=2", "")
	f(all, "gzip;q=nan", "")
	f(all, "br;q=0.1|gzip", "gzip")
	f(all, ", ,", "")
}

// answer sends a response through the step.
func answer(t testing.TB, step plugins.Step, method, accept string, h plugins.ResponseHead, content string) *plugintest.Recorder {
	t.Helper()
	x := plugintest.New(method, "api.example.com", "/orders", "Accept-Encoding: "+accept)
	inner := x.Client
	err := step(func(x *plugins.Exchange) error {
		if err := x.Client.WriteHead(h); err != nil {
			return err
		}
		for len(content) > 0 {
			n := min(len(content), 1000)
			if _, err := x.Client.Write([]byte(content[:n])); err != nil {
				return err
			}
			content = content[n:]
		}
		return x.Client.Finish()
	})(x)
	if err != nil || x.Client != inner {
		t.Fatal(err, x.Client == inner)
	}
	return plugintest.Client(x)
}

const json = "Content-Type: application/json; charset=utf-8\r\n"

var text = strings.Repeat(`{"id": 1, "name": "order"}`, 1000)

func TestResponsesAreEncoded(t *testing.T) {
	p := New()
	s := step(t, p, "{}")
	for _, coding := range names {
		out := 0
		for range 3 { // with new and with used encoders
			c := answer(t, s, "GET", coding, plugins.ResponseHead{
				Status: 200, Length: int64(len(text)),
				Fields: []byte(json + "Content-Length: 26000\r\nETag: \"abc\"\r\nAccept-Ranges: bytes\r\nX-A: 1\r\n"),
			}, text)
			const want = json + "ETag: W/\"abc\"\r\nX-A: 1\r\n"
			if c.Fields != want+"Content-Encoding: "+coding+"\r\nVary: Accept-Encoding\r\n" || c.Head.Length != -1 || !c.Finished {
				t.Errorf("%s: fields %q, length %d", coding, c.Fields, c.Head.Length)
			}
			if got := decode(t, coding, c.Content.String()); got != text || c.Content.Len() > len(text)/4 {
				t.Errorf("%s: %d bytes of %d, decoded %d", coding, c.Content.Len(), len(text), len(got))
			}
			out += c.Content.Len()
		}
		if got, want := p.Stats()[coding], (Total{Responses: 3, In: int64(3 * len(text)), Out: int64(out)}); got != want {
			t.Errorf("%s: counted %+v, want %+v", coding, got, want)
		}
	}
}

func TestResponsesThatMustNotBeEncodedPassAsTheyAre(t *testing.T) {
	s := step(t, New(), "{}")
	f := func(what, method, accept string, h plugins.ResponseHead, vary bool) {
		t.Helper()
		content := text
		if method == "HEAD" || h.Status == 304 || h.Status == 204 {
			content = ""
		}
		c := answer(t, s, method, accept, h, content)
		want := string(h.Fields)
		if vary {
			want += "Vary: Accept-Encoding\r\n"
		}
		if c.Fields != want || c.Content.String() != content || c.Head.Length != h.Length {
			t.Errorf("%s: fields %q, want %q; %d bytes", what, c.Fields, want, c.Content.Len())
		}
	}
	head := func(status int, fields string) plugins.ResponseHead {
		return plugins.ResponseHead{Status: status, Fields: []byte(fields), Length: int64(len(text))}
	}
	f("encoded already", "GET", "gzip", head(200, json+"Content-Encoding: br\r\n"), false)
	f("no-transform", "GET", "gzip", head(200, json+"Cache-Control: public, No-Transform\r\n"), false)
	f("a range", "GET", "gzip", head(206, json+"Content-Range: bytes 0-1/2\r\n"), false)
	f("an image", "GET", "gzip", head(200, "Content-Type: image/png\r\n"), false)
	f("no type", "GET", "gzip", head(200, "X-A: 1\r\n"), false)
	f("not accepted", "GET", "identity", head(200, json), true)
	f("a HEAD", "HEAD", "gzip", head(200, json+"Content-Length: 26000\r\n"), true)
	own := head(401, json)
	own.Own = true
	f("a refusal", "GET", "gzip", own, false)
	small := plugins.ResponseHead{Status: 200, Fields: []byte(json + "Content-Length: 5\r\n"), Length: 5}
	c := answer(t, s, "GET", "gzip", small, "small")
	if c.Content.String() != "small" || c.Head.Length != 5 {
		t.Errorf("small: %q", c.Content.String())
	}
}

func TestAnswersWithoutContentNameTheEncodedResponse(t *testing.T) {
	s := step(t, New(), "{}")
	c := answer(t, s, "GET", "gzip", plugins.ResponseHead{Status: 304, Length: -1, Fields: []byte("ETag: \"abc\"\r\n")}, "")
	if c.Fields != "ETag: W/\"abc\"\r\nVary: Accept-Encoding\r\n" {
		t.Errorf("304: %q", c.Fields)
	}
}

func TestEventsReachTheClientWhenTheyAreFlushed(t *testing.T) {
	for _, coding := range names {
		x := plugintest.New("GET", "api.example.com", "/orders", "Accept-Encoding: "+coding)
		err := step(t, New(), "{}")(func(x *plugins.Exchange) error {
			if err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Length: -1, Fields: []byte("Content-Type: text/event-stream\r\n")}); err != nil {
				return err
			}
			if _, err := x.Client.Write([]byte("data: first\n\n")); err != nil {
				return err
			}
			if err := x.Client.Flush(); err != nil {
				return err
			}
			sent := x.Client.(*stream).Stream.(*plugintest.Recorder)
			if got := readSome(t, coding, sent.Content.String()); got != "data: first\n\n" || sent.Flushes != 1 {
				t.Errorf("%s: the client has %q after %d flushes", coding, got, sent.Flushes)
			}
			return x.Client.Finish()
		})(x)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// readSome decodes what is there of a stream that goes on.
func readSome(t *testing.T, coding, content string) string {
	t.Helper()
	var r io.Reader = bytes.NewReader([]byte(content))
	var err error
	switch coding {
	case "gzip":
		r, err = gzip.NewReader(r)
	case "br":
		r = brotli.NewReader(r)
	case "zstd":
		r, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	}
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 100)
	n, _ := io.ReadAtLeast(r, got, 13)
	return string(got[:n])
}

func TestEncodersComeBackWhateverHappens(t *testing.T) {
	p := New()
	s := step(t, p, "{}")
	failure := errors.New("the service broke off")
	for range 2 * mostEncoders {
		x := plugintest.New("GET", "api.example.com", "/orders", "Accept-Encoding: gzip")
		err := s(func(x *plugins.Exchange) error {
			if err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Length: -1, Fields: []byte(json)}); err != nil {
				return err
			}
			return failure
		})(x)
		if err != failure || plugintest.Client(x).Finished {
			t.Fatal(err)
		}
	}
	if n := p.active.Load(); n != 0 {
		t.Errorf("%d encoders are lent", n)
	}
}

func TestResponsesAboveTheBoundOfEncodersPassAsTheyAre(t *testing.T) {
	p := New()
	p.active.Store(mostEncoders)
	c := answer(t, step(t, p, "{}"), "GET", "gzip", plugins.ResponseHead{Status: 200, Length: int64(len(text)), Fields: []byte(json)}, text)
	if c.Content.String() != text || p.active.Load() != mostEncoders {
		t.Errorf("%d bytes, %d lent", c.Content.Len(), p.active.Load())
	}
}

func TestAClientThatLeftIsTheCause(t *testing.T) {
	x := plugintest.New("GET", "api.example.com", "/orders", "Accept-Encoding: gzip")
	plugintest.Client(x).Left = true
	err := step(t, New(), "{}")(func(x *plugins.Exchange) error {
		if err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Length: -1, Fields: []byte(json)}); err != nil {
			return err
		}
		if _, err := x.Client.Write([]byte(text)); err != nil {
			return err
		}
		return x.Client.Finish()
	})(x)
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error %v", err)
	}
}

func FuzzAcceptEncoding(f *testing.F) {
	f.Add("gzip;q=0.5, *;q=0")
	f.Fuzz(func(t *testing.T, accept string) {
		x := plugintest.New("GET", "h", "/")
		x.Fields = []plugins.Field{{Name: []byte("Accept-Encoding"), Value: []byte(accept)}}
		if c, ok := negotiate(x, []Coding{gzipCoding}); ok && c != gzipCoding {
			t.Errorf("%q: %v", accept, c)
		}
	})
}
