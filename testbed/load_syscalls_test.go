//go:build linux

package testbed

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
	"github.com/orb8/orb8/testbed/internal/usage"
	"github.com/orb8/orb8/testbed/internal/workload"
)

// BenchmarkLoadSyscalls: 200 cgroups whose processes make 300,000 calls a second together, of which one in 30 is not hot by
// default: each of those is an event.
func BenchmarkLoadSyscalls(b *testing.B) {
	const (
		cgroups = 200
		hot     = 29
		rounds  = 1000
		burst   = 5 // rounds
		pause   = burst * (hot + 1) * cgroups * time.Second / 300_000
	)
	numbers := append(slicesOf(hot, unix.SYS_GETPPID, unix.SYS_GETSID, unix.SYS_TIMES), unix.SYS_SCHED_GET_PRIORITY_MAX)
	c := collector.Start(b, collector.Options{Env: []string{"GOGC=50"}, Overlay: quietStore})
	parent := lab.NewCgroup(b)
	load := workload.Load{Calls: &workload.Calls{Numbers: numbers, Rounds: rounds, Burst: burst, Pause: pause}}
	var processes []*workload.Process
	for i := range cgroups {
		processes = append(processes, workload.Start(b, parent.Child(b, strconv.Itoa(i)), load))
	}
	idle := syscallsOf(b, c)

	cpu, from := usage.Of(b, c.PID()).CPU, time.Now()
	for _, p := range processes {
		p.Go()
	}
	for _, p := range processes {
		p.Done()
	}
	took := time.Since(from)
	want := map[string]uint64{"sched_get_priority_max": cgroups * rounds}
	for i := range hot {
		want[[]string{"getppid", "getsid", "times"}[i%3]] += cgroups * rounds
	}
	var got map[string]uint64
	collector.Await(b, "every call of every cgroup", func() bool {
		got = map[string]uint64{}
		of := map[string]int{}
		for name := range want {
			for _, row := range c.Syscalls("--syscall", name) {
				if strings.HasPrefix(row.Cgroup, parent.Path()+"/") && row.Calls == want[name]/cgroups {
					got[name] += row.Calls
					of[name]++
				}
			}
		}
		for name := range want {
			if of[name] != cgroups {
				return false
			}
		}
		return true
	}, func() any { return fmt.Sprintf("want %v, of cgroups that have them all %v", want, got) })
	cpu = usage.Of(b, c.PID()).CPU - cpu
	for _, p := range processes {
		p.End()
	}

	state := syscallsOf(b, c)
	require.Zero(b, state.Lost.Calls)
	calls := float64(cgroups * rounds * (hot + 1))
	b.ReportMetric(calls/took.Seconds(), "calls/s")
	b.ReportMetric(100*cpu.Seconds()/took.Seconds(), "cpu-%")
	b.ReportMetric(float64(state.Lost.Events-idle.Lost.Events), "lost-events")
	b.ReportMetric(float64(cgroups*rounds), "rare-calls")
	b.ReportMetric(float64(usage.Of(b, c.PID()).Peak)/1e6, "MB-peak")
	b.ReportMetric(0, "ns/op")
}

// slicesOf returns n numbers, those given in turn.
func slicesOf(n int, of ...uintptr) []uintptr {
	var all []uintptr
	for i := range n {
		all = append(all, of[i%len(of)])
	}
	return all
}

// syscallState is what `orb8 status` says of system calls.
type syscallState struct {
	Calls uint64
	Lost  struct{ Calls, Events uint64 }
}

func syscallsOf(t testing.TB, c *collector.Collector) syscallState {
	t.Helper()
	stdout, stderr, code := c.CLI("status", "-o", "json")
	require.Zero(t, code, stderr)
	var status struct {
		Nodes []struct{ Syscalls syscallState }
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &status), stdout)
	require.Len(t, status.Nodes, 1)
	return status.Nodes[0].Syscalls
}
