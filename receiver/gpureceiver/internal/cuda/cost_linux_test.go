package cuda

import (
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/receiver/gpureceiver/internal/cuda/cudatest"
)

// BenchmarkCost is what a call of libcuda costs its caller more than without probes: with empty programs at the same places, with the
// engine's, and at instructions that are single-stepped. All are attached in turn in each round, and the results are medians of rounds,
// because the machine's speed drifts, of the calling thread's own time.
func BenchmarkCost(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("loading BPF programs needs root")
	}
	g, program := cudatest.NewGroup(b), cudatest.Program(b)
	e := newEngine(b, Options{quiet: true}) // for its programs: nothing is mapped yet
	single := newEngine(b, Options{quiet: true, single: true})
	empty := newEngine(b, Options{quiet: true})
	for _, p := range []**ebpf.Program{&empty.programs.Call, &empty.programs.WaitBegin, &empty.programs.WaitEnd} {
		require.NoError(b, (*p).Close())
		*p = emptyProbe(b)
	}
	type variant struct {
		name, function, begin string
		by                    *Engine
		atEntry               bool // whatever is there
	}
	const launch, wait = "cuLaunchKernel", "cuStreamSynchronize"
	variants := []variant{
		{name: "empty", function: launch, begin: cudatest.Pushes, by: empty},
		{name: "count", function: launch, begin: cudatest.Pushes, by: e},
		{name: "count-single", function: launch, begin: cudatest.Pushes, by: single},
		{name: "count-endbr", function: launch, begin: cudatest.Endbr, by: e},
		{name: "empty-stepped", function: launch, begin: cudatest.Endbr, by: empty, atEntry: true},
		{name: "count-stepped", function: launch, begin: cudatest.Endbr, by: e, atEntry: true},
		{name: "empty-wait", function: wait, begin: cudatest.Pushes, by: empty},
		{name: "wait", function: wait, begin: cudatest.Pushes, by: e},
	}
	callers, files := map[string]*cudatest.Caller{}, map[string]*file{}
	for _, begin := range []string{cudatest.Pushes, cudatest.Endbr} {
		library := cudatest.Library(b, cudatest.Driver, begin)
		callers[begin] = g.Start(b, program, library)
		handle, err := os.Open(library)
		require.NoError(b, err)
		defer handle.Close()
		files[begin] = &file{name: cudatest.Driver, library: driver, handle: handle}
		require.NoError(b, files[begin].read())
	}
	const rounds = 11
	calls := max(b.N/rounds, 50_000)
	over := map[string][]float64{}
	cost := func(v *variant) float64 {
		_, cpu := callers[v.begin].Measure(b, v.function, calls, 1)
		return float64(cpu) / float64(calls)
	}
	for range rounds {
		for i := range variants {
			v := &variants[i]
			none := cost(v)
			f := files[v.begin]
			at := slices.IndexFunc(f.probes, func(p probe) bool { return p.name == v.function })
			p := f.probes[at]
			if v.atEntry {
				p.at -= uint64(len(endbr64))
			}
			links, _, err := v.by.attach(f, []probe{p}, 0, false)
			require.NoError(b, err)
			over[v.name] = append(over[v.name], cost(v)-none)
			require.NoError(b, closeLinks(links))
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, v := range variants {
		n := over[v.name]
		slices.Sort(n)
		b.ReportMetric(n[len(n)/2], "+"+v.name+"-ns/call")
	}
}

func emptyProbe(b *testing.B) *ebpf.Program {
	b.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceUprobeMulti, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	require.NoError(b, err)
	return p
}

// BenchmarkScan is a look at all mappings of all processes of the host.
func BenchmarkScan(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("loading BPF programs needs root")
	}
	g, program, library := cudatest.NewGroup(b), cudatest.Program(b), cudatest.Library(b, cudatest.Driver, cudatest.Pushes)
	for range 8 {
		g.Start(b, program, library)
	}
	e := newEngine(b, Options{})
	for b.Loop() {
		list, err := e.mappings()
		require.NoError(b, err)
		require.GreaterOrEqual(b, len(list), 8)
	}
}
