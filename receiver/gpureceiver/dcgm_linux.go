package gpureceiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/dcgm"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/nvml"
)

// dcgmPart is the metric and its part that a field of dcgm-exporter is.
type dcgmPart struct{ metric, part string }

// dcgmParts are those that need no more than their value.
var dcgmParts = map[dcgm.Field]dcgmPart{
	dcgm.UtilizationGPU:     {gpu.MetricUtilization, gpu.TaskGeneral},
	dcgm.UtilizationEncoder: {gpu.MetricUtilization, "encoder"},
	dcgm.UtilizationDecoder: {gpu.MetricUtilization, "decoder"},
	dcgm.SMActivity:         {gpu.MetricSMActivity, ""},
	dcgm.SMOccupancy:        {"gpu.sm.occupancy", ""},
	dcgm.PipeTensor:         {"gpu.pipe.activity", "tensor"},
	dcgm.PipeFP64:           {"gpu.pipe.activity", "fp64"},
	dcgm.PipeFP32:           {"gpu.pipe.activity", "fp32"},
	dcgm.PipeFP16:           {"gpu.pipe.activity", "fp16"},
	dcgm.DRAMActivity:       {"gpu.memory.bandwidth.utilization", ""},
	dcgm.FanSpeed:           {"hw.fan.speed_ratio", ""},
	dcgm.MemoryUsed:         {gpu.MetricMemoryUsage, ""},
	dcgm.MemoryTotal:        {gpu.MetricMemoryLimit, ""},
	dcgm.BAR1Used:           {"gpu.memory.bar1.usage", ""},
	dcgm.BAR1Total:          {"gpu.memory.bar1.limit", ""},
	dcgm.Energy:             {gpu.MetricEnergy, ""},
	dcgm.Power:              {gpu.MetricPower, ""},
	dcgm.PowerLimit:         {gpu.MetricPowerLimit, ""},
	dcgm.TemperatureGPU:     {gpu.MetricTemperature, gpu.SensorGPU},
	dcgm.TemperatureMemory:  {gpu.MetricTemperature, "memory"},
	dcgm.ClockSM:            {"gpu.clock.frequency", "sm"},
	dcgm.ClockMemory:        {"gpu.clock.frequency", "memory"},
	dcgm.ClockVideo:         {"gpu.clock.frequency", "video"},
	dcgm.ThrottlePower:      {"gpu.clock.throttle.time", "sw_power_cap"},
	dcgm.ThrottleThermal:    {"gpu.clock.throttle.time", "thermal"},
	dcgm.ThrottleSyncBoost:  {"gpu.clock.throttle.time", "sync_boost"},
	dcgm.ECCCorrected:       {"hw.errors", "ecc_corrected"},
	dcgm.ECCUncorrected:     {"hw.errors", "ecc_uncorrected"},
	dcgm.PCIeReplays:        {"hw.errors", "pcie_replay"},
	dcgm.RowsCorrected:      {"gpu.rows.remapped", "corrected"},
	dcgm.RowsUncorrected:    {"gpu.rows.remapped", "uncorrected"},
	dcgm.RowsPending:        {"gpu.rows.pending", ""},
	dcgm.RowsFailed:         {"gpu.rows.failed", ""},
}

// clockReasons are the bits of what holds clocks down, in DCGM as in NVML.
var clockReasons = []string{
	"idle", "applications_clocks", "sw_power_cap", "hw_slowdown", "sync_boost", "sw_thermal", "hw_thermal", "hw_power_brake", "display_clocks",
}

// dcgmSource takes from dcgm-exporter what no source before it has told.
type dcgmSource struct {
	r      *gpuReceiver
	client *dcgm.Client
	// host is where the exporter says that it is.
	host string
	// xids are how many errors the exporter has counted, and last the code of the last one.
	xids map[dcgmXID]float64
	last map[string]float64
}

type dcgmXID struct{ device, code string }

// maxXIDs bounds how many errors of one code are counted one by one after a scrape.
const maxXIDs = 10_000

func (r *gpuReceiver) newDCGMSource() source {
	return &dcgmSource{r: r, xids: map[dcgmXID]float64{}, last: map[string]float64{}}
}

func (s *dcgmSource) close() error {
	if s.client != nil {
		s.client.Close()
	}
	return nil
}

func (s *dcgmSource) scrape(ctx context.Context, to *recorder) error {
	if s.client == nil {
		cfg := &s.r.cfg.DCGM.ClientConfig
		client, err := cfg.ToClient(ctx, s.r.host.GetExtensions(), s.r.set.TelemetrySettings)
		if err != nil {
			return fmt.Errorf("cannot make a client of dcgm-exporter: %w", err)
		}
		s.client = dcgm.NewClient(client, cfg.Endpoint)
	}
	page, err := s.client.Scrape(ctx)
	switch {
	case errors.Is(err, dcgm.ErrAbsent):
		return absence{err}
	case err != nil:
		return err
	}
	if s.host != "" && page.Host != "" && s.host != page.Host {
		err := fmt.Errorf("dcgm.endpoint: %s answers for %s and for %s; name the exporter of this node alone", s.r.cfg.DCGM.Endpoint, s.host, page.Host)
		s.host = page.Host
		return err
	}
	s.host = cmp.Or(page.Host, s.host)
	if len(to.known) > 0 && len(page.Devices) > 0 && !slices.ContainsFunc(page.Devices, func(d dcgm.Device) bool { _, ok := to.known[d.UUID]; return ok }) {
		return fmt.Errorf("dcgm.endpoint: %s tells of none of this node's GPUs; name the exporter of this node", s.r.cfg.DCGM.Endpoint)
	}
	for i := range page.Devices {
		s.device(to, &page.Devices[i])
	}
	if len(page.Unclear) > 0 {
		return fmt.Errorf("%s: percentages in some versions of dcgm-exporter and ratios in others: name the unit in their help text",
			strings.Join(page.Unclear, ", "))
	}
	return nil
}

// device records a device. A source before may know it, and by a better name.
func (s *dcgmSource) device(to *recorder, d *dcgm.Device) {
	known, ok := to.find(d.UUID, d.GPUInstance)
	if !ok {
		known = gpu.Device{ID: d.UUID, Index: uint32(max(d.Index, 0)), Model: d.Model, PCIAddress: d.PCIAddress, MIGProfile: d.MIGProfile}
		if d.GPUInstance != dcgm.NoInstance {
			known.Parent = d.UUID
			known.ID = d.InstanceUUID
			if known.ID == "" {
				known.ID = fmt.Sprintf("MIG-%s/%d/0", d.UUID, d.GPUInstance)
				to.provisional[known.ID] = true
			}
		}
		to.know(known, d.GPUInstance, noNumber)
	}
	if !ok && d.GPUInstance == dcgm.NoInstance {
		s.events(d, &known, to.at)
	}
	values := map[dcgm.Field]float64{}
	health := -1.0
	for _, v := range d.Values {
		values[v.Field] = v.Value
		switch p, simple := dcgmParts[v.Field]; {
		case simple:
			s.add(to, observation{metric: p.metric, part: p.part, device: known, value: v.Value})
		case v.Field == dcgm.ClockReasons:
			for bit, reason := range clockReasons {
				s.add(to, observation{metric: "gpu.clock.throttle.active", part: reason, device: known, value: float64(uint64(v.Value) >> bit & 1)})
			}
		case v.Field == dcgm.Health:
			health = max(health, v.Value)
		}
	}
	if used, ok := values[dcgm.MemoryUsed]; ok && values[dcgm.MemoryTotal] > 0 {
		s.add(to, observation{metric: "hw.gpu.memory.utilization", device: known, value: used / values[dcgm.MemoryTotal]})
	}
	if health >= 0 {
		state := healthState(health)
		for _, other := range []string{"ok", "degraded", "failed"} {
			o := observation{metric: "hw.status", part: other, device: known}
			if other == state {
				o.value = 1
			}
			s.add(to, o)
		}
	}
	for _, owner := range d.Owners {
		to.labelled = append(to.labelled, labelled{known, owner})
	}
}

// add records what no source before has told, and holds it against what has been.
func (s *dcgmSource) add(to *recorder, o observation) {
	if before, told := to.add(o); told {
		to.compare(&o, before)
	}
}

// events tells the errors of a GPU that NVML does not tell of. Of the code of the last error a repetition is not seen: an exporter that counts
// them (DCGM_EXP_XID_ERRORS_TOTAL) is believed before.
func (s *dcgmSource) events(d *dcgm.Device, known *gpu.Device, at time.Time) {
	seen := nvml.Device{
		UUID: known.ID, Index: int(known.Index), Model: known.Model, PCI: known.PCIAddress, GPUInstance: nvml.None, ComputeInstance: nvml.None,
	}
	counted := slices.ContainsFunc(d.Values, func(v dcgm.Value) bool { return v.Field == dcgm.XIDErrors })
	rows := func() *nvml.Rows {
		if seen.Rows == nil {
			seen.Rows = &nvml.Rows{}
		}
		return seen.Rows
	}
	codes := map[uint64]int{}
	for _, v := range d.Values {
		switch v.Field {
		case dcgm.RowsCorrected:
			rows().Corrected = int(v.Value)
		case dcgm.RowsUncorrected:
			rows().Uncorrected = int(v.Value)
		case dcgm.RowsPending:
			rows().Pending = v.Value > 0
		case dcgm.RowsFailed:
			rows().Failed = v.Value > 0
		case dcgm.XIDErrors:
			if code, err := strconv.ParseUint(v.Code, 10, 32); err == nil {
				codes[code] = s.more(dcgmXID{known.ID, v.Code}, v.Value)
			}
		case dcgm.LastXID:
			before, again := s.last[known.ID]
			s.last[known.ID] = v.Value
			if again && v.Value > 0 && v.Value != before && !counted {
				codes[uint64(v.Value)] = 1
			}
		}
	}
	s.r.events.seen([]nvml.Device{seen}, at)
	for code, n := range codes {
		for range min(n, maxXIDs) {
			s.r.events.add(nvml.Event{
				Type: nvml.XID, Time: at, UUID: known.ID, PCI: known.PCIAddress, Code: code, GPUInstance: nvml.None, ComputeInstance: nvml.None,
			})
		}
	}
}

// more returns how much a counter of the exporter has grown since the last scrape. What it counted before the first is not ours.
func (s *dcgmSource) more(of dcgmXID, now float64) int {
	before, again := s.xids[of]
	s.xids[of] = now
	switch {
	case !again:
		return 0
	case now < before:
		return int(now) // the exporter began again
	}
	return int(now - before)
}

// healthState is what DCGM says: 0 healthy, 10 with a warning, 20 with a failure.
func healthState(health float64) string {
	switch {
	case health >= 20:
		return "failed"
	case health >= 10:
		return "degraded"
	}
	return "ok"
}

// shares records what dcgm-exporter measured for a container, unless a source before has measured the containers of the device: that knows them
// by their cgroups, and would count each of them twice.
func (l *labelled) shares(to *recorder) {
	for _, v := range l.owner.Shares {
		o := observation{device: l.device, container: l.container(), value: v.Value}
		switch v.Field {
		case dcgm.MemoryUsed:
			o.metric = gpu.MetricProcessMemory
		case dcgm.UtilizationGPU:
			o.metric, o.part = gpu.MetricProcessUtilization, gpu.EngineSM
		default:
			continue
		}
		if !slices.ContainsFunc(to.observations, func(before observation) bool {
			return before.metric == o.metric && before.device.ID == o.device.ID && before.container.cgroupID != 0
		}) {
			to.add(o)
		}
	}
}
