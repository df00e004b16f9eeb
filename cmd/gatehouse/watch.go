package main

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settleTime gathers the events of one save. settleMost bounds that: logs
	// and databases in the same folder may never leave it in peace.
	settleTime = 100 * time.Millisecond
	settleMost = 500 * time.Millisecond
	// pollTime finds what no event told, as on network file systems.
	pollTime = 5 * time.Second
)

// watchFiles calls changed when the content of one of the sources changes,
// until ctx ends. sources is asked anew after each change; folders among them
// stand for the files in them. Folders are watched rather than files, because
// editors and Kubernetes replace files by renaming.
func watchFiles(ctx context.Context, sources func() []string, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	seen := fingerprint(sources())
	watched := map[string]bool{}
	follow := func() {
		for _, s := range sources() {
			for _, folder := range []string{s, filepath.Dir(s)} {
				if info, err := os.Stat(folder); err == nil && info.IsDir() && !watched[folder] && w.Add(folder) == nil {
					watched[folder] = true
				}
			}
		}
	}
	follow()
	poll := time.NewTicker(pollTime)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-w.Events:
			if !ok {
				return ctx.Err()
			}
			if !settle(ctx, w) {
				return ctx.Err()
			}
		case <-w.Errors: // an overflow: what happened is unknown
		case <-poll.C:
		}
		if now := fingerprint(sources()); now != seen {
			seen = now
			changed()
			follow()
		}
	}
}

// settle waits until no event came for settleTime, settleMost at the longest.
func settle(ctx context.Context, w *fsnotify.Watcher) bool {
	timer, most := time.NewTimer(settleTime), time.NewTimer(settleMost)
	defer timer.Stop()
	defer most.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case _, ok := <-w.Events:
			if !ok {
				return false
			}
			timer.Reset(settleTime)
		case <-timer.C:
			return true
		case <-most.C:
			return true
		}
	}
}

// fingerprint is a digest of the files' contents and the folders' names.
func fingerprint(sources []string) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, s := range sources {
		_, _ = io.WriteString(h, s+"\x00")
		if entries, err := os.ReadDir(s); err == nil {
			for _, e := range entries {
				_, _ = io.WriteString(h, e.Name()+"\x00")
			}
			continue
		}
		if content, err := os.ReadFile(s); err == nil {
			_, _ = h.Write(content)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}
