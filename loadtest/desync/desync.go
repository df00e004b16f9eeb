// Package desync holds the corpus of messages about whose end two servers may
// disagree: requests, and answers of origins.
//
// It owns the bytes and what each class of them promises. It does not send them:
// loadtest/edge does, to a gateway before a scripted origin, and
// loadtest/differential to one before the proxies of others.
//
//	for _, r := range desync.Requests() {
//		client.Send(r.For("api.test"))
//	}
package desync

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
)

// Smuggled is the path of the request that hides in the content of others.
const Smuggled = "/smuggled"

// Poison is the content of the answer that hides in other answers.
const Poison = "POISON"

// Request is one case of the corpus of requests.
type Request struct {
	// Class is what must become of it: "severe", "broken", "ambiguous" or
	// "harmless", as requests.txt explains.
	Class string
	Name  string

	text string
}

// Answer is one case of the corpus of answers.
type Answer struct {
	Name string
	// Method is what is asked with.
	Method string
	// Close tells that the origin ends the connection afterwards.
	Close bool
	// Raw is what the origin sends.
	Raw string
}

//go:embed requests.txt
var requests string

//go:embed answers.txt
var answers string

// Requests is the corpus of requests. It panics if the file that is compiled in
// is malformed.
func Requests() (all []Request) {
	for words, text := range lines(requests, 2) {
		all = append(all, Request{Class: words[0], Name: words[1], text: text})
	}
	return all
}

// Answers is the corpus of answers. It panics if the file that is compiled in
// is malformed.
func Answers() (all []Answer) {
	poison := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(Poison), Poison)
	for words, text := range lines(answers, 3) {
		all = append(all, Answer{Name: words[0], Method: words[1], Close: words[2] == "close", Raw: fill(text, poison)})
	}
	return all
}

// lines yields the cases of a file: so many words, and the text behind them,
// which is in Go's quoting.
func lines(file string, words int) func(yield func([]string, string) bool) {
	return func(yield func([]string, string) bool) {
		for line := range strings.Lines(file) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			before, _, _ := strings.Cut(line, `"`)
			text, err := strconv.Unquote(strings.TrimSpace(line[len(before):]))
			fields := strings.Fields(before)
			if err != nil || len(fields) != words {
				panic(fmt.Sprintf("desync: malformed case %q: %v", line, err))
			}
			if !yield(fields, text) {
				return
			}
		}
	}
}

// For is what a client sends to have the case served by host.
func (r Request) For(host string) string {
	text := strings.ReplaceAll(r.text, "{host}", host)
	return fill(text, "GET "+Smuggled+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
}

// Method is the method that the request line begins with.
func (r Request) Method() string {
	method, _, _ := strings.Cut(strings.TrimLeft(r.text, "\r\n"), " ")
	return method
}

// fill puts the hidden message and what tells its length into text.
func fill(text, hidden string) string {
	text = strings.NewReplacer("{hidden}", hidden, "{hex}", strconv.FormatInt(int64(len(hidden)), 16)).Replace(text)
	_, content, _ := strings.Cut(text, "\r\n\r\n")
	return strings.ReplaceAll(text, "{length}", strconv.Itoa(len(content)))
}
