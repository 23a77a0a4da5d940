package engine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/internal/testutil"
)

// patience is for what takes milliseconds, looked for every tick.
const patience, tick = 10 * time.Second, time.Millisecond

// Numbers that mean nothing on any architecture, so that nobody else calls them.
const unused, unused2 = 500, 501

// envCalls has this binary make system calls rather than run tests: a list of WHAT:NUMBER.
const envCalls = "ORB8_TEST_CALLS"

func TestMain(m *testing.M) {
	if calls := os.Getenv(envCalls); calls != "" {
		makeCalls(calls)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// makeCalls takes the number of a call and how often to make it, without arguments, or one of the words below.
func makeCalls(list string) {
	runtime.LockOSThread()
	for item := range strings.SplitSeq(list, ",") {
		what, arg, _ := strings.Cut(item, ":")
		n, err := strconv.Atoi(arg)
		if err != nil {
			panic(err)
		}
		switch what {
		case "cpu":
			var set unix.CPUSet
			set.Set(n)
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				panic(err)
			}
		case "exec": // so often, by a thread that is not the first
			if n > 0 {
				panic(execute(fmt.Sprintf("exec:%d", n-1)))
			}
		case "missing": // ENOENT
			open(unix.AT_FDCWD, "/there is no such file", n)
		case "badfd": // EBADF
			open(-1, "relative", n)
		case "read": // from standard input, a byte at a time
			var b [1]byte
			for range n {
				if _, err := unix.Read(0, b[:]); err != nil {
					panic(err)
				}
			}
		case "write": // to standard output, a byte at a time
			for range n {
				if _, err := unix.Write(1, []byte{1}); err != nil {
					panic(err)
				}
			}
		case "sleep": // milliseconds, once
			if err := sleep(time.Duration(n) * time.Millisecond); err != nil {
				panic(err)
			}
		case "threads": // so many, a hundred at a time, that make one call and end
			const once = 100
			for range n / once {
				crowd(once)()
			}
		case "crowd": // threads that make one call and stay
			crowd(n)
		default:
			number, err := strconv.Atoi(what)
			if err != nil {
				panic(err)
			}
			call(number, n)
		}
	}
}

// crowd starts threads that have made one call when it returns. end ends them.
func crowd(threads int) (end func()) {
	var called, ended sync.WaitGroup
	leave := make(chan struct{})
	for range threads {
		called.Add(1)
		ended.Go(func() {
			runtime.LockOSThread() // never unlocked: the thread ends here
			call(unused, 1)
			called.Done()
			<-leave
		})
	}
	called.Wait()
	return func() {
		close(leave)
		ended.Wait()
	}
}

// execute has another thread than the process's first run this binary in its place, to make calls.
func execute(calls string) error {
	if err := os.Setenv(envCalls, calls); err != nil {
		return err
	}
	failed := make(chan error)
	var run func()
	run = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			go run()
			select {}
		}
		failed <- unix.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	go run()
	return <-failed
}

// sleep makes one call of ppoll, which no signal ends: the runtime sends some.
func sleep(long time.Duration) error {
	all := ^uint64(0)
	ts := unix.NsecToTimespec(int64(long))
	_, _, errno := unix.Syscall6(unix.SYS_PPOLL, 0, 0, uintptr(unsafe.Pointer(&ts)), uintptr(unsafe.Pointer(&all)), unsafe.Sizeof(all), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func call(number, times int) {
	for range times {
		_, _, _ = unix.RawSyscall(uintptr(number), 0, 0, 0)
	}
}

func open(dirfd int, path string, times int) {
	name := append([]byte(path), 0)
	for range times {
		_, _, _ = unix.RawSyscall6(unix.SYS_OPENAT, uintptr(dirfd), uintptr(unsafe.Pointer(&name[0])), 0, 0, 0, 0)
	}
}

func newEngine(t testing.TB, opts Options) *Engine {
	t.Helper()
	testutil.Require(t, "bpf", os.Geteuid() == 0, "loading BPF programs needs root")
	e, err := New(opts)
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		t.Fatalf("%+v", verifier)
	}
	require.NoError(t, err)
	require.NoError(t, e.LatencyError())
	t.Cleanup(func() { assert.NoError(t, e.Close()) })
	return e
}

// counts are what was counted, by cgroup and call.
type counts map[uint64]map[syscalls.Call]syscalls.Count

// drain adds what was counted since the last time.
func (c counts) drain(t testing.TB, e *Engine) Loss {
	t.Helper()
	loss, err := e.Drain(func(id uint64, n *syscalls.Count) {
		if c[id] == nil {
			c[id] = map[syscalls.Call]syscalls.Count{}
		}
		sum := c[id][n.Call]
		sum.Call = n.Call
		sum.Calls += n.Calls
		for name, errors := range n.Errors {
			if sum.Errors == nil {
				sum.Errors = map[string]uint64{}
			}
			sum.Errors[name] += errors
		}
		if n.Latency != nil {
			if sum.Latency == nil {
				sum.Latency = &syscalls.Latency{}
			}
			sum.Latency.Add(n.Latency)
		}
		c[id][n.Call] = sum
	})
	require.NoError(t, err)
	return loss
}

func (c counts) of(g group, number int) syscalls.Count {
	return c[g.id][syscalls.Call{ABI: abis()[0], Number: int32(number)}]
}

func drained(t testing.TB, e *Engine) counts {
	t.Helper()
	c := counts{}
	require.Zero(t, c.drain(t, e), "lost")
	return c
}

// group is a cgroup of the test's own.
type group struct {
	dir string
	id  uint64
}

func newGroup(t testing.TB) group {
	t.Helper()
	mount, err := cgroup.FindMount("")
	require.NoError(t, err)
	dir, err := os.MkdirTemp(mount.Path, "orb8-engine-")
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

// command prepares a process of the cgroup.
func (g group) command(t testing.TB, path string, env ...string) *exec.Cmd {
	t.Helper()
	dir, err := os.Open(g.dir)
	require.NoError(t, err)
	t.Cleanup(func() { dir.Close() })
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	return cmd
}

// start has a process of the cgroup make calls.
func (g group) start(t testing.TB, calls string) *exec.Cmd {
	t.Helper()
	cmd := g.command(t, "/proc/self/exe", envCalls+"="+calls)
	require.NoError(t, cmd.Start())
	return cmd
}

func (g group) run(t testing.TB, calls string) {
	t.Helper()
	require.NoError(t, g.start(t, calls).Wait())
}

// enter moves this process to the cgroup, until the test ends.
func (g group) enter(t testing.TB) {
	t.Helper()
	mount, err := cgroup.FindMount("")
	require.NoError(t, err)
	mine, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	for line := range strings.Lines(string(mine)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			t.Cleanup(func() { assert.NoError(t, move(filepath.Join(mount.Path, path))) })
		}
	}
	require.NoError(t, move(g.dir))
}

func move(dir string) error { return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0) }
