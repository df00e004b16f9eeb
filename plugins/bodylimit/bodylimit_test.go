package bodylimit

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

func TestMistakesAreNamedWithTheirPlace(t *testing.T) {
	plugintest.Bad(t, "testdata/bad/*.yaml", func(path string) error {
		_, err := plugintest.Load(path, New())
		return err
	})
}

// limited is a step with a limit of ten bytes.
func limited(t testing.TB) plugins.Step {
	t.Helper()
	steps := plugintest.Steps(t, New(), `
routes:
  - {path: /upload, service: orders, public: true, body_limit: 10}
  - {path: /free, service: orders-v2, public: true}
`)
	if steps[1] != nil {
		t.Error("a route without body_limit has a step")
	}
	return steps[0]
}

func TestContentUpToTheLimitPassesAndMoreIsRefused(t *testing.T) {
	step := limited(t)
	for _, c := range []struct {
		name     string
		content  string
		declared bool
		reader   func(io.Reader) io.Reader
		refused  bool
		reads    bool // the handler sees content
	}{
		{name: "declared, just the limit", content: "0123456789", declared: true, reads: true},
		{name: "declared, one more", content: "0123456789a", declared: true, refused: true},
		{name: "streamed, just the limit", content: "0123456789", reads: true},
		{name: "streamed, one more", content: "0123456789a", refused: true, reads: true},
		{name: "streamed, far more", content: strings.Repeat("x", 1<<20), refused: true, reads: true},
		{name: "byte by byte, just the limit", content: "0123456789", reader: iotest.OneByteReader, reads: true},
		{name: "byte by byte, one more", content: "0123456789a", reader: iotest.OneByteReader, refused: true, reads: true},
		{name: "end with the data", content: "0123456789", reader: iotest.DataErrReader, reads: true},
		{name: "streamed, empty", content: "", reads: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := plugintest.New("POST", "api.example.com", "/upload")
			x.Body, x.BodyLength = strings.NewReader(c.content), -1
			if c.reader != nil {
				x.Body = c.reader(x.Body)
			}
			if c.declared {
				x.BodyLength = int64(len(c.content))
			}
			before := x.Body
			called := false
			var got string
			err := step(func(x *plugins.Exchange) error {
				called = true
				content, err := io.ReadAll(x.Body)
				got = string(content)
				return err
			})(x)
			var refusal *plugins.Error
			if errors.As(err, &refusal) != c.refused || c.refused && (refusal.Status != 413 || refusal.Code != plugins.BodyTooLarge) {
				t.Errorf("error %v, want a refusal: %v", err, c.refused)
			}
			if called != c.reads || len(got) > 10 {
				t.Errorf("handler called: %v, want %v; it read %d bytes", called, c.reads, len(got))
			}
			if !c.refused && got != c.content {
				t.Errorf("handler read %q, want %q", got, c.content)
			}
			if x.Body != before {
				t.Error("the body was not put back")
			}
		})
	}
}

func TestACutBodyIsNamedAsTheCause(t *testing.T) {
	x := plugintest.New("POST", "api.example.com", "/upload")
	x.Body, x.BodyLength = strings.NewReader(strings.Repeat("x", 100)), -1
	err := limited(t)(func(x *plugins.Exchange) error {
		io.Copy(io.Discard, x.Body)
		return &plugins.Error{Status: 502, Code: plugins.UpstreamReset}
	})(x)
	var e *plugins.Error
	if !errors.As(err, &e) || e.Code != plugins.BodyTooLarge {
		t.Errorf("error %v, want %s", err, plugins.BodyTooLarge)
	}
}

func TestOtherFailuresStayAsTheyAre(t *testing.T) {
	x := plugintest.New("POST", "api.example.com", "/upload")
	x.Body, x.BodyLength = strings.NewReader("short"), -1
	want := &plugins.Error{Status: 502, Code: plugins.UpstreamReset}
	err := limited(t)(func(x *plugins.Exchange) error {
		io.Copy(io.Discard, x.Body)
		return want
	})(x)
	if err != want {
		t.Errorf("error %v, want %v", err, want)
	}
}
