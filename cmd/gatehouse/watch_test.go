package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAnEditIsNoticedInAFolderThatIsNeverQuiet(t *testing.T) {
	folder := t.TempDir()
	config, log := filepath.Join(folder, "gatehouse.yaml"), filepath.Join(folder, "access.log")
	write := func(path, content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Error(err)
		}
	}
	write(config, "old")
	ctx, cancel := context.WithCancel(t.Context())
	noticed, busy, watching := make(chan struct{}, 10), make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(busy)
		for ctx.Err() == nil {
			write(log, time.Now().String())
			time.Sleep(settleTime / 10)
		}
	}()
	go func() {
		watching <- watchFiles(ctx, func() []string { return []string{config} }, func() { noticed <- struct{}{} })
	}()
	// Whether the edit comes before the watch has begun is not known, so it is
	// made again.
	deadline := time.After(pollTime - time.Second) // what the poll finds proves nothing
	again := time.NewTicker(settleMost * 2)
	defer again.Stop()
	for {
		select {
		case <-noticed:
		case <-again.C:
			write(config, "new "+time.Now().String())
			continue
		case <-deadline:
			t.Error("the edit was not noticed")
		}
		break
	}
	cancel()
	<-busy
	<-watching
}
