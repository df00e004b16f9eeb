package server

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

func TestAccessLogWritesOneJSONLinePerExchange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l, err := OpenAccessLog(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	x := &plugins.Exchange{
		Method: []byte("GET"), Path: []byte(`/a"b\`), Query: []byte("token=hunter2"), HasQuery: true,
		Time: time.Unix(1, 0), RequestID: []byte("id"), Route: &routes.Route{Name: "orders"},
		Principal: &plugins.Principal{ClientID: "c\n1", Subject: `s"1`},
		Record:    plugins.Record{Status: 403, Reason: plugins.ScopeMissing},
	}
	const lines = 500
	for range lines {
		l.Record(x, time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Split(strings.TrimSpace(string(content)), "\n")
	if len(all) != lines {
		t.Fatalf("%d lines", len(all))
	}
	for _, line := range all {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if v["reason"] != "scope_missing" || v["http.route"] != "orders" || v["client_id"] != "c?1" || v["duration_us"] != 1000.0 {
			t.Fatalf("got %v", v)
		}
	}
	if strings.Contains(string(content), "hunter2") {
		t.Error("the query was logged")
	}
}
