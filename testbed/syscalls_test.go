//go:build linux

package testbed

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
	"github.com/orb8/orb8/testbed/internal/workload"
)

// unusual are calls that the Go runtime never makes by itself.
var unusual = []uintptr{
	unix.SYS_GETPPID, unix.SYS_GETPGID, unix.SYS_GETSID, unix.SYS_GETPRIORITY, unix.SYS_SCHED_GET_PRIORITY_MAX, unix.SYS_TIMES,
}

func fastSyscalls() map[string]string {
	return map[string]string{"receivers.ebpf_syscall.interval": "200ms"}
}

// callsOf are the calls that a row says of a cgroup.
func callsOf(rows []collector.Syscall, cgroup string) map[string]uint64 {
	calls := map[string]uint64{}
	for _, row := range rows {
		if row.Cgroup == cgroup {
			calls[row.Syscall] += row.Calls
		}
	}
	return calls
}

// A million calls are a million, however much else the machine does.
func TestMillionCallsAreAMillion(t *testing.T) {
	const million, neighbours = 1_000_000, 64
	c := collector.Start(t, collector.Options{Set: fastSyscalls()})
	busyOnes := lab.NewCgroup(t)
	var busy []*workload.Process
	for i := range neighbours {
		p := workload.Start(t, busyOnes.Child(t, strconv.Itoa(i)), workload.Load{Calls: &workload.Calls{
			Numbers: unusual, Rounds: 20_000, Burst: 100, Pause: time.Millisecond,
		}})
		p.Go()
		busy = append(busy, p)
	}
	own := lab.NewCgroup(t)
	p := workload.Start(t, own, workload.Load{Calls: &workload.Calls{Numbers: []uintptr{unix.SYS_GETPPID}, Rounds: million}})
	p.Go()
	p.Done()
	p.End()
	for _, p := range busy {
		p.Done()
		p.End()
	}

	var rows []collector.Syscall
	collector.Await(t, "every call", func() bool {
		rows = c.Syscalls("--cgroup", own.Path(), "--syscall", "getppid")
		return callsOf(rows, own.Path())["getppid"] == million
	}, func() any { return rows })
	assert.Len(t, rows, 1, "a row a container and call")
	for _, row := range c.Syscalls("--syscall", "getppid") {
		if strings.HasPrefix(row.Cgroup, busyOnes.Path()+"/") {
			assert.EqualValues(t, 20_000, row.Calls, row.Cgroup)
		}
	}
}

// What strace counts of the same processes is the same, call by call.
func TestCallsAreThoseThatStraceCounts(t *testing.T) {
	strace, err := exec.LookPath("strace")
	testutil.Require(t, "strace", err == nil, "strace is not installed")
	c := collector.Start(t, collector.Options{Set: fastSyscalls()})
	own := lab.NewCgroup(t)
	log := filepath.Join(t.TempDir(), "strace")
	// strace stays outside of the cgroup. The shell enters it when strace already watches.
	script := fmt.Sprintf(`echo $$ > %s/cgroup.procs
		for i in 1 2 3 4 5; do ls -l /etc > /dev/null; cat /etc/passwd /nowhere; (sleep 0.01; true) & done
		wait; dd if=/dev/zero of=/dev/null bs=1k count=500; find /etc > /dev/null; exit 0`, own.Dir())
	out, err := exec.Command(strace, "-f", "-C", "-U", "name,calls", "-o", log, "sh", "-c", script).CombinedOutput()
	require.NoError(t, err, "%s", out)

	entered, summary := readStrace(t, log)
	want := map[string]uint64{}
	for name, calls := range summary {
		want[name] = calls - entered[name]
		if want[name] == 0 {
			delete(want, name)
		}
	}
	require.Greater(t, len(want), 20, "a mixed workload")
	var got map[string]uint64
	collector.Await(t, "what strace counted", func() bool {
		got = callsOf(c.Syscalls("--cgroup", own.Path()), own.Path())
		// strace counts what has returned, and the end of a process never does.
		delete(got, "exit_group")
		return assert.ObjectsAreEqual(want, got)
	}, func() any { return fmt.Sprintf("want %v\ngot  %v", want, got) })
}

var (
	straceCall    = regexp.MustCompile(`^\d+ +([a-z0-9_]+)\(`)
	straceSummary = regexp.MustCompile(`^([a-z0-9_]+) +(\d+)$`)
)

// readStrace returns how often each call was made until the shell was in the cgroup, and in all.
func readStrace(t *testing.T, path string) (before, all map[string]uint64) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	before, all = map[string]uint64{}, map[string]uint64{}
	entered := false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if call := straceCall.FindStringSubmatch(lines.Text()); call != nil && !entered {
			before[call[1]]++
			entered = call[1] == "write"
		}
		if sum := straceSummary.FindStringSubmatch(lines.Text()); sum != nil && sum[1] != "total" {
			all[sum[1]], err = strconv.ParseUint(sum[2], 10, 64)
			require.NoError(t, err)
		}
	}
	require.NoError(t, lines.Err())
	require.True(t, entered, "the shell never entered the cgroup")
	return before, all
}

// learnFast makes the learning of a workload end soon.
const learnFast = `
processors:
  syscall_anomaly:
    learning:
      window: 3s
      min_intervals: 5
`

// Each step out of a container is told; what a web server does under load is not, once it was learned.
func TestBreakoutIsToldAndWebServerIsNot(t *testing.T) {
	c := collector.Start(t, collector.Options{Set: fastSyscalls(), Overlay: learnFast})
	files := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(files, "page.html"), []byte(strings.Repeat("orb8 ", 2000)), 0o600))

	web := lab.NewCgroup(t)
	server := workload.Start(t, web, workload.Load{Web: &workload.Web{Dir: files, File: "page.html", For: 10 * time.Second}})
	server.Go()
	prison := lab.NewCgroup(t)
	prisoner := workload.Start(t, prison, workload.Load{Breakout: &workload.Breakout{Dir: t.TempDir()}})
	server.Done()
	prisoner.Go()
	prisoner.Done()

	want := []string{"mount", "ptrace", "setns", "unshare"}
	var told []collector.Anomaly
	collector.Await(t, "the whole breakout", func() bool {
		told = c.Anomalies("--cgroup", prison.Path())
		seen := map[string]bool{}
		for _, a := range told {
			seen[a.Syscall] = a.Severity != "info"
		}
		for _, name := range want {
			if !seen[name] {
				return false
			}
		}
		return true
	}, func() any { return told })
	assert.Empty(t, c.Anomalies("--cgroup", web.Path()), "a web server under load")
	prisoner.End()
	server.End()
}
