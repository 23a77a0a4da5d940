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

// newCgroup makes a cgroup below the cgroup v2 root, and kills what is left in it and removes it when the test ends.
func newCgroup(t testing.TB, name string) (string, *os.File) {
	t.Helper()
	root, err := cgroupRoot()
	require.NoError(t, err)
	dir, err := os.MkdirTemp(root, "orb8-testbed-"+name+"-")
	require.NoError(t, err)
	t.Cleanup(func() { removeCgroup(t, dir) })
	f, err := os.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return strings.TrimPrefix(dir, strings.TrimSuffix(root, "/")), f
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
