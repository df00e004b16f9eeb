package servers

import (
	"os"
	"testing"
)

// MemoryDir returns a new folder whose files no commit has to wait for: in
// memory where the system has such a file system, else the test's TempDir. A
// process that dies loses nothing there; a machine that dies is what no test
// here is about.
func MemoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "gatehouse-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
