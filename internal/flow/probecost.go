package flow

import (
	"cmp"
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// ProbeCost is what a BPF program has cost since it was loaded, as the kernel measures it.
type ProbeCost struct {
	Program string
	Runs    uint64
	RunTime time.Duration
}

// Keys of a program in the map of AttrProbes.
const (
	probeRuns    = "runs"
	probeRunTime = "run_time"
)

// PutProbes writes costs as an attribute: a map from the program's name to its runs and its run time in nanoseconds.
func PutProbes(a pcommon.Map, costs []ProbeCost) {
	if len(costs) == 0 {
		return
	}
	all := a.PutEmptyMap(AttrProbes)
	for _, c := range costs {
		program := all.PutEmptyMap(c.Program)
		program.PutInt(probeRuns, int64(c.Runs))
		program.PutInt(probeRunTime, int64(c.RunTime))
	}
}

// Probes reads what PutProbes wrote, by name.
func Probes(a pcommon.Map) []ProbeCost {
	v, ok := a.Get(AttrProbes)
	if !ok || v.Type() != pcommon.ValueTypeMap {
		return nil
	}
	var costs []ProbeCost
	for name, program := range v.Map().All() {
		if program.Type() == pcommon.ValueTypeMap {
			costs = append(costs, ProbeCost{
				Program: Text(name), Runs: num(program.Map(), probeRuns), RunTime: time.Duration(num(program.Map(), probeRunTime)),
			})
		}
	}
	slices.SortFunc(costs, func(a, b ProbeCost) int { return cmp.Compare(a.Program, b.Program) })
	return costs
}
