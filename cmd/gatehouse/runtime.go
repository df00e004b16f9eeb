package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// cgroupMemory is where the kernel tells a container its limit.
const cgroupMemory = "/sys/fs/cgroup/memory.max"

// tuneMemory makes the collector rare, for a request leaves next to nothing to
// collect, and careful near a container's limit. GOGC and GOMEMLIMIT win.
func tuneMemory(logger *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	limit := int64(0)
	if text, err := os.ReadFile(cgroupMemory); err == nil && os.Getenv("GOMEMLIMIT") == "" {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
			limit = n / 10 * 8
			debug.SetMemoryLimit(limit)
		}
	}
	logger.Info("starting", "version", version(), "processors", runtime.GOMAXPROCS(0), "memory_limit", limit)
}

// redisLog sends what the Redis client says to the log instead of standard
// error. It names addresses, never a password.
type redisLog struct{ logger *slog.Logger }

func (l redisLog) Printf(_ context.Context, format string, v ...any) {
	l.logger.Debug("redis", "message", fmt.Sprintf(format, v...))
}
