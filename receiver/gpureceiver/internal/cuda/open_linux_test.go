package cuda

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	bpf "github.com/orb8/orb8/bpf/cuda"
)

func TestParseMapLine(t *testing.T) {
	l, start, ok := parseMapLine("7f00aa000000-7f00aa200000 r-xp 00028000 08:11 1234      /usr/lib/with space/libcuda.so.1 (deleted)")
	assert.True(t, ok)
	assert.EqualValues(t, 0x7f00aa000000, start)
	assert.Equal(t, mapLine{device: unix.Mkdev(8, 0x11), inode: 1234, path: "/usr/lib/with space/libcuda.so.1 (deleted)"}, l)
	for _, line := range []string{
		"", "7f00aa000000-7f00aa200000 rw-p 00000000 00:00 0", "7ffc0000-7ffd0000 rw-p 00000000 00:00 0    [stack]",
		"x-y r-xp 0 08:11 12 /a", "1-2 r-xp 0 0811 12 /a", "1-2 r-xp 0 08:11 twelve /a",
	} {
		_, _, ok := parseMapLine(line)
		assert.False(t, ok, line)
	}
}

// TestOpenOfWhoIsGone holds that a process that has ended, or unmapped the file, is no failure.
func TestOpenOfWhoIsGone(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	require.NoError(t, cmd.Run())
	_, err := open(&bpf.CudaMapping{Pid: uint32(cmd.Process.Pid)}, true)
	assert.ErrorIs(t, err, errGone)
	_, err = open(&bpf.CudaMapping{Pid: uint32(os.Getpid()), Start: 1}, true)
	assert.ErrorIs(t, err, errGone)
}
