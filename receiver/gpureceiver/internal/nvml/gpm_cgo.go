//go:build linux && cgo

package nvml

import (
	"math"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// gpmGap is the least time between two samples of GPM.
const gpmGap = 100 * time.Millisecond

// gpmMetrics are what is computed of two samples, in percent.
var gpmMetrics = []struct {
	id           nvml.GpmMetricId
	metric, part string
	// instance tells that it is told of MIG instances, and of GPUs without any by a function of its own.
	instance bool
}{
	{nvml.GPM_METRIC_GRAPHICS_UTIL, "hw.gpu.utilization", "general", true},
	{nvml.GPM_METRIC_SM_UTIL, "gpu.sm.activity", "", false},
	{nvml.GPM_METRIC_SM_OCCUPANCY, "gpu.sm.occupancy", "", false},
	{nvml.GPM_METRIC_ANY_TENSOR_UTIL, "gpu.pipe.activity", "tensor", false},
	{nvml.GPM_METRIC_FP64_UTIL, "gpu.pipe.activity", "fp64", false},
	{nvml.GPM_METRIC_FP32_UTIL, "gpu.pipe.activity", "fp32", false},
	{nvml.GPM_METRIC_FP16_UTIL, "gpu.pipe.activity", "fp16", false},
	{nvml.GPM_METRIC_INTEGER_UTIL, "gpu.pipe.activity", "integer", false},
	{nvml.GPM_METRIC_DRAM_BW_UTIL, "gpu.memory.bandwidth.utilization", "", false},
}

// gpmSamples are the last two of a device.
type gpmSamples struct {
	last, next nvml.GpmSample
	// at is when last was taken; zero: never.
	at time.Time
}

func (s *gpmSamples) free() {
	s.last.Free()
	s.next.Free()
}

// gpm adds the activity of a GPU (gi None) or of a GPU instance since the last time. GPUs before Hopper tell none. mig tells that the
// GPU has instances.
func (r *reader) gpm(g *gpu, h nvml.Device, gi uint32, mig bool) {
	if r.gone != nvml.SUCCESS || !r.l.can("nvmlGpmMetricsGet") || !r.l.can("nvmlGpmSampleGet") || !r.l.can("nvmlGpmSampleAlloc") ||
		!r.l.can("nvmlGpmQueryDeviceSupport") || gi != None && !r.l.can("nvmlGpmMigSampleGet") {
		return
	}
	if support, ret := h.GpmQueryDeviceSupport(); ret != nvml.SUCCESS || support.IsSupportedDevice == 0 {
		return
	}
	s := g.samples[gi]
	if s == nil {
		if s = r.newSamples(); s == nil {
			return
		}
		g.samples[gi] = s
	}
	if !s.at.IsZero() && r.now.Sub(s.at) < gpmGap {
		return
	}
	ret := nvml.ERROR_UNKNOWN
	if gi == None {
		ret = h.GpmSampleGet(s.next)
	} else {
		ret = h.GpmMigSampleGet(int(gi), s.next)
	}
	if ret != nvml.SUCCESS {
		return
	}
	if !s.at.IsZero() {
		r.compute(s, mig)
	}
	s.last, s.next, s.at = s.next, s.last, r.now
}

func (r *reader) newSamples() *gpmSamples {
	last, ret := r.l.GpmSampleAlloc()
	if ret != nvml.SUCCESS {
		return nil
	}
	next, ret := r.l.GpmSampleAlloc()
	if ret != nvml.SUCCESS {
		last.Free()
		return nil
	}
	return &gpmSamples{last: last, next: next}
}

func (r *reader) compute(s *gpmSamples, mig bool) {
	get := nvml.GpmMetricsGetType{Sample1: s.last, Sample2: s.next, NumMetrics: uint32(len(gpmMetrics))}
	for i, m := range gpmMetrics {
		get.Metrics[i].MetricId = uint32(m.id)
	}
	if r.l.GpmMetricsGet(&get) != nvml.SUCCESS {
		return
	}
	for i, m := range gpmMetrics {
		v := get.Metrics[i]
		if nvml.Return(v.NvmlReturn) != nvml.SUCCESS || math.IsNaN(v.Value) || m.instance && !mig {
			continue
		}
		r.add(m.metric, m.part, scale(v.Value, percent))
	}
}
