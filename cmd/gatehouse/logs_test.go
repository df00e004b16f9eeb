package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// written is a sink that counts what it is given.
type written struct {
	mu    sync.Mutex
	text  bytes.Buffer
	calls int
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	return w.text.Write(p)
}

func (w *written) state() (lines, calls int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Count(w.text.String(), "\n"), w.calls
}

func TestAuditLinesWaitForOneAnotherAndForNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &written{}
		l := newLogs(w)
		logger := l.logger()
		audit := auditLogger(logger)
		for range 50 {
			audit.Info("audit", "action", "token.issued")
		}
		if lines, _ := w.state(); lines != 0 {
			t.Errorf("%d lines were written at once", lines)
		}
		time.Sleep(2 * soon)
		if lines, calls := w.state(); lines != 50 || calls != 1 {
			t.Errorf("%d lines in %d writes", lines, calls)
		}
		// Any other line comes at once, and after those that wait.
		audit.Info("audit", "action", "token.refreshed")
		logger.Warn("something")
		if lines, calls := w.state(); lines != 52 || calls != 2 {
			t.Errorf("%d lines in %d writes", lines, calls)
		}
		logger.Warn("another")
		if lines, _ := w.state(); lines != 53 {
			t.Error("a line waits for nothing")
		}
		text := w.text.String()
		if !strings.Contains(text, `"log":"audit"`) || strings.Index(text, "token.refreshed") > strings.Index(text, "something") {
			t.Errorf("the lines are out of order: %s", text)
		}
		// Too much does not wait, and the end leaves nothing behind.
		for range waiting/50 + 1 {
			audit.Info("audit", "action", "token.issued")
		}
		before, _ := w.state()
		if before == 53 {
			t.Error("lines gather without bound")
		}
		audit.Info("audit", "action", "logout")
		if err := l.Flush(); err != nil {
			t.Error(err)
		}
		if text := w.text.String(); !strings.Contains(text, "logout") {
			t.Error("the last line is lost")
		}
		synctest.Wait()
	})
}
