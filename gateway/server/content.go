package server

import (
	"io"
	"net/http"

	"github.com/valyala/fasthttp"

	"github.com/gatehouse/gatehouse/plugins"
)

// content is a request's body on its way in: counted, bounded, and asked for
// only when somebody reads it.
type content struct {
	state *state
	from  io.Reader
	left  int64 // declared and not read yet; -1 unknown
	read  int64
	ended bool
	err   error
}

// Read implements io.Reader. A client that waits for 100 (Continue) gets it
// now: only after the policy let the request pass and somebody wants the
// content.
func (b *content) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	st := b.state
	st.stream.c.phase = body
	if st.stream.expect {
		if err := st.stream.Continue(); err != nil {
			b.err = err
			return 0, err
		}
	}
	if b.from == nil {
		b.from = st.await()
	}
	n, err := b.from.Read(p)
	b.read += int64(n)
	st.x.Record.BytesIn = b.read
	if b.left >= 0 {
		b.left -= int64(n)
	}
	if limit := int64(st.server.limits.MaxBodyBytes); limit > 0 && b.read > limit {
		err = &plugins.Error{Status: http.StatusRequestEntityTooLarge, Code: plugins.BodyTooLarge}
	}
	if err == io.EOF {
		b.ended = true
		if b.left > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	b.err = err
	return n, err
}

// pending reports whether content may still arrive on the connection.
func (b *content) pending() bool {
	return b.state != nil && !b.ended && b.left != 0
}

// expect is called by fasthttp for a request with "Expect: 100-continue"
// before it reads content. The exchange starts here, in a goroutine of its
// own; it either answers without wanting the content, or it asks for it and is
// resumed when fasthttp has handed over the stream.
func (s *Server) expect(ctx *fasthttp.RequestCtx) int {
	c := ctx.Conn().(*conn)
	st := s.states.Get().(*state)
	if err := st.begin(ctx, c); err != nil {
		st.turnAway(err)
		s.finish(ctx, st)
		return http.StatusExpectationFailed
	}
	st.stream.expect = st.x.Body != nil
	st.wanted, st.provided, st.done = make(chan struct{}), make(chan io.Reader, 1), make(chan struct{})
	go st.runBeside()
	select {
	case <-st.done:
		s.finish(ctx, st)
		return http.StatusExpectationFailed // never sent; it ends the connection
	case <-st.wanted:
		c.waiting = st
		return http.StatusContinue // never sent; Continue did
	}
}

func (st *state) runBeside() {
	defer close(st.done)
	st.run()
}

// await asks serve's side for the content.
func (st *state) await() io.Reader {
	close(st.wanted)
	return <-st.provided
}

// resume is serve for an exchange that expect started.
func (s *Server) resume(ctx *fasthttp.RequestCtx, st *state) {
	st.stream.c.waiting = nil
	st.provided <- ctx.RequestBodyStream()
	<-st.done
	s.finish(ctx, st)
}

// failing is a body that cannot be had.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
