//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// newLabCgroup makes the cgroup that the nodes of a lab have theirs in, and nothing else, and removes it when the test ends.
// It returns where it is.
func newLabCgroup(t testing.TB) string {
	t.Helper()
	root, err := cgroupRoot()
	require.NoError(t, err)
	dir, err := os.MkdirTemp(root, "orb8-testbed-")
	require.NoError(t, err)
	t.Cleanup(func() { removeCgroup(t, dir) })
	return dir
}

// newCgroup makes a cgroup in the lab's, and kills what is left in it and removes it when the test ends. It returns its path
// below the cgroup v2 root.
func newCgroup(t testing.TB, labDir, name string) (string, *os.File) {
	t.Helper()
	root, err := cgroupRoot()
	require.NoError(t, err)
	dir := filepath.Join(labDir, name)
	require.NoError(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() { removeCgroup(t, dir) })
	f, err := os.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return strings.TrimPrefix(dir, root), f
}

func removeCgroup(t testing.TB, dir string) {
	pids, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	require.NoError(t, err)
	for _, field := range strings.Fields(string(pids)) {
		var pid int
		if _, err := fmt.Sscan(field, &pid); err == nil {
			t.Errorf("process %d outlived the test in %s", pid, dir)
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	// A killed process leaves its cgroup a moment after its parent has reaped it.
	assert.Eventually(t, func() bool { return os.Remove(dir) == nil }, 10*time.Second, 10*time.Millisecond,
		"cannot remove %s", dir)
}

func cgroupRoot() (string, error) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir, nil
		}
	}
	return "", errors.New("no cgroup v2 hierarchy at /sys/fs/cgroup or /sys/fs/cgroup/unified: mount one there")
}
