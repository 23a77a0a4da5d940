package cuda

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/testutil"
)

// patience is for what takes milliseconds, looked for every tick.
const patience, tick = 10 * time.Second, 5 * time.Millisecond

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// driverFile is the name by which programs know libcuda.
const driverFile = "libcuda.so.1"

// How the stub's functions begin; see testdata/stub.c.
const (
	pushes = "-DBEGIN=PUSH"
	endbr  = "-DBEGIN=ENDBR"
	subs   = "-DBEGIN=SUB"
	steps  = "-DBEGIN=TEST"
)

// compile builds a library, or a program, and returns its path.
func compile(t testing.TB, source, name string, flags ...string) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	testutil.Require(t, "cc", err == nil, "building a stub of libcuda needs a C compiler")
	out := filepath.Join(t.TempDir(), name)
	args := append([]string{"-O2", "-o", out, filepath.Join("testdata", source)}, flags...)
	if strings.HasPrefix(name, "lib") {
		args = append(args, "-shared", "-fPIC", "-fvisibility=hidden")
	} else {
		args = append(args, "-pthread", "-ldl")
	}
	text, err := exec.Command(cc, args...).CombinedOutput()
	require.NoError(t, err, string(text))
	return out
}

func stub(t testing.TB, name string, flags ...string) string {
	t.Helper()
	return compile(t, "stub.c", name, flags...)
}

func newEngine(t testing.TB, opts Options) *Engine {
	t.Helper()
	testutil.Require(t, "bpf", os.Geteuid() == 0, "loading BPF programs needs root")
	if opts.Interval == 0 {
		opts.Interval = time.Hour // what is found is found by the word of it
	}
	e, err := New(opts)
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		t.Fatalf("%+v", verifier)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, e.Close()) })
	return e
}

// caller is a process that has libraries mapped and calls them when it is told to.
type caller struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// start starts one in a cgroup. It has its libraries mapped when start returns.
func (g group) start(t testing.TB, program string, libraries ...string) *caller {
	t.Helper()
	dir, err := os.Open(g.dir)
	require.NoError(t, err)
	defer dir.Close()
	c := &caller{cmd: exec.Command(program, libraries...)}
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	c.in, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.out = bufio.NewReader(out)
	require.NoError(t, c.cmd.Start())
	t.Cleanup(func() { c.end(t) })
	line, err := c.out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	return c
}

// call has a function called by each of some threads, and returns how long all that took.
func (c *caller) call(t testing.TB, name string, calls, threads int, arguments ...uint64) time.Duration {
	t.Helper()
	var a [5]uint64
	copy(a[:], arguments)
	_, err := fmt.Fprintln(c.in, name, calls, threads, a[0], a[1], a[2], a[3], a[4])
	require.NoError(t, err)
	line, err := c.out.ReadString('\n')
	require.NoError(t, err)
	ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	require.NoError(t, err)
	return time.Duration(ns)
}

func (c *caller) end(t testing.TB) {
	if c.cmd.ProcessState == nil {
		c.in.Close()
		assert.NoError(t, c.cmd.Wait())
	}
}

// counts are what was counted, by cgroup and kind.
type counts map[uint64]map[Kind]Count

func (c counts) drain(t testing.TB, e *Engine) Loss {
	t.Helper()
	loss, err := e.Drain(func(id uint64, kind Kind, n *Count) {
		if c[id] == nil {
			c[id] = map[Kind]Count{}
		}
		sum := c[id][kind]
		sum.Add(n)
		c[id][kind] = sum
	})
	require.NoError(t, err)
	return loss
}

// drained returns what was counted in a cgroup since the last time. Nothing was lost.
func (g group) drained(t testing.TB, e *Engine) map[Kind]Count {
	t.Helper()
	c := counts{}
	require.Zero(t, c.drain(t, e), "lost")
	return c[g.id]
}

// attached waits until a library is looked at by so many processes, and returns what is known of it.
func attached(t testing.TB, e *Engine, processes int) File {
	t.Helper()
	var f File
	require.Eventually(t, func() bool {
		files := e.Files()
		if len(files) != 1 {
			return false
		}
		f = files[0]
		return f.Processes == processes
	}, patience, tick, "files: %v", e.Files())
	return f
}

// group is a cgroup of the test's own.
type group struct {
	dir string
	id  uint64
}

func newGroup(t testing.TB) group {
	t.Helper()
	testutil.Require(t, "bpf", os.Geteuid() == 0, "making a cgroup needs root")
	mount, err := cgroup.FindMount("")
	require.NoError(t, err)
	dir, err := os.MkdirTemp(mount.Path, "orb8-cuda-")
	require.NoError(t, err)
	t.Cleanup(func() {
		// A process leaves its cgroup a moment after its parent has reaped it.
		assert.Eventually(t, func() bool { err := os.Remove(dir); return err == nil || errors.Is(err, os.ErrNotExist) },
			patience, tick)
	})
	var st unix.Stat_t
	require.NoError(t, unix.Stat(dir, &st))
	return group{dir, st.Ino}
}
