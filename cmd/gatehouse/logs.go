package main

import (
	"io"
	"log/slog"
	"sync"
	"time"
)

// soon is how long a line of the audit may wait for others.
const soon = 100 * time.Millisecond

// waiting bounds the lines that wait, in bytes.
const waiting = 64 << 10

// logs writes the process log. Lines that may wait are gathered, so that a
// token costs no system call for its line; any other line is written at once,
// after those that wait.
type logs struct {
	sink io.Writer

	mu    sync.Mutex
	lines []byte
	timer *time.Timer // runs while lines wait
}

func newLogs(sink io.Writer) *logs {
	l := &logs{sink: sink}
	l.timer = time.AfterFunc(soon, func() { _ = l.Flush() }) // nobody is left to tell
	l.timer.Stop()
	return l
}

// logger returns the process's logger, of JSON lines.
func (l *logs) logger() *slog.Logger {
	return slog.New(&logHandler{Handler: slog.NewJSONHandler(writer(l.write), nil), audit: slog.NewJSONHandler(writer(l.gather), nil)})
}

// Flush writes the lines that wait.
func (l *logs) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flushLocked()
}

func (l *logs) flushLocked() error {
	if len(l.lines) == 0 {
		return nil
	}
	l.timer.Stop()
	_, err := l.sink.Write(l.lines)
	l.lines = l.lines[:0]
	return err
}

func (l *logs) write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == 0 {
		return l.sink.Write(line)
	}
	l.lines = append(l.lines, line...)
	return len(line), l.flushLocked()
}

func (l *logs) gather(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == 0 {
		l.timer.Reset(soon)
	}
	l.lines = append(l.lines, line...)
	if len(l.lines) >= waiting {
		return len(line), l.flushLocked()
	}
	return len(line), nil
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// logHandler is a log with another way for the lines of the audit.
type logHandler struct {
	slog.Handler
	audit slog.Handler
}

// auditLogger is the logger of the audit's lines.
func auditLogger(l *slog.Logger) *slog.Logger {
	if h, ok := l.Handler().(*logHandler); ok {
		l = slog.New(h.audit)
	}
	return l.With("log", "audit")
}
