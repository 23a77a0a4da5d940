package engine

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	bpf "github.com/orb8/orb8/bpf/syscall"
	"github.com/orb8/orb8/internal/ebpfmap"
	"github.com/orb8/orb8/internal/syscalls"
)

func TestAMillionCallsAmongSixtyFourCgroups(t *testing.T) {
	const million, others, each = 1_000_000, 64, 20_000
	e := newEngine(t, Options{})
	one := newGroup(t)
	var busy []group
	var running []*exec.Cmd
	for range others {
		g := newGroup(t)
		busy = append(busy, g)
		running = append(running, g.start(t, fmt.Sprintf("%d:%d,%d:%d", unix.SYS_GETPPID, each, unused, each)))
	}
	one.run(t, fmt.Sprintf("%d:%d", unix.SYS_GETPPID, million))
	for _, cmd := range running {
		require.NoError(t, cmd.Wait())
	}
	c := drained(t, e)
	assert.EqualValues(t, million, c.of(one, unix.SYS_GETPPID).Calls)
	assert.Nil(t, c.of(one, unix.SYS_GETPPID).Latency)
	for _, g := range busy {
		assert.EqualValues(t, each, c.of(g, unix.SYS_GETPPID).Calls)
		assert.EqualValues(t, each, c.of(g, unused).Calls)
		assert.EqualValues(t, 1, c.of(g, unix.SYS_EXECVE).Calls)
	}
	again := drained(t, e)
	assert.Zero(t, again.of(one, unix.SYS_GETPPID), "counted once")
}

// However little room there is for rows, and on kernels old and new, counts are the same.
func TestCountsWithoutRoomForRows(t *testing.T) {
	const cgroups, calls = 40, 300
	for name, opts := range map[string]Options{
		"rows for all": {}, "four rows": {rows: 4}, "one row": {rows: 1}, "by helpers": {helpers: true},
		"four rows by helpers": {rows: 4, helpers: true}, "latency": {Latency: true}, "latency and four rows": {Latency: true, rows: 4},
		"latency and three cells": {Latency: true, cells: 3},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, opts)
			var groups []group
			for range cgroups {
				groups = append(groups, newGroup(t))
			}
			numbers := []int{unix.SYS_GETPPID, unused, 507, 508, 511, 512, 5000, 1<<30 - 1, -1, -1 << 31}
			groups[0].enter(t)
			for round := range 3 {
				for _, g := range groups {
					require.NoError(t, move(g.dir))
					for i, number := range numbers {
						call(number, calls+i)
					}
				}
				c := drained(t, e)
				for _, g := range groups {
					for i, number := range numbers {
						n := c.of(g, number)
						assert.EqualValues(t, calls+i, n.Calls, "round %d, number %d", round, number)
						if !opts.Latency {
							continue
						}
						assert.EqualValues(t, calls+i, n.Latency.Calls(), "round %d, number %d", round, number)
						if number != unix.SYS_GETPPID {
							assert.Equal(t, map[string]uint64{"ENOSYS": uint64(calls + i)}, n.Errors)
						}
					}
				}
			}
		})
	}
}

// The kernel says how often the program ran: what was not counted was lost, and is counted as that.
func TestCallsThatAreLostAreCounted(t *testing.T) {
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		newEngine(t, Options{}) // which says what is missing
		require.NoError(t, err)
	}
	defer stats.Close()
	for name, opts := range map[string]Options{"full": {rows: 1, overflow: 16}, "not full": {}} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, opts)
			g := newGroup(t)
			g.enter(t)
			for number := 400; number < 500; number++ {
				call(number, 10)
			}
			require.NoError(t, e.Detach())
			require.NoError(t, e.grace.Wait())
			var counted uint64
			loss, err := e.Drain(func(_ uint64, n *syscalls.Count) { counted += n.Calls })
			require.NoError(t, err)
			ran, err := e.enter.Stats()
			require.NoError(t, err)
			assert.Equal(t, ran.RunCount, counted+loss.Calls)
			assert.Equal(t, opts.overflow != 0, loss.Calls > 0)
		})
	}
}

func TestNoCallIsLostWhileDraining(t *testing.T) {
	const processes, calls = 4, 300_000
	for name, opts := range map[string]Options{"rows": {}, "no rows": {rows: 1}, "latency": {Latency: true}} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, opts)
			g := newGroup(t)
			var running []*exec.Cmd
			for i := range processes {
				running = append(running, g.start(t, fmt.Sprintf("cpu:%d,%d:%d", i%runtime.NumCPU(), unused, calls)))
			}
			var ended atomic.Bool
			errs := make(chan error, 1)
			go func() {
				var err error
				for _, cmd := range running {
					if e := cmd.Wait(); e != nil {
						err = e
					}
				}
				ended.Store(true)
				errs <- err
			}()
			c, drains := counts{}, 0
			for last := false; !last; drains++ {
				last = ended.Load()
				require.Zero(t, c.drain(t, e))
			}
			require.NoError(t, <-errs)
			assert.EqualValues(t, processes*calls, c.of(g, unused).Calls)
			if opts.Latency {
				assert.EqualValues(t, processes*calls, c.of(g, unused).Latency.Calls())
				assert.EqualValues(t, processes*calls, c.of(g, unused).Errors["ENOSYS"])
			}
			assert.Greater(t, drains, 10)
		})
	}
}

func TestACgroupThatIsGone(t *testing.T) {
	e := newEngine(t, Options{})
	g := newGroup(t)
	g.run(t, fmt.Sprintf("%d:%d", unused, 7))
	require.Eventually(t, func() bool { return os.Remove(g.dir) == nil }, patience, tick)
	assert.EqualValues(t, 7, drained(t, e).of(g, unused).Calls)
}

// A counter of a row has 32 bits.
func TestACounterThatOverflows(t *testing.T) {
	e := newEngine(t, Options{})
	g := newGroup(t)
	g.enter(t)
	onCPU(t, 0)
	call(unused, 1)
	const full, more = 1<<32 - 2, 10
	found := 0
	require.NoError(t, ebpfmap.Window(e.maps.Rows, 0, e.layout.rows, func(rows []bpf.SyscallRow) {
		for i := range rows {
			if rows[i].Key>>3 == g.id && rows[i].Cpu == 0 {
				rows[i].Calls[unused] = full
				found++
			}
		}
	}))
	require.Equal(t, 1, found)
	call(unused, more)
	assert.EqualValues(t, full+more, drained(t, e).of(g, unused).Calls)
}

func TestNothingIsLeftBehind(t *testing.T) {
	e := newEngine(t, Options{Latency: true, Policy: func(syscalls.Call) Policy { return Policy{Sampling: 1} }})
	var ids []ebpf.ProgramID
	for _, p := range []*ebpf.Program{e.enter, e.exit} {
		info, err := p.Info()
		require.NoError(t, err)
		id, _ := info.ID()
		ids = append(ids, id)
	}
	require.NoError(t, e.Close())
	for _, id := range ids {
		// The kernel lets go of a program after a grace period.
		assert.Eventually(t, func() bool {
			p, err := ebpf.NewProgramFromID(id)
			if err == nil {
				p.Close()
			}
			return err != nil
		}, patience, tick)
	}
}

// onCPU binds the rest of the test to a CPU.
func onCPU(t testing.TB, cpu int) {
	t.Helper()
	runtime.LockOSThread()
	var all, one unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &all))
	one.Set(cpu)
	require.NoError(t, unix.SchedSetaffinity(0, &one))
	t.Cleanup(func() {
		assert.NoError(t, unix.SchedSetaffinity(0, &all))
		runtime.UnlockOSThread()
	})
}
