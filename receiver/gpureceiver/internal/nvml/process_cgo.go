//go:build linux && cgo

package nvml

import (
	"math"
	"slices"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// processes adds who uses a device: computing, drawing, or through an MPS server. Who does several is listed several times, with all of
// its memory each time.
func (r *reader) processes() {
	memory := map[uint32]uint64{}
	for _, list := range []struct {
		functions []string
		get       func() ([]nvml.ProcessInfo, nvml.Return)
	}{
		{[]string{"nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2", "nvmlDeviceGetComputeRunningProcesses"}, r.h.GetComputeRunningProcesses},
		{[]string{"nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v2", "nvmlDeviceGetGraphicsRunningProcesses"}, r.h.GetGraphicsRunningProcesses},
		{[]string{"nvmlDeviceGetMPSComputeRunningProcesses_v3", "nvmlDeviceGetMPSComputeRunningProcesses_v2", "nvmlDeviceGetMPSComputeRunningProcesses"}, r.h.GetMPSComputeRunningProcesses},
	} {
		if !r.l.can(list.functions...) {
			continue
		}
		infos, ret := list.get()
		if ret != nvml.SUCCESS {
			continue
		}
		for _, p := range infos {
			used := p.UsedGpuMemory
			if used == math.MaxUint64 {
				used = 0 // not told
			}
			memory[p.Pid] = max(memory[p.Pid], used)
		}
	}
	for pid, used := range memory {
		r.d.Processes = append(r.d.Processes, Process{PID: pid, Memory: used})
	}
	slices.SortFunc(r.d.Processes, func(a, b Process) int { return int(a.PID) - int(b.PID) })
}

// utilization adds how busy each process kept the device since the last time: the mean of the driver's samples, of which there are none
// for a process that did nothing. MIG instances tell none.
func (r *reader) utilization(g *gpu) {
	if !r.l.can("nvmlDeviceGetProcessUtilization") {
		return
	}
	samples, ret := r.h.GetProcessUtilization(g.seen)
	if ret != nvml.SUCCESS && ret != nvml.ERROR_NOT_FOUND {
		return
	}
	sums := map[uint32]*engines{}
	for _, s := range samples {
		// The driver's buffer has samples from before, and some with shares that cannot be.
		if s.TimeStamp == 0 || s.SmUtil > 100 || s.MemUtil > 100 || s.EncUtil > 100 || s.DecUtil > 100 {
			continue
		}
		g.seen = max(g.seen, s.TimeStamp)
		e := sums[s.Pid]
		if e == nil {
			e = &engines{}
			sums[s.Pid] = e
		}
		e.add(&s)
	}
	for i := range r.d.Processes {
		p := &r.d.Processes[i]
		e := sums[p.PID]
		if e == nil {
			e = &engines{}
		}
		p.Utilization = e.mean()
	}
}

// engines sums up samples.
type engines struct {
	n                 float64
	sm, mem, enc, dec float64
}

func (e *engines) add(s *nvml.ProcessUtilizationSample) {
	e.n++
	e.sm += float64(s.SmUtil)
	e.mem += float64(s.MemUtil)
	e.enc += float64(s.EncUtil)
	e.dec += float64(s.DecUtil)
}

func (e *engines) mean() map[string]float64 {
	n := max(e.n, 1) / percent
	return map[string]float64{"sm": e.sm / n, "mem": e.mem / n, "enc": e.enc / n, "dec": e.dec / n}
}
