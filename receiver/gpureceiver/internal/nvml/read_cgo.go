//go:build linux && cgo

package nvml

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// gpu is what is kept of a GPU while the library is open.
type gpu struct {
	device Device // what identifies it
	// seen is how far its samples of processes were read, in the driver's microseconds. Each GPU has a clock of its own.
	seen uint64
	// samples are those of GPM, by GPU instance; None is of the GPU as such.
	samples map[uint32]*gpmSamples
}

func (g *gpu) free() {
	for _, s := range g.samples {
		s.free()
	}
}

// snapshot reads all GPUs and their MIG instances.
func (l *library) snapshot(now time.Time, since time.Duration, held bool) (*Snapshot, error) {
	count, ret := l.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("%w: cannot count the GPUs: %s", errLost, text(ret))
	}
	s := &Snapshot{}
	if l.can("nvmlSystemGetDriverVersion") {
		s.Driver, _ = l.SystemGetDriverVersion()
	}
	var errs []error
	for i := range count {
		devices, err := l.readGPU(i, now, since, held)
		s.Devices = append(s.Devices, devices...)
		if err != nil {
			errs = append(errs, fmt.Errorf("GPU %d: %w", i, err))
		}
	}
	return s, errors.Join(errs...)
}

// readGPU returns a GPU and its MIG instances.
func (l *library) readGPU(index int, now time.Time, since time.Duration, held bool) ([]Device, error) {
	h, ret := l.DeviceGetHandleByIndex(index)
	if ret != nvml.SUCCESS {
		return l.lost(index, ret)
	}
	g := l.gpus[index]
	if g == nil {
		g = &gpu{device: Device{Index: index, GPUInstance: None, ComputeInstance: None}, samples: map[uint32]*gpmSamples{}}
		g.seen = uint64(now.Add(-since).UnixMicro())
		if g.device.UUID, ret = h.GetUUID(); ret != nvml.SUCCESS {
			return l.lost(index, ret)
		}
		g.device.Model, _ = h.GetName()
		pci, _ := h.GetPciInfo()
		g.device.PCI = cString(pci.BusId[:])
		l.gpus[index], l.known[index] = g, g.device
	}
	d := g.device
	r := reader{l: l, h: h, d: &d, now: now}
	r.read()
	if r.gone != nvml.SUCCESS {
		return l.lost(index, r.gone)
	}
	var instances []Device
	mig := false
	if l.can("nvmlDeviceGetMigMode") {
		mode, _, ret := h.GetMigMode()
		mig = ret == nvml.SUCCESS && mode == nvml.DEVICE_MIG_ENABLE
	}
	if mig {
		// Processes, memory and activity are of instances.
		instances = l.readInstances(h, g, now, held)
	} else {
		r.processes()
		r.utilization(g)
	}
	if held {
		r.gpm(g, h, None, mig)
	}
	return append([]Device{d}, instances...), nil
}

// lost returns a GPU that the driver does not reach, if it was read before. One that this process may not see is none.
func (l *library) lost(index int, ret nvml.Return) ([]Device, error) {
	if gone(ret) {
		return nil, fmt.Errorf("%w: %s", errLost, text(ret))
	}
	d, ok := l.known[index]
	if !ok {
		return nil, errors.New(text(ret))
	}
	d.Lost = ret == nvml.ERROR_GPU_IS_LOST
	d.Values = []Value{{"hw.status", "ok", 0}, {"hw.status", "degraded", 0}, {"hw.status", "failed", 1}}
	return []Device{d}, errors.New(text(ret))
}

// readInstances returns the MIG instances of a GPU.
func (l *library) readInstances(h nvml.Device, g *gpu, now time.Time, held bool) (all []Device) {
	if !l.can("nvmlDeviceGetMaxMigDeviceCount") || !l.can("nvmlDeviceGetMigDeviceHandleByIndex") {
		return nil
	}
	most, _ := h.GetMaxMigDeviceCount()
	there := map[uint32]bool{None: true}
	for i := range most {
		instance, ret := h.GetMigDeviceHandleByIndex(i)
		if ret != nvml.SUCCESS {
			continue // there may be gaps
		}
		d := Device{Parent: g.device.UUID, Index: g.device.Index, Model: g.device.Model, PCI: g.device.PCI, GPUInstance: None, ComputeInstance: None}
		if d.UUID, ret = instance.GetUUID(); ret != nvml.SUCCESS {
			continue
		}
		if l.can("nvmlDeviceGetGpuInstanceId") && l.can("nvmlDeviceGetComputeInstanceId") {
			gi, _ := instance.GetGpuInstanceId()
			ci, _ := instance.GetComputeInstanceId()
			d.GPUInstance, d.ComputeInstance = uint32(gi), uint32(ci)
		}
		d.Profile = l.profile(instance)
		r := reader{l: l, h: instance, d: &d, now: now}
		r.memory()
		r.processes()
		if held && d.GPUInstance != None && !there[d.GPUInstance] {
			// Activity is of a GPU instance: it is told once, on the first of its compute instances.
			r.gpm(g, h, d.GPUInstance, true)
		}
		there[d.GPUInstance] = true
		all = append(all, d)
	}
	for id, s := range g.samples {
		if !there[id] {
			s.free()
			delete(g.samples, id)
		}
	}
	return all
}

// profile is what nvidia-smi calls the kind of an instance. Drivers have it at the end of its name; older ones do not, and there it is
// made of its sizes.
func (l *library) profile(h nvml.Device) string {
	name, _ := h.GetName()
	if _, profile, ok := strings.Cut(name, " MIG "); ok {
		return profile
	}
	if !l.can("nvmlDeviceGetAttributes_v2", "nvmlDeviceGetAttributes") {
		return ""
	}
	a, ret := h.GetAttributes()
	if ret != nvml.SUCCESS {
		return ""
	}
	profile := fmt.Sprintf("%dg.%dgb", a.GpuInstanceSliceCount, (a.MemorySizeMB+1023)/1024)
	if a.ComputeInstanceSliceCount != a.GpuInstanceSliceCount {
		profile = fmt.Sprintf("%dc.%s", a.ComputeInstanceSliceCount, profile)
	}
	return profile
}

// reader reads one device.
type reader struct {
	l   *library
	h   nvml.Device
	d   *Device
	now time.Time
	// gone is the first answer that the device, or the driver, is away.
	gone nvml.Return
}

// ask calls f if the library has the function, and tells whether it answered.
func (r *reader) ask(function string, f func() nvml.Return) bool {
	if r.gone != nvml.SUCCESS || !r.l.can(function) {
		return false
	}
	ret := f()
	if ret == nvml.ERROR_GPU_IS_LOST || gone(ret) {
		r.gone = ret
	}
	return ret == nvml.SUCCESS
}

func (r *reader) add(metric, part string, value float64) {
	r.d.Values = append(r.d.Values, Value{metric, part, value})
}

// number asks for one number, and adds it in another unit.
func number[T uint32 | uint64](r *reader, function string, get func() (T, nvml.Return), metric, part string, unit float64) bool {
	var v T
	ok := r.ask(function, func() (ret nvml.Return) { v, ret = get(); return ret })
	if ok {
		r.add(metric, part, scale(float64(v), unit))
	}
	return ok
}

const (
	percent = 0.01
	milli   = 0.001
	mega    = 1e6
	nano    = 1e-9
	kibi    = 1024
)

// scale turns a number of a unit into the metric's. Parts of one are divisions: 0.001 is no float, and 1000 is.
func scale(v, unit float64) float64 {
	if unit < 1 {
		return v / math.Round(1/unit)
	}
	return v * unit
}

func (r *reader) read() {
	var busy nvml.Utilization
	if r.ask("nvmlDeviceGetUtilizationRates", func() (ret nvml.Return) { busy, ret = r.h.GetUtilizationRates(); return ret }) {
		r.add("hw.gpu.utilization", "general", scale(float64(busy.Gpu), percent))
	}
	number(r, "nvmlDeviceGetEncoderUtilization", func() (uint32, nvml.Return) { v, _, ret := r.h.GetEncoderUtilization(); return v, ret },
		"hw.gpu.utilization", "encoder", percent)
	number(r, "nvmlDeviceGetDecoderUtilization", func() (uint32, nvml.Return) { v, _, ret := r.h.GetDecoderUtilization(); return v, ret },
		"hw.gpu.utilization", "decoder", percent)
	r.memory()
	var bar nvml.BAR1Memory
	if r.ask("nvmlDeviceGetBAR1MemoryInfo", func() (ret nvml.Return) { bar, ret = r.h.GetBAR1MemoryInfo(); return ret }) {
		r.add("gpu.memory.bar1.usage", "", float64(bar.Bar1Used))
		r.add("gpu.memory.bar1.limit", "", float64(bar.Bar1Total))
	}
	number(r, "nvmlDeviceGetTotalEnergyConsumption", r.h.GetTotalEnergyConsumption, "hw.energy", "", milli)
	number(r, "nvmlDeviceGetPowerUsage", r.h.GetPowerUsage, "hw.power", "", milli)
	number(r, "nvmlDeviceGetTemperature", func() (uint32, nvml.Return) { return r.h.GetTemperature(nvml.TEMPERATURE_GPU) },
		"hw.temperature", "gpu", 1)
	for _, clock := range []struct {
		kind nvml.ClockType
		name string
	}{{nvml.CLOCK_GRAPHICS, "graphics"}, {nvml.CLOCK_SM, "sm"}, {nvml.CLOCK_MEM, "memory"}, {nvml.CLOCK_VIDEO, "video"}} {
		number(r, "nvmlDeviceGetClockInfo", func() (uint32, nvml.Return) { return r.h.GetClockInfo(clock.kind) }, "gpu.clock.frequency", clock.name, mega)
	}
	r.throttling()
	r.fans()
	uncorrected := r.errors()
	r.fields()
	r.rows()
	r.status(uncorrected)
}

// memory leaves out what the driver reserves, where it tells that apart.
func (r *reader) memory() {
	var m nvml.Memory_v2
	ok := r.ask("nvmlDeviceGetMemoryInfo_v2", func() (ret nvml.Return) { m, ret = r.h.GetMemoryInfo_v2(); return ret })
	if !ok {
		var old nvml.Memory
		ok = r.ask("nvmlDeviceGetMemoryInfo", func() (ret nvml.Return) { old, ret = r.h.GetMemoryInfo(); return ret })
		m.Used, m.Total = old.Used, old.Total
	}
	if !ok || m.Total == 0 {
		return
	}
	r.add("hw.gpu.memory.usage", "", float64(m.Used))
	r.add("hw.gpu.memory.limit", "", float64(m.Total))
	r.add("hw.gpu.memory.utilization", "", float64(m.Used)/float64(m.Total))
}

// throttleReasons are the bits of what holds the clocks down.
var throttleReasons = []struct {
	bit  uint64
	name string
}{
	{nvml.ClocksEventReasonGpuIdle, "idle"}, {nvml.ClocksEventReasonApplicationsClocksSetting, "applications_clocks"},
	{nvml.ClocksEventReasonSwPowerCap, "sw_power_cap"}, {nvml.ClocksThrottleReasonHwSlowdown, "hw_slowdown"},
	{nvml.ClocksEventReasonSyncBoost, "sync_boost"}, {nvml.ClocksEventReasonSwThermalSlowdown, "sw_thermal"},
	{nvml.ClocksThrottleReasonHwThermalSlowdown, "hw_thermal"}, {nvml.ClocksThrottleReasonHwPowerBrakeSlowdown, "hw_power_brake"},
	{nvml.ClocksEventReasonDisplayClockSetting, "display_clocks"},
}

func (r *reader) throttling() {
	var bits uint64
	if !r.ask("nvmlDeviceGetCurrentClocksEventReasons", func() (ret nvml.Return) { bits, ret = r.h.GetCurrentClocksEventReasons(); return ret }) &&
		!r.ask("nvmlDeviceGetCurrentClocksThrottleReasons", func() (ret nvml.Return) { bits, ret = r.h.GetCurrentClocksThrottleReasons(); return ret }) {
		return
	}
	for _, reason := range throttleReasons {
		active := 0.0
		if bits&reason.bit != 0 {
			active = 1
		}
		r.add("gpu.clock.throttle.active", reason.name, active)
	}
}

// fans tells the fastest one. Boards for servers have none.
func (r *reader) fans() {
	count := 0
	r.ask("nvmlDeviceGetNumFans", func() (ret nvml.Return) { count, ret = r.h.GetNumFans(); return ret })
	fastest, known := uint32(0), false
	for i := range count {
		var speed uint32
		if r.ask("nvmlDeviceGetFanSpeed_v2", func() (ret nvml.Return) { speed, ret = r.h.GetFanSpeed_v2(i); return ret }) {
			fastest, known = max(fastest, speed), true
		}
	}
	if known {
		r.add("hw.fan.speed_ratio", "", scale(float64(fastest), percent))
	}
}

// errors counts those of memory since the driver was loaded, and tells whether some could not be corrected.
func (r *reader) errors() (uncorrected bool) {
	const function = "nvmlDeviceGetTotalEccErrors"
	var failed uint64
	number(r, function, func() (uint64, nvml.Return) {
		return r.h.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_CORRECTED, nvml.VOLATILE_ECC)
	}, "hw.errors", "ecc_corrected", 1)
	number(r, function, func() (v uint64, ret nvml.Return) {
		failed, ret = r.h.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC)
		return failed, ret
	}, "hw.errors", "ecc_uncorrected", 1)
	return failed > 0
}

// field is one of those that are read in one call.
type field struct {
	id, scope    uint32
	metric, part string
	unit         float64
	// wraps tells that the counter begins again when it is full.
	wraps bool
}

// fields of a GPU. Those of NVLink are summed over its links.
var fields = []field{
	{id: nvml.FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP, metric: "gpu.clock.throttle.time", part: "sw_power_cap", unit: nano},
	{id: nvml.FI_DEV_CLOCKS_EVENT_REASON_SYNC_BOOST, metric: "gpu.clock.throttle.time", part: "sync_boost", unit: nano},
	{id: nvml.FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN, metric: "gpu.clock.throttle.time", part: "sw_thermal", unit: nano},
	{id: nvml.FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN, metric: "gpu.clock.throttle.time", part: "hw_thermal", unit: nano},
	{id: nvml.FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN, metric: "gpu.clock.throttle.time", part: "hw_power_brake", unit: nano},
	{id: nvml.FI_DEV_POWER_CURRENT_LIMIT, metric: "gpu.power.limit", unit: milli},
	{id: nvml.FI_DEV_MEMORY_TEMP, metric: "hw.temperature", part: "memory", unit: 1},
	{id: nvml.FI_DEV_PCIE_COUNT_TX_BYTES, metric: "hw.gpu.io", part: "transmit", wraps: true},
	{id: nvml.FI_DEV_PCIE_COUNT_RX_BYTES, metric: "hw.gpu.io", part: "receive", wraps: true},
	{id: nvml.FI_DEV_NVLINK_THROUGHPUT_DATA_TX, scope: math.MaxUint32, metric: "gpu.nvlink.io", part: "transmit", unit: kibi},
	{id: nvml.FI_DEV_NVLINK_THROUGHPUT_DATA_RX, scope: math.MaxUint32, metric: "gpu.nvlink.io", part: "receive", unit: kibi},
	{id: nvml.FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL, metric: "hw.errors", part: "nvlink_crc", unit: 1},
	{id: nvml.FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL, metric: "hw.errors", part: "nvlink_replay", unit: 1},
	{id: nvml.FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL, metric: "hw.errors", part: "nvlink_recovery", unit: 1},
	{id: nvml.FI_DEV_PCIE_REPLAY_COUNTER, metric: "hw.errors", part: "pcie_replay", unit: 1},
}

func (r *reader) fields() {
	values := make([]nvml.FieldValue, len(fields))
	for i, f := range fields {
		values[i].FieldId, values[i].ScopeId = f.id, f.scope
	}
	limited := false
	if r.ask("nvmlDeviceGetFieldValues", func() nvml.Return { return r.h.GetFieldValues(values) }) {
		for i, f := range fields {
			v := &values[i]
			number, bits, ok := fieldValue(v)
			switch {
			case nvml.Return(v.NvmlReturn) != nvml.SUCCESS || !ok:
			case f.wraps:
				r.d.wrapping = append(r.d.wrapping, wrapping{f.metric, f.part, uint64(number), bits})
			default:
				r.add(f.metric, f.part, scale(number, f.unit))
				limited = limited || f.metric == "gpu.power.limit"
			}
		}
	}
	if !limited {
		number(r, "nvmlDeviceGetEnforcedPowerLimit", r.h.GetEnforcedPowerLimit, "gpu.power.limit", "", milli)
	}
}

// fieldValue reads the value of a field, and how wide it is.
func fieldValue(v *nvml.FieldValue) (value float64, bits int, ok bool) {
	switch nvml.ValueType(v.ValueType) {
	case nvml.VALUE_TYPE_DOUBLE:
		return math.Float64frombits(binary.NativeEndian.Uint64(v.Value[:])), 64, true
	case nvml.VALUE_TYPE_UNSIGNED_INT:
		return float64(binary.NativeEndian.Uint32(v.Value[:])), 32, true
	case nvml.VALUE_TYPE_SIGNED_INT:
		return float64(int32(binary.NativeEndian.Uint32(v.Value[:]))), 32, true
	case nvml.VALUE_TYPE_UNSIGNED_SHORT:
		return float64(binary.NativeEndian.Uint16(v.Value[:])), 16, true
	case nvml.VALUE_TYPE_UNSIGNED_LONG, nvml.VALUE_TYPE_UNSIGNED_LONG_LONG:
		return float64(binary.NativeEndian.Uint64(v.Value[:])), 64, true
	case nvml.VALUE_TYPE_SIGNED_LONG_LONG:
		return float64(int64(binary.NativeEndian.Uint64(v.Value[:]))), 64, true
	}
	return 0, 0, false
}

// rows are of Ampere and later, without MIG.
func (r *reader) rows() {
	var rows Rows
	if !r.ask("nvmlDeviceGetRemappedRows", func() (ret nvml.Return) {
		rows.Corrected, rows.Uncorrected, rows.Pending, rows.Failed, ret = r.h.GetRemappedRows()
		return ret
	}) {
		return
	}
	r.d.Rows = &rows
	r.add("gpu.rows.remapped", "corrected", float64(rows.Corrected))
	r.add("gpu.rows.remapped", "uncorrected", float64(rows.Uncorrected))
	r.add("gpu.rows.pending", "", one(rows.Pending))
	r.add("gpu.rows.failed", "", one(rows.Failed))
}

func (r *reader) status(uncorrected bool) {
	failed := r.d.Rows != nil && r.d.Rows.Failed
	degraded := !failed && (uncorrected || r.d.Rows != nil && r.d.Rows.Pending)
	r.add("hw.status", "ok", one(!failed && !degraded))
	r.add("hw.status", "degraded", one(degraded))
	r.add("hw.status", "failed", one(failed))
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// cString is the text before the first zero.
func cString[T int8 | uint8](chars []T) string {
	var b strings.Builder
	for _, c := range chars {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String()
}
