package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestReadAnswerTakesOnlyWhatTheOriginSent(t *testing.T) {
	want := []byte("hello")
	f := func(answer string, size int, failure string) {
		t.Helper()
		got, err := readAnswer([]byte(answer), want)
		if failure == "" && (err != nil || got != size) {
			t.Errorf("%q: size %d, %v; want %d", answer, got, err, size)
		}
		if failure != "" && (err == nil || !strings.Contains(err.Error(), failure)) {
			t.Errorf("%q: %v; want an error with %q", answer, err, failure)
		}
	}
	good := "HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 5\r\n\r\nhello"
	f(good, len(good), "")
	f(good+"HTTP/1.1", len(good), "")
	f("HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", 40, "")
	f(good[:len(good)-1], 0, "")
	f("HTTP/1.1 200 OK\r\n", 0, "")
	f("", 0, "")
	f("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nhello", 0, `"503"`)
	f("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0, "not HTTP/1.1")
	f("HTTP/1.1 \r\n\r\n", 0, "not HTTP/1.1")
	f("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhell", 0, "4 bytes")
	f("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellO", 0, "another content")
	f("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 0, "two lengths")
	f("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", 0, "unreadable")
	f("HTTP/1.1 200 OK\r\nContent-Length: 55555555555\r\n\r\nhello", 0, "unreadable")
	f("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 0, "transfer coding")
	f("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", 0, "closes")
	f("HTTP/1.1 200 OK\r\nnonsense\r\n\r\nhello", 0, "without colon")
	f("HTTP/1.1 200 OK\r\n\r\nhello", 0, "no length")
}

func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
	f.Add([]byte("HTTP/1.1 200\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\nContent-Length:5\n\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		size, err := readAnswer(b, []byte("hello"))
		if size < 0 || size > len(b) || err != nil && size != 0 {
			t.Fatalf("%q: %d, %v", b, size, err)
		}
		if size > 0 && !bytes.HasSuffix(b[:size], []byte("\r\n\r\nhello")) {
			t.Fatalf("%q: %d does not end with the content", b, size)
		}
	})
}

func TestFieldNames(t *testing.T) {
	got := fieldNames([]byte("GET / HTTP/1.1\r\nHost: a:1\r\nX-Forwarded-For: ::1\r\n\r\n"))
	if !slices.Equal(got, []string{"host", "x-forwarded-for"}) {
		t.Error(got)
	}
}
