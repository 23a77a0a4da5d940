//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/testutil"
)

// Cgroup is a cgroup of the test's own.
type Cgroup struct {
	path string
	dir  *os.File
}

// NewCgroup makes a cgroup below the cgroup v2 root, and kills what is left in it and removes it when the test ends. Without root
// the test is skipped, or fails where BPF tests are required.
func NewCgroup(t testing.TB) *Cgroup {
	t.Helper()
	testutil.Require(t, "bpf", os.Geteuid() == 0, "cgroups need root")
	root, err := cgroupRoot()
	require.NoError(t, err)
	dir, err := os.MkdirTemp(root, "orb8-testbed-")
	require.NoError(t, err)
	return openCgroup(t, dir, "/"+filepath.Base(dir))
}

// Child makes a cgroup in c, as NewCgroup does.
func (c *Cgroup) Child(t testing.TB, name string) *Cgroup {
	t.Helper()
	dir := filepath.Join(c.Dir(), name)
	require.NoError(t, os.Mkdir(dir, 0o755))
	return openCgroup(t, dir, filepath.Join(c.path, name))
}

func openCgroup(t testing.TB, dir, path string) *Cgroup {
	t.Helper()
	t.Cleanup(func() { removeCgroup(t, dir) })
	f, err := os.Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return &Cgroup{path: path, dir: f}
}

// Path returns the path of the cgroup below the cgroup v2 root, with a leading slash.
func (c *Cgroup) Path() string { return c.path }

// Dir returns the cgroup's directory.
func (c *Cgroup) Dir() string { return c.dir.Name() }

// Start starts the command in the cgroup: its first instruction already runs there. With a Pdeathsig that would be a getppid,
// so it sets none.
func (c *Cgroup) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.UseCgroupFD = true
	cmd.SysProcAttr.CgroupFD = int(c.dir.Fd())
	return cmd.Start()
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
