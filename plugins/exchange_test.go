package plugins

import "testing"

func TestHeadOfAnAnswerIsWhatStepsLeaveAndAdd(t *testing.T) {
	f := func(name string, change func(x *Exchange), h ResponseHead, want string) {
		t.Helper()
		x := &Exchange{}
		change(x)
		if got := string(x.AppendHead([]byte("> "), &h)); got != "> "+want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	service := ResponseHead{Fields: []byte("Server: a\r\nVary: Accept\r\nserver: b\r\n")}
	f("nothing asked for", func(*Exchange) {}, service, string(service.Fields))
	f("added", func(x *Exchange) { x.AddResponseField("X-A", "1") }, service, string(service.Fields)+"X-A: 1\r\n")
	f("dropped", func(x *Exchange) { x.DropResponseField("server") }, service, "Vary: Accept\r\n")
	f("set", func(x *Exchange) { x.DropResponseField("server"); x.AddResponseField("Server", "c") }, service,
		"Vary: Accept\r\nServer: c\r\n")
	refusal := ResponseHead{Own: true, Fields: []byte("Cache-Control: no-store\r\n")}
	f("a refusal keeps what it says", func(x *Exchange) {
		x.DropResponseField("cache-control")
		x.AddResponseField("cache-control", "public")
		x.AddResponseField("X-A", "1")
	}, refusal, "Cache-Control: no-store\r\nX-A: 1\r\n")
}

func TestResetKeepsNothingOfTheLastRequest(t *testing.T) {
	x := &Exchange{Path: []byte("/a")}
	x.AddRequestField("X-A", []byte("1"))
	x.SetTarget([]byte("/b"))
	x.DropResponseField("server")
	if string(x.Fields[0].Line) != "X-A: 1\r\n" || string(x.Fields[0].Name) != "X-A" || string(x.Fields[0].Value) != "1" {
		t.Errorf("field %q", x.Fields[0].Line)
	}
	if string(x.Target()) != "/b" || string(x.Path) != "/a" {
		t.Errorf("target %q path %q", x.Target(), x.Path)
	}
	x.Reset()
	x.Path = []byte("/c")
	if len(x.Fields) != 0 || string(x.Target()) != "/c" {
		t.Errorf("fields %d, target %q", len(x.Fields), x.Target())
	}
	h := ResponseHead{Fields: []byte("Server: a\r\n")}
	if got := string(x.AppendHead(nil, &h)); got != "Server: a\r\n" {
		t.Errorf("head %q", got)
	}
}
