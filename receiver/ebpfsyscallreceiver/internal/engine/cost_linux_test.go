package engine

import (
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/syscalls"
)

// BenchmarkCost is what a call costs its caller: getppid in a loop, with nothing attached, with empty programs, and with the
// engine's. All are attached in turn in each round, and the results are medians of rounds, because the machine's speed drifts, of
// the thread's own time.
// The kernel's own measure (bpf_stats) of the programs is taken in further rounds: it is costly itself.
func BenchmarkCost(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("loading BPF programs needs root")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	engine := func(opts Options) *Engine {
		opts.RingBufferSize, opts.SelfEvents = 1<<19, true
		e, err := New(opts)
		require.NoError(b, err)
		require.NoError(b, e.LatencyError())
		b.Cleanup(func() { require.NoError(b, e.Close()) })
		require.NoError(b, e.Detach())
		return e
	}
	hot := func(syscalls.Call) Policy { return Policy{Sampling: 100} }
	counting, helpers := engine(Options{}), engine(Options{helpers: true})
	events, latency := engine(Options{Policy: hot}), engine(Options{Latency: true})
	go func() { _ = events.ReadEvents(func(*Event) {}) }()
	enter, exit := empty(b), empty(b)
	variants := []struct {
		name   string
		attach func() (detach func() error)
		own    []*ebpf.Program
	}{
		{"none", func() func() error { return func() error { return nil } }, nil},
		{"empty", attachEach(b, "sys_enter", enter), []*ebpf.Program{enter}},
		{"count", reattach(b, counting), []*ebpf.Program{counting.enter}},
		{"count-by-helpers", reattach(b, helpers), []*ebpf.Program{helpers.enter}},
		{"count-events", reattach(b, events), []*ebpf.Program{events.enter}},
		{"empty-both", attachEach(b, "sys_enter", enter, "sys_exit", exit), []*ebpf.Program{enter, exit}},
		{"latency", reattach(b, latency), []*ebpf.Program{latency.enter, latency.exit}},
	}
	const rounds, statsRounds = 15, 5
	calls := max(b.N/rounds, 1_000_000)
	costs, over, run := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	for range rounds {
		var none float64
		for _, v := range variants {
			detach := v.attach()
			start := threadTime(b)
			getppid(calls)
			cost := float64(threadTime(b)-start) / float64(calls)
			require.NoError(b, detach())
			if v.name == "none" {
				none = cost
			}
			costs[v.name] = append(costs[v.name], cost)
			over[v.name] = append(over[v.name], cost-none)
		}
	}
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	require.NoError(b, err)
	defer stats.Close()
	for range statsRounds {
		for _, v := range variants {
			detach := v.attach()
			var sum float64
			before := programStats(b, v.own)
			getppid(calls)
			for i, s := range programStats(b, v.own) {
				sum += float64(s.Runtime-before[i].Runtime) / float64(s.RunCount-before[i].RunCount)
			}
			require.NoError(b, detach())
			run[v.name] = append(run[v.name], sum)
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(costs["none"]), "none-ns/call")
	for _, v := range variants[1:] {
		b.ReportMetric(median(over[v.name]), "+"+v.name+"-ns/call")
		b.ReportMetric(median(run[v.name]), v.name+"-run-ns")
	}
}

func getppid(times int) {
	for range times {
		_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
	}
}

func median(n []float64) float64 {
	slices.Sort(n)
	return n[len(n)/2]
}

func empty(b *testing.B) *ebpf.Program {
	b.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.RawTracepoint, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	require.NoError(b, err)
	b.Cleanup(func() { p.Close() })
	return p
}

// attachEach takes names of tracepoints and programs in turn.
func attachEach(b *testing.B, pairs ...any) func() func() error {
	return func() func() error {
		var links []link.Link
		for i := 0; i < len(pairs); i += 2 {
			l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: pairs[i].(string), Program: pairs[i+1].(*ebpf.Program)})
			require.NoError(b, err)
			links = append(links, l)
		}
		return func() error {
			for _, l := range links {
				if err := l.Close(); err != nil {
					return err
				}
			}
			return nil
		}
	}
}

func reattach(b *testing.B, e *Engine) func() func() error {
	return func() func() error {
		require.NoError(b, e.attach())
		return e.Detach
	}
}

func programStats(b *testing.B, programs []*ebpf.Program) (all []*ebpf.ProgramStats) {
	b.Helper()
	for _, p := range programs {
		s, err := p.Stats()
		require.NoError(b, err)
		all = append(all, s)
	}
	return all
}
