package edge

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

const post = "POST /a HTTP/1.1\r\nHost: {host}\r\n"

func TestS01_LengthAndCodingTogether(t *testing.T) {
	refused(t, "length first", post+"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400)
	refused(t, "coding first", post+"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400)
	refused(t, "length of nothing", post+"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", 400)
	refused(t, "on GET", "GET /a HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400)
	refused(t, "named by Connection", post+"Connection: Content-Length\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400)
	refused(t, "coding named by Connection", post+"Connection: Transfer-Encoding\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400)
}

func TestS02_ContentLengthThatIsNotOneNumber(t *testing.T) {
	f := func(name, fields string) {
		t.Helper()
		refused(t, name, post+fields+"\r\nabc", 400)
	}
	f("twice the same", "Content-Length: 3\r\nContent-Length: 3\r\n")
	f("two", "Content-Length: 3\r\nContent-Length: 0\r\n")
	f("list of the same", "Content-Length: 3, 3\r\n")
	f("list", "Content-Length: 0,3\r\n")
	f("plus", "Content-Length: +3\r\n")
	f("minus", "Content-Length: -3\r\n")
	f("empty", "Content-Length:\r\n")
	f("blank", "Content-Length: \t \r\n")
	f("overflow of 64 bits", "Content-Length: 18446744073709551619\r\n")
	f("overflow of 63 bits", "Content-Length: 9223372036854775808\r\n")
	f("many digits", "Content-Length: "+strings.Repeat("0", 300)+"3\r\n")
	f("hexadecimal", "Content-Length: 0x3\r\n")
	f("separator", "Content-Length: 1_000\r\n")
	f("blank within", "Content-Length: 3 0\r\n")
	f("letters", "Content-Length: 3abc\r\n")
	f("fraction", "Content-Length: 3.0\r\n")
	f("other digits", "Content-Length: \xd9\xa3\r\n")
}

func TestS03_CodingThatIsNotChunkedAlone(t *testing.T) {
	f := func(name, fields string) {
		t.Helper()
		refused(t, name, post+fields+"\r\n0\r\n\r\n", 400, 501)
	}
	f("twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")
	f("twice, one other", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n")
	f("gzip before", "Transfer-Encoding: gzip, chunked\r\n")
	f("chunked before", "Transfer-Encoding: chunked, gzip\r\n")
	f("list of the same", "Transfer-Encoding: chunked, chunked\r\n")
	f("empty element", "Transfer-Encoding: ,chunked\r\n")
	f("prefix", "Transfer-Encoding: xchunked\r\n")
	f("suffix", "Transfer-Encoding: chunkedx\r\n")
	f("quoted", "Transfer-Encoding: \"chunked\"\r\n")
	f("parameter", "Transfer-Encoding: chunked;q=1\r\n")
	f("empty", "Transfer-Encoding:\r\n")
	f("vertical tab", "Transfer-Encoding: \x0bchunked\r\n")
	f("no-break space", "Transfer-Encoding: \xa0chunked\r\n")
	f("gzip alone", "Transfer-Encoding: gzip\r\n")
	passed(t, "letters of any case", post+"Transfer-Encoding: ChUnKeD\r\n\r\n1\r\na\r\n0\r\n\r\n",
		post+"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
}

func TestS04_CodingIdentity(t *testing.T) {
	refused(t, "alone", post+"Transfer-Encoding: identity\r\n\r\n", 400, 501)
	refused(t, "with a length", post+"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", 400, 501)
	refused(t, "before chunked", post+"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", 400, 501)
}

func TestS05_CodingInHTTP10(t *testing.T) {
	const old = "POST /a HTTP/1.0\r\nHost: {host}\r\n"
	refused(t, "chunked", old+"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400)
	refused(t, "with keep-alive", old+"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400)
	refused(t, "with a length", old+"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400)
}

func TestS13_ChunkExtensions(t *testing.T) {
	const head = post + "Transfer-Encoding: chunked\r\n\r\n"
	f := func(name, chunks, want string) {
		t.Helper()
		passed(t, name, head+chunks, head+want)
	}
	f("never forwarded", "3;a=b\r\nabc\r\n0;x\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n")
	f("with blanks", "3 ; a=\"b c\"\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n")
	f("64 bytes", "3;"+strings.Repeat("a", 63)+"\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n")
	f("upper case and leading zeros", "00A\r\n0123456789\r\n000\r\n\r\n", "a\r\n0123456789\r\n0\r\n\r\n")

	broken(t, "extension of 65 bytes", "3;"+strings.Repeat("a", 64)+"\r\nabc\r\n0\r\n\r\n")
	broken(t, "extensions of more than 1 KiB in all", strings.Repeat("1;"+strings.Repeat("a", 59)+"\r\nx\r\n", 20)+"0\r\n\r\n")
	broken(t, "line feed in an extension", "3;a\n\r\nabc\r\n0\r\n\r\n")
	broken(t, "carriage return in an extension", "3;a\rb\r\nabc\r\n0\r\n\r\n")
	broken(t, "NUL in an extension", "3;a\x00\r\nabc\r\n0\r\n\r\n")
	broken(t, "line feed behind the size", "3\nabc\r\n0\r\n\r\n")
	broken(t, "line feed behind the content", "3\r\nabc\n0\r\n\r\n")
	broken(t, "hexadecimal prefix", "0x3\r\nabc\r\n0\r\n\r\n")
	broken(t, "no end of the content", "3\r\nabc0\r\n\r\n")
	broken(t, "content longer than its size", "3\r\nabcd\r\n0\r\n\r\n")
	broken(t, "minus", "-3\r\nabc\r\n0\r\n\r\n")
	broken(t, "plus", "+3\r\nabc\r\n0\r\n\r\n")
	broken(t, "blank before the size", " 3\r\nabc\r\n0\r\n\r\n")
	broken(t, "blank behind the size", "3 \r\nabc\r\n0\r\n\r\n")
	broken(t, "no size", "\r\nabc\r\n0\r\n\r\n")
	broken(t, "only an extension", ";a\r\nabc\r\n0\r\n\r\n")
	broken(t, "overflow", "10000000000000003\r\nabc\r\n0\r\n\r\n")
	broken(t, "very many zeros", strings.Repeat("0", 100)+"3\r\nabc\r\n0\r\n\r\n")
	broken(t, "separator in the size", "1_0\r\n0123456789abcdef\r\n0\r\n\r\n")
}

func TestS14_LineEndsInTheTrailerSection(t *testing.T) {
	broken(t, "line feed behind a field", "3\r\nabc\r\n0\r\nX-A: 1\n\r\n")
	broken(t, "line feed as the last line", "3\r\nabc\r\n0\r\nX-A: 1\r\n\n")
	broken(t, "line feed at once", "3\r\nabc\r\n0\r\n\n")
	broken(t, "carriage return without line feed", "3\r\nabc\r\n0\r\nX-A: 1\r\r\n\r\n")
	broken(t, "folded", "3\r\nabc\r\n0\r\nX-A: 1\r\n b\r\n\r\n")
	broken(t, "no name", "3\r\nabc\r\n0\r\n: 1\r\n\r\n")
	broken(t, "no colon", "3\r\nabc\r\n0\r\nGET /x HTTP/1.1\r\n\r\n")
	broken(t, "without an end", "3\r\nabc\r\n0\r\nX-A: "+strings.Repeat("a", 32<<10)+"\r\n\r\n")
}

// broken promises of chunked content that violates its framing: the client is
// refused and its connection ends, and the origin gets no whole request and
// nothing of what follows.
func broken(t *testing.T, name, chunks string) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		gone := make(chan bool, 1)
		s := take(t, func(c *rig.Conn) {
			m, err := c.ReadRequest()
			if err == nil {
				t.Errorf("the origin got a whole request: %q %q", m.Head, m.Body)
				c.Say(rig.OK)
			}
			gone <- c.Gone()
		})
		c := s.dial(t)
		a := c.Ask("POST", s.in(post+"Transfer-Encoding: chunked\r\n\r\n"+chunks+smuggled))
		if a.Status != 400 || a.Err != nil {
			t.Errorf("got %q (%v), want 400", a.Head, a.Err)
		}
		if err := ended(c); err != nil {
			t.Error(err)
		}
		if s.Connections() > 0 && !<-gone {
			t.Error("the connection to the origin stays open")
		}
		for _, got := range s.Received() {
			if strings.HasSuffix(got, "0\r\n\r\n") || strings.Contains(got, "smuggled") || strings.Contains(got, ";") {
				t.Errorf("the origin received %q", got)
			}
		}
	})
}

func TestS17_ContentWithAnyMethod(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "DELETE", "OPTIONS", "QUERY"} {
		head := method + " /a HTTP/1.1\r\nHost: {host}\r\n"
		passed(t, method+" with a length", head+"Content-Length: 3\r\n\r\nabc", head+"Content-Length: 3\r\n\r\nabc")
		if method != "HEAD" {
			passed(t, method+" chunked", head+"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
				head+"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
		}
		passed(t, method+" with a length of nothing", head+"Content-Length: 0\r\n\r\n", head+"Content-Length: 0\r\n\r\n")
	}
	for _, method := range []string{"GET", "HEAD", "DELETE"} {
		refused(t, method+" in HTTP/1.0", method+" /a HTTP/1.0\r\nHost: {host}\r\nContent-Length: 3\r\n\r\nabc", 400, 413)
	}
}

func TestS29_RequestsThatSayNothingAboutTheirContent(t *testing.T) {
	passed(t, "POST without a length has no content", post+"\r\n", post+"\r\n")
	t.Run("what follows is the next request", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.dial(t)
		c.Send(s.in(post + "\r\n" + "GET /second HTTP/1.1\r\nHost: {host}\r\n\r\n"))
		for i := range 2 {
			if a := c.Answer("POST"); a.Status != 200 || !a.Whole {
				t.Errorf("answer %d: %q %v", i, a.Head, a.Err)
			}
		}
		want := s.in(post + "\r\nGET /second HTTP/1.1\r\nHost: {host}\r\n\r\n")
		if got := rig.Strip(strings.Join(s.Received(), "")); got != want {
			t.Errorf("the origin received %q", got)
		}
	})
	t.Run("content that nothing announced is no request", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.dial(t)
		if a := c.Ask("GET", s.in("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\nx=1\r\n\r\n"+smuggled)); a.Status != 200 {
			t.Errorf("first: %q", a.Head)
		}
		if a := c.Answer("GET"); a.Status != 400 {
			t.Errorf("then: %q", a.Head)
		}
		if err := ended(c); err != nil {
			t.Error(err)
		}
		if got := strings.Join(s.Received(), ""); strings.Contains(got, "smuggled") {
			t.Errorf("the origin received %q", got)
		}
	})
	for _, expect := range []string{"200-ok", "100-continue, 200-ok", "100", ""} {
		refused(t, fmt.Sprintf("Expect %q", expect), post+"Content-Length: 3\r\nExpect: "+expect+"\r\n\r\nabc", 417)
	}
	t.Run("unread content ends the connection", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.dial(t)
		a := c.Ask("POST", s.in("POST /admin/x HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\n"+smuggled))
		if v, _ := a.Field("Connection"); a.Status != 401 || v != "close" {
			t.Errorf("got %q", a.Head)
		}
		if err := ended(c); err != nil {
			t.Error(err)
		}
		if got := s.Received(); len(got) > 0 {
			t.Errorf("the origin received %q", got)
		}
	})
	t.Run("a refusal whose content was read or is none keeps the connection", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.dial(t)
		if a := c.Ask("GET", s.in("GET /admin/x HTTP/1.1\r\nHost: {host}\r\n\r\n")); a.Status != 401 {
			t.Errorf("got %q", a.Head)
		}
		if err := alive(c); err != nil {
			t.Error(err)
		}
	})
}
