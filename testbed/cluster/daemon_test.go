//go:build linux

package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDaemons(t *testing.T) {
	d := daemons(filepath.Join(t.TempDir(), "daemons"))
	assert.False(t, d.running("cat"), "never started")
	require.NoError(t, d.stop("cat"))

	start := func(name string, args ...string) {
		cmd := exec.Command(name, args...)
		stdin, err := cmd.StdinPipe() // or it ends at once
		require.NoError(t, err)
		t.Cleanup(func() { _ = stdin.Close() })
		require.NoError(t, d.start("cat", cmd))
	}
	start("cat")
	assert.True(t, d.running("cat"))
	pid, err := d.pid("cat")
	require.NoError(t, err)

	// A file that another process left, whose number is taken again.
	started, err := startTime(pid)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(d.pidFile("other"), fmt.Appendf(nil, "%d %d\n", pid, started-1), 0o644))
	assert.False(t, d.running("other"))
	require.NoError(t, d.stop("other"))
	assert.True(t, d.running("cat"), "it was not meant")

	require.NoError(t, d.stop("cat"))
	assert.False(t, d.running("cat"))

	start("sh", "-c", "echo why >&2; exec cat")
	require.NoError(t, d.stop("cat"))
	_, err = d.pid("cat")
	require.ErrorContains(t, err, "cat does not run")
}
