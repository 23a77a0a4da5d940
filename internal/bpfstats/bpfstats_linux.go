// Package bpfstats reads what the kernel measures of BPF programs.
package bpfstats

import (
	"cmp"
	"fmt"
	"io"
	"reflect"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/flow"
)

// Enable makes the kernel measure all BPF programs of the host, whosoever they are, until the result is closed: twice it reads the
// clock for each run, which is some tens of nanoseconds. It needs Linux 5.8 and CAP_SYS_ADMIN. The sysctl kernel.bpf_stats_enabled
// does the same for as long as it is set.
func Enable() (io.Closer, error) {
	closer, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil, fmt.Errorf("cannot have the kernel measure BPF programs, which needs Linux 5.8 and CAP_SYS_ADMIN; "+
			"set the sysctl kernel.bpf_stats_enabled=1 instead: %w", err)
	}
	return closer, nil
}

// Costs returns what the programs in structs of bpf2go have cost since they were loaded, by name. One that the kernel has never
// measured, or that cannot be asked about, is left out.
func Costs(objects ...any) []flow.ProbeCost {
	var costs []flow.ProbeCost
	for _, o := range objects {
		programs := reflect.Indirect(reflect.ValueOf(o))
		for i := range programs.NumField() {
			program, ok := programs.Field(i).Interface().(*ebpf.Program)
			if !ok || program == nil {
				continue
			}
			if stats, err := program.Stats(); err == nil && stats.RunCount > 0 {
				costs = append(costs, flow.ProbeCost{
					Program: programs.Type().Field(i).Tag.Get("ebpf"), Runs: stats.RunCount, RunTime: stats.Runtime,
				})
			}
		}
	}
	slices.SortFunc(costs, func(a, b flow.ProbeCost) int { return cmp.Compare(a.Program, b.Program) })
	return costs
}
