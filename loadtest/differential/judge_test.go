package differential

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/loadtest/desync"
	"github.com/gatehouse/gatehouse/loadtest/rig"
)

// request is a whole request as an origin read it.
type request struct {
	ID     int    `json:"id"`
	Method string `json:"method"`
	Target string `json:"target"`
}

// exchange is what came of one case of the corpus.
type exchange struct {
	class string
	// completed says that the proxy ends content towards its origin where a
	// client broke off, so that broken requests may arrive as shorter ones, and
	// late.
	completed bool
	// seen are the requests that the origin read.
	seen []request
	// first answers the case and second the request behind it on the same
	// connection, whose target is canary; their zero value says that the
	// connection had ended. fresh answers GET canary/fresh on a connection of its own.
	first, second, fresh rig.Answer
	canary               string
	// again is how often fresh was asked for again, because an instance may have
	// ended a connection behind a request that it had read.
	again int
}

// judge tells what is wrong with an exchange:
//
//   - every request that the origin saw was answered to the client, once, or the
//     client was told that it was not;
//   - nothing was seen that the client did not send as a request of its own;
//   - whoever asked got the answer to his own request.
func judge(e exchange) (problems []string) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	targets := map[int]string{}
	others := 0
	for _, q := range e.seen {
		targets[q.ID] = q.Target
		if strings.Contains(q.Target, desync.Smuggled) {
			bad("the origin saw the hidden request: %+v", q)
		}
		if q.Target != e.canary && q.Target != e.canary+freshSuffix {
			others++
		}
	}
	completed := e.completed && e.class == "broken"
	if others > 1 && !completed {
		bad("the origin saw one request as %d", others)
	}
	if others > 0 && (e.class == "severe" || e.class == "broken" && !completed) {
		bad("the origin saw a request that must be refused")
	}
	relayed := map[string]bool{}
	for _, got := range []struct {
		who    string
		a      rig.Answer
		target string
	}{{"the case", e.first, ""}, {"the next request", e.second, e.canary}, {"another client", e.fresh, e.canary + freshSuffix}} {
		id, ok := got.a.Field("Origin-Id")
		if !ok {
			continue // the gateway's, or a proxy's own
		}
		n, err := strconv.Atoi(id)
		target, known := targets[n]
		switch {
		case err != nil || !known:
			bad("%s got the answer %q, for which there was no request", got.who, id)
		case relayed[id]:
			bad("%s got the answer %s, which somebody else had got", got.who, id)
		case got.target == "" && (target == e.canary || target == e.canary+freshSuffix):
			bad("%s got the answer to %s", got.who, target)
		case got.target != "" && (target != got.target || got.a.Body != target):
			bad("%s got the answer to %s: %q", got.who, target, got.a.Body)
		}
		relayed[id] = true
	}
	again := e.again
	for _, q := range e.seen {
		switch {
		case relayed[strconv.Itoa(q.ID)], completed && q.Target == "/a":
		case again > 0 && q.Target == e.canary+freshSuffix:
			again--
		default:
			bad("nobody got the answer to %+v", q)
		}
	}
	if e.fresh.Status != 200 {
		bad("another client got %q (%v)", e.fresh.Head, e.fresh.Err)
	}
	return problems
}

const freshSuffix = "/fresh"

func TestJudgeFindsEachKindOfMixUp(t *testing.T) {
	answer := func(id int, body string) rig.Answer {
		return rig.Answer{Status: 200, Head: fmt.Sprintf("HTTP/1.1 200 OK\r\nOrigin-Id: %d\r\n\r\n", id), Body: body}
	}
	refusal := rig.Answer{Status: 400, Head: "HTTP/1.1 400 Bad Request\r\n\r\n"}
	good := func() exchange {
		return exchange{
			class: "ambiguous", canary: "/c",
			seen:  []request{{1, "POST", "/a"}, {2, "GET", "/c"}, {3, "GET", "/c/fresh"}},
			first: answer(1, "/a"), second: answer(2, "/c"), fresh: answer(3, "/c/fresh"),
		}
	}
	f := func(want string, change func(e *exchange)) {
		t.Helper()
		e := good()
		change(&e)
		got := strings.Join(judge(e), "; ")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f("", func(*exchange) {})
	f("", func(e *exchange) { e.seen, e.first, e.second = e.seen[2:], refusal, rig.Answer{} })
	f("must be refused", func(e *exchange) { e.class = "severe" })
	f("must be refused", func(e *exchange) { e.class = "broken" })
	f("", func(e *exchange) {
		e.class, e.completed, e.first, e.second, e.seen = "broken", true, refusal, rig.Answer{}, append(e.seen[:1], e.seen[2])
	})
	f("nobody got the answer to", func(e *exchange) { e.class, e.completed, e.second = "broken", true, refusal })
	f("the hidden request", func(e *exchange) { e.seen[1].Target = desync.Smuggled })
	f("one request as 2", func(e *exchange) { e.seen = append(e.seen, request{4, "GET", "/a"}) })
	f("nobody got the answer to {ID:1", func(e *exchange) { e.first = refusal })
	f("the case got the answer to /c", func(e *exchange) { e.first, e.second = e.second, rig.Answer{} })
	f("the next request got the answer to /a", func(e *exchange) { e.first, e.second = e.second, e.first })
	f("another client got the answer to /c", func(e *exchange) { e.second, e.fresh = e.fresh, e.second })
	f("somebody else had got", func(e *exchange) { e.second = e.first })
	f("no request", func(e *exchange) { e.fresh = answer(9, "/c/fresh") })
	f("another client got", func(e *exchange) { e.fresh = refusal })
	twice := request{4, "GET", "/c/fresh"}
	f("nobody got the answer to {ID:4", func(e *exchange) { e.seen = append(e.seen, twice) })
	f("", func(e *exchange) { e.seen, e.again = append(e.seen, twice), 1 })
	f("nobody got the answer to {ID:2", func(e *exchange) { e.again, e.second = 1, refusal })
}
