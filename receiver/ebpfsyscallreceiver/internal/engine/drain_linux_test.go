package engine

import (
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	bpf "github.com/orb8/orb8/bpf/syscall"
	"github.com/orb8/orb8/internal/syscalls"
)

func TestCountsOfACgroupComeTogether(t *testing.T) {
	e := newEngine(t, Options{rows: 6})
	var groups []group
	for range 20 {
		groups = append(groups, newGroup(t))
	}
	groups[0].enter(t)
	for _, g := range groups {
		require.NoError(t, move(g.dir))
		for _, number := range []int{600, unused, -5, 7000} {
			call(number, 1)
		}
	}
	type position struct {
		cgroup uint64
		call   syscalls.Call
	}
	var order []position
	_, err := e.Drain(func(id uint64, n *syscalls.Count) { order = append(order, position{id, n.Call}) })
	require.NoError(t, err)
	require.Greater(t, len(order), 80)
	for i, p := range order[1:] {
		before := order[i]
		if p.cgroup == before.cgroup && p.call.ABI == before.call.ABI {
			assert.Greater(t, p.call.Number, before.call.Number)
			continue
		}
		assert.True(t, p.cgroup > before.cgroup || p.cgroup == before.cgroup && p.call.ABI > before.call.ABI, "%v after %v", p, before)
	}
}

// Rows and slots are free again in each interval: nothing has to go the slow way, however many cgroups come by.
func TestEachIntervalHasAllRows(t *testing.T) {
	const intervals, cgroups = 12, 64
	e := newEngine(t, Options{rows: 4 * cgroups})
	home := newGroup(t)
	home.enter(t)
	for range intervals {
		var groups []group
		for range cgroups {
			g := newGroup(t)
			groups = append(groups, g)
			require.NoError(t, move(g.dir))
			call(unused, 1)
		}
		require.NoError(t, move(home.dir))
		slow := map[uint64]bool{}
		for _, table := range []*ebpf.Map{e.maps.Overflow0, e.maps.Overflow1} {
			var k bpf.SyscallCallKey
			var n uint64
			for it := table.Iterate(); it.Next(&k, &n); {
				slow[k.Key>>3] = true
			}
		}
		c := drained(t, e)
		for _, g := range groups {
			assert.False(t, slow[g.id], "no row or slot was free")
			assert.EqualValues(t, 1, c.of(g, unused).Calls)
			require.NoError(t, os.Remove(g.dir))
		}
	}
}

// BenchmarkDrain is what an interval costs user space: nearly nothing when nothing happens, and with 200 cgroups that make 40
// different calls each. The time is mostly that of the grace period, in which nobody works.
func BenchmarkDrain(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("loading BPF programs needs root")
	}
	for name, groups := range map[string]int{"idle": 0, "200 cgroups": 200} {
		b.Run(name, func(b *testing.B) {
			e := newEngine(b, Options{})
			var busy []group
			for range groups {
				busy = append(busy, newGroup(b))
			}
			newGroup(b).enter(b)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var cpu time.Duration
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				b.StopTimer()
				for _, g := range busy {
					require.NoError(b, move(g.dir))
					for number := 380; number < 420; number++ {
						call(number, 1)
					}
				}
				b.StartTimer()
				before := threadTime(b)
				_, err := e.Drain(func(uint64, *syscalls.Count) {})
				require.NoError(b, err)
				cpu += threadTime(b) - before
			}
			b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
}

func threadTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_THREAD, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
