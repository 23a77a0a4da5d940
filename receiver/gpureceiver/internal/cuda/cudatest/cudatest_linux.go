// Package cudatest builds a libcuda that does nothing, and programs that call it in a cgroup of their own.
package cudatest

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/testutil"
)

// patience is for what takes milliseconds, looked for every tick.
const patience, tick = 10 * time.Second, 5 * time.Millisecond

// Driver is the name by which programs know libcuda.
const Driver = "libcuda.so.1"

// How the stub's functions begin; see testdata/stub.c.
const (
	Pushes = "-DBEGIN=PUSH"
	Endbr  = "-DBEGIN=ENDBR"
	Subs   = "-DBEGIN=SUB"
	Steps  = "-DBEGIN=TEST"
	// Runtime makes a libcudart.
	Runtime = "-DRUNTIME"
)

//go:embed testdata/stub.c
var stub string

//go:embed testdata/caller.c
var caller string

// EnvBuilt names a directory with what BuildAll has made, for machines without a C compiler. EnvBuild names one to make it in.
const (
	EnvBuilt = "ORB8_TEST_CUDA"
	EnvBuild = "ORB8_TEST_CUDA_BUILD"
)

// Library builds one of a name, and returns its path. It skips the test where there is no C compiler.
func Library(t testing.TB, name string, flags ...string) string {
	t.Helper()
	return built(t, name, stub, append(flags, "-shared", "-fPIC", "-fvisibility=hidden")...)
}

// Program builds the one that Start starts.
func Program(t testing.TB) string {
	t.Helper()
	return built(t, "caller", caller, "-pthread", "-ldl")
}

// BuildAll makes what the tests of package cuda ask for.
func BuildAll(dir string) error {
	if err := compile(filepath.Join(dir, builtName(caller, "-pthread", "-ldl")), caller, "-pthread", "-ldl"); err != nil {
		return err
	}
	for _, flags := range [][]string{{Pushes}, {Endbr}, {Subs}, {Steps}, {Runtime}, {Pushes, Runtime}} {
		flags = append(flags, "-shared", "-fPIC", "-fvisibility=hidden")
		if err := compile(filepath.Join(dir, builtName(stub, flags...)), stub, flags...); err != nil {
			return err
		}
	}
	return nil
}

// builtName tells apart what has been made of a source.
func builtName(source string, flags ...string) string {
	return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(source+strings.Join(flags, "\n"))))
}

func built(t testing.TB, name, source string, flags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	if dir := os.Getenv(EnvBuilt); dir != "" {
		text, err := os.ReadFile(filepath.Join(dir, builtName(source, flags...)))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(out, text, 0o700))
		return out
	}
	_, err := exec.LookPath("cc")
	testutil.Require(t, "cc", err == nil, "building a stub of libcuda needs a C compiler")
	require.NoError(t, compile(out, source, flags...))
	return out
}

func compile(out, source string, flags ...string) error {
	cmd := exec.Command("cc", append([]string{"-O2", "-o", out, "-xc", "-"}, flags...)...)
	cmd.Stdin = strings.NewReader(source)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %s: %w: %s", filepath.Base(out), err, text)
	}
	return nil
}

// Caller is a process that has libraries mapped and calls them when it is told to.
type Caller struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// Start starts one in the cgroup. It has its libraries mapped when Start returns.
func (g Group) Start(t testing.TB, program string, libraries ...string) *Caller {
	t.Helper()
	dir, err := os.Open(g.dir)
	require.NoError(t, err)
	defer dir.Close()
	c := &Caller{cmd: exec.Command(program, libraries...)}
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	c.in, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.out = bufio.NewReader(out)
	require.NoError(t, c.cmd.Start())
	t.Cleanup(func() { c.End(t) })
	line, err := c.out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	return c
}

// Call has a function called by each of some threads, and returns how long all that took.
func (c *Caller) Call(t testing.TB, name string, calls, threads int, arguments ...uint64) time.Duration {
	t.Helper()
	wall, _ := c.Measure(t, name, calls, threads, arguments...)
	return wall
}

// Measure is Call, and returns the first thread's time on a processor too.
func (c *Caller) Measure(t testing.TB, name string, calls, threads int, arguments ...uint64) (wall, cpu time.Duration) {
	t.Helper()
	var a [5]uint64
	copy(a[:], arguments)
	_, err := fmt.Fprintln(c.in, name, calls, threads, a[0], a[1], a[2], a[3], a[4])
	require.NoError(t, err)
	_, err = fmt.Fscan(c.out, &wall, &cpu)
	require.NoError(t, err)
	return wall, cpu
}

// End ends it.
func (c *Caller) End(t testing.TB) {
	if c.cmd.ProcessState == nil {
		c.in.Close()
		assert.NoError(t, c.cmd.Wait())
	}
}

// Group is a cgroup of the test's own.
type Group struct {
	dir string
	// ID is what the kernel knows it by.
	ID uint64
}

// NewGroup makes one. It skips the test of who is not root.
func NewGroup(t testing.TB) Group {
	t.Helper()
	return newGroup(t, func(root string) (string, error) { return os.MkdirTemp(root, "orb8-cuda-") })
}

// NewGroupAt makes one as a container runtime does, by its path in the hierarchy, of which the first part is the test's own.
func NewGroupAt(t testing.TB, path ...string) Group {
	t.Helper()
	return newGroup(t, func(dir string) (string, error) {
		for i, name := range path {
			dir = filepath.Join(dir, name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				return "", err
			}
			if i < len(path)-1 {
				made := dir
				t.Cleanup(func() { assert.NoError(t, os.Remove(made)) })
			}
		}
		return dir, nil
	})
}

func newGroup(t testing.TB, mkdir func(root string) (string, error)) Group {
	t.Helper()
	testutil.Require(t, "bpf", os.Geteuid() == 0, "making a cgroup needs root")
	mount, err := cgroup.FindMount("")
	require.NoError(t, err)
	dir, err := mkdir(mount.Path)
	require.NoError(t, err)
	t.Cleanup(func() {
		// A process leaves its cgroup a moment after its parent has reaped it.
		assert.Eventually(t, func() bool { err := os.Remove(dir); return err == nil || errors.Is(err, os.ErrNotExist) },
			patience, tick)
	})
	var st unix.Stat_t
	require.NoError(t, unix.Stat(dir, &st))
	return Group{dir, st.Ino}
}
