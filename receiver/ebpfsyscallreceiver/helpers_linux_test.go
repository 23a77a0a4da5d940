package ebpfsyscallreceiver

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/sharedcomponent"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/metadata"
)

// patience is for what takes milliseconds, looked for every tick.
const patience, tick = 10 * time.Second, time.Millisecond

// envCalls has TestCalls make system calls: a list of NAME:TIMES.
const envCalls = "ORB8_TEST_CALLS"

const missingFile = "/there is no such file"

// TestCalls is the process that other tests watch.
func TestCalls(t *testing.T) {
	if os.Getenv(envCalls) == "" {
		t.Skip("is for other tests to start")
	}
	runtime.LockOSThread()
	file := append([]byte(missingFile), 0)
	for item := range strings.SplitSeq(os.Getenv(envCalls), ",") {
		name, times, _ := strings.Cut(item, ":")
		n, err := strconv.Atoi(times)
		require.NoError(t, err)
		call, err := syscalls.ParseCall(nativeABI(), name)
		require.NoError(t, err)
		for range n {
			_, _, _ = unix.RawSyscall6(uintptr(call.Number), ^uintptr(0), uintptr(unsafe.Pointer(&file[0])), 0, 0, 0, 0)
		}
	}
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
	dir, err := os.MkdirTemp(mount.Path, "orb8-receiver-")
	require.NoError(t, err)
	t.Cleanup(func() {
		// A process leaves its cgroup a moment after its parent has reaped it.
		assert.Eventually(t, func() bool { err := os.Remove(dir); return err == nil || errors.Is(err, os.ErrNotExist) }, patience, tick)
	})
	var st unix.Stat_t
	require.NoError(t, unix.Stat(dir, &st))
	return group{dir, st.Ino}
}

// run has a process of the cgroup make calls, and returns its id.
func (g group) run(t testing.TB, calls string) int {
	t.Helper()
	dir, err := os.Open(g.dir)
	require.NoError(t, err)
	defer dir.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestCalls$")
	cmd.Env = append(os.Environ(), envCalls+"="+calls)
	cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)
	return cmd.Process.Pid
}

// kernelConfig reports nothing before the end.
func kernelConfig(t testing.TB) *Config {
	t.Helper()
	testutil.Require(t, "bpf", os.Geteuid() == 0, "loading BPF programs needs root")
	cfg := createDefaultConfig().(*Config)
	cfg.Interval = time.Hour
	return cfg
}

func inner(r component.Component) *syscallReceiver {
	return r.(*sharedcomponent.Component[*syscallReceiver]).Inner
}

func startLogs(t testing.TB, cfg *Config, next consumer.Logs) receiver.Logs {
	t.Helper()
	r, err := NewFactory().CreateLogs(t.Context(), receivertest.NewNopSettings(metadata.Type), cfg, next)
	require.NoError(t, err)
	require.NoError(t, r.Start(t.Context(), componenttest.NewNopHost()))
	t.Cleanup(func() { assert.NoError(t, r.Shutdown(context.Background())) })
	return r
}

// eachLog calls f for every log record of the given event name.
func eachLog(sink *consumertest.LogsSink, name string, f func(plog.ResourceLogs, plog.LogRecord)) {
	for _, logs := range sink.AllLogs() {
		for _, resource := range logs.ResourceLogs().All() {
			for _, scope := range resource.ScopeLogs().All() {
				for _, record := range scope.LogRecords().All() {
					if record.EventName() == name {
						f(resource, record)
					}
				}
			}
		}
	}
}

// countsOf returns the counts of a cgroup's native calls by name, and the lost calls of its records.
func countsOf(t testing.TB, sink *consumertest.LogsSink, g group) (byName map[string]syscalls.Count, lost uint64) {
	t.Helper()
	byName = map[string]syscalls.Count{}
	eachLog(sink, syscalls.EventNameCounts, func(res plog.ResourceLogs, lr plog.LogRecord) {
		c, err := syscalls.CountsFrom(res.Resource(), lr)
		require.NoError(t, err)
		assert.False(t, c.Start.After(c.End))
		if c.Identity.CgroupID != g.id {
			return
		}
		lost += c.LostCalls
		for _, n := range c.Calls {
			sum := byName[n.Call.Name()]
			sum.Calls += n.Calls
			sum.Errors, sum.Latency = n.Errors, n.Latency
			byName[n.Call.Name()] = sum
		}
	})
	return byName, lost
}

// eventsOf returns a cgroup's events of one call.
func eventsOf(t testing.TB, sink *consumertest.LogsSink, id uint64, name string) []syscalls.Event {
	t.Helper()
	var events []syscalls.Event
	eachLog(sink, syscalls.EventNameEvent, func(res plog.ResourceLogs, lr plog.LogRecord) {
		e, err := syscalls.EventFrom(res.Resource(), lr)
		require.NoError(t, err)
		if e.Identity.CgroupID == id && e.Call.Name() == name {
			events = append(events, e)
		}
	})
	return events
}
