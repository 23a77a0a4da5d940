package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/gpu"
)

// shortDevice is how many letters of a UUID tell devices of a node apart.
const shortDevice = 8

// gpuUse is a device, or what a container does with it.
type gpuUse struct {
	node   string
	device *orb8v1.GpuDevice
	// container is nil where it is the device.
	container *orb8v1.Container
	// holder is the pod that was given the device whole, where this is a container of another one.
	holder string
	// measured is by metric.
	measured map[string]*measured
}

// measured is what all series of a metric say of a line: a device has one for each container that had it alone.
type measured struct {
	// mean is of the samples of a level, total the growth of a counter.
	mean, total float64
	samples     uint32
	// last is the newest sample, of a series that began at lastAt.
	last   float64
	lastAt time.Time
}

// gpuUses are lines in the making.
type gpuUses struct {
	all   []*gpuUse
	index map[string]*gpuUse
	given given
}

// add takes series of containers, each to its line. What is measured for a whole device is a container's that alone has it.
func (u *gpuUses) add(series []*orb8v1.GpuSeries) {
	for _, s := range series {
		if s.GetDevice() == nil {
			continue
		}
		u.given.add(s)
		// Whoever has a device, it has a line.
		u.use(s, nil)
		if s.GetContainer() != nil {
			u.use(s, s.GetContainer()).take(s)
		}
	}
}

// addDevices takes series of whole devices that there are lines of, whoever had them.
func (u *gpuUses) addDevices(series []*orb8v1.GpuSeries) {
	known := map[string]bool{}
	for _, use := range u.all {
		known[use.device.GetId()] = true
	}
	for _, s := range series {
		u.given.add(s)
		if known[s.GetDevice().GetId()] && slices.Contains(deviceMetrics(), s.GetMetric()) {
			u.use(s, nil).take(s)
		}
	}
}

// devicesRequest asks for what is of the whole devices that there are lines of.
func (u *gpuUses) devicesRequest(of *orb8v1.QueryGpuRequest) *orb8v1.QueryGpuRequest {
	filter := &orb8v1.GpuFilter{Metrics: append(deviceMetrics(), gpu.MetricAllocation)}
	for _, use := range u.all {
		filter.Devices = append(filter.Devices, use.device.GetId())
	}
	slices.Sort(filter.Devices)
	if filter.Devices = slices.Compact(filter.Devices); len(filter.Devices) > maxGPUFilterDevices {
		filter.Devices = nil
	}
	req := proto.CloneOf(of)
	req.Allow, req.Deny = []*orb8v1.GpuFilter{filter}, nil
	return req
}

// use returns the line of a device, or of a container on it.
func (u *gpuUses) use(s *orb8v1.GpuSeries, container *orb8v1.Container) *gpuUse {
	key := s.GetNode() + "\x00" + s.GetDevice().GetId() + "\x00" + fullContainerName(container) + "\x00" + container.GetId()
	use, known := u.index[key]
	if !known {
		use = &gpuUse{node: s.GetNode(), device: s.GetDevice(), container: container, measured: map[string]*measured{}}
		u.all = append(u.all, use)
		if u.index == nil {
			u.index = map[string]*gpuUse{}
		}
		u.index[key] = use
	}
	return use
}

// asSuch are the attributes of series that are of a GPU as such, and not of a part of it.
func asSuch() map[string]string {
	return map[string]string{gpu.AttrTask: gpu.TaskGeneral, gpu.AttrEngine: gpu.EngineSM, gpu.AttrSensor: gpu.SensorGPU}
}

// isAsSuch tells whether a series is of a GPU as such, and not of a part of it.
func isAsSuch(s *orb8v1.GpuSeries) bool {
	for attribute, want := range asSuch() {
		if got, there := s.GetAttributes()[attribute]; there && got != want {
			return false
		}
	}
	return true
}

// take notes what a series says of the line.
func (u *gpuUse) take(s *orb8v1.GpuSeries) {
	if !isAsSuch(s) {
		return
	}
	m := u.measured[s.GetMetric()]
	if m == nil {
		m = &measured{}
		u.measured[s.GetMetric()] = m
	}
	for _, p := range s.GetPoints() {
		m.total += p.GetValue()
		if m.samples += p.GetSamples(); m.samples > 0 {
			m.mean += (p.GetValue() - m.mean) * float64(p.GetSamples()) / float64(m.samples)
		}
		if at := p.GetStart().AsTime(); !at.Before(m.lastAt) {
			m.last, m.lastAt = p.GetLast(), at
		}
	}
}

// first returns what the first of the metrics that was measured says, or nil.
func (u *gpuUse) first(value func(*measured) float64, metrics ...string) *float64 {
	for _, name := range metrics {
		if m := u.measured[name]; m != nil && m.samples > 0 {
			return new(value(m))
		}
	}
	return nil
}

func meanOf(m *measured) float64   { return m.mean }
func newestOf(m *measured) float64 { return m.last }
func totalOf(m *measured) float64  { return m.total }

// What was measured for a container's processes is nearer to it than what was for a device that it alone has.

func (u *gpuUse) utilization() *float64 {
	return u.first(meanOf, gpu.MetricProcessUtilization, gpu.MetricUtilization, gpu.MetricSMActivity)
}

func (u *gpuUse) memory() *float64 {
	return u.first(newestOf, gpu.MetricProcessMemory, gpu.MetricMemoryUsage)
}

func (u *gpuUse) memoryLimit() *float64 { return u.first(newestOf, gpu.MetricMemoryLimit) }
func (u *gpuUse) power() *float64       { return u.first(meanOf, gpu.MetricPower) }
func (u *gpuUse) powerLimit() *float64  { return u.first(newestOf, gpu.MetricPowerLimit) }
func (u *gpuUse) energy() *float64      { return u.first(totalOf, gpu.MetricEnergy) }
func (u *gpuUse) temperature() *float64 { return u.first(newestOf, gpu.MetricTemperature) }
func (u *gpuUse) xidErrors() *float64   { return u.first(totalOf, gpu.MetricXIDErrors) }

// rows returns the lines in their order: a GPU, its MIG instances, and below each the containers that have it.
func (u *gpuUses) rows() []row {
	slices.SortFunc(u.all, func(a, b *gpuUse) int {
		x, y := a.device, b.device
		return cmp.Or(
			cmp.Compare(a.node, b.node), cmp.Compare(x.GetIndex(), y.GetIndex()),
			cmp.Compare(cmp.Or(x.GetParent(), x.GetId()), cmp.Or(y.GetParent(), y.GetId())),
			cmp.Compare(one(x.GetParent() != ""), one(y.GetParent() != "")), cmp.Compare(x.GetId(), y.GetId()),
			cmp.Compare(one(a.container != nil), one(b.container != nil)),
			cmp.Compare(fullContainerName(a.container), fullContainerName(b.container)), cmp.Compare(a.container.GetId(), b.container.GetId()),
		)
	})
	rows := make([]row, len(u.all))
	for i, use := range u.all {
		use.holder = u.given.holder(use)
		rows[i] = row{gpu: use, json: newJSONGPU(use)}
	}
	return rows
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// fullContainerName is containerName with the namespace; empty of none.
func fullContainerName(c *orb8v1.Container) string {
	if c.GetNamespace() == "" {
		return containerName(c)
	}
	return c.GetNamespace() + "/" + containerName(c)
}

// name is that of the line, further in the more it is a part of something.
func (u *gpuUse) name() string {
	var indent string
	if u.device.GetParent() != "" {
		indent = "  "
	}
	if u.container != nil {
		return indent + "  " + fullContainerName(u.container)
	}
	if u.device.GetParent() == "" {
		return cmp.Or(u.device.GetModel(), u.device.GetId())
	}
	kind, id, _ := strings.Cut(u.device.GetId(), "-")
	return indent + strings.TrimSpace(kind+" "+u.device.GetMigProfile()) + " " + id[:min(shortDevice, len(id))]
}

// gpuColumns fit 80 columns unless wide, where all that is known is shown.
func gpuColumns(rows []row, wide bool) []column {
	var columns []column
	if wide || slices.ContainsFunc(rows, func(r row) bool { return r.gpu.node != rows[0].gpu.node }) {
		columns = append(columns, column{title: "NODE", text: func(r row) string { return r.gpu.node }, flexible: true})
	}
	number := func(title string, of func(*gpuUse) *float64, text func(float64) string) column {
		return column{title: title, right: true, text: func(r row) string {
			if v := of(r.gpu); v != nil {
				return text(*v)
			}
			return ""
		}}
	}
	columns = append(columns,
		column{title: "GPU", right: true, text: func(r row) string { return strconv.FormatUint(uint64(r.gpu.device.GetIndex()), 10) }},
		column{title: "DEVICE / POD", text: func(r row) string { return r.gpu.name() }, flexible: true, style: func(r row) string {
			if r.gpu.holder != "" {
				return styleRed
			}
			return ""
		}},
		number("UTIL", (*gpuUse).utilization, percent),
		number("MEMORY", (*gpuUse).memory, bytesText),
		number("OF", (*gpuUse).memoryLimit, bytesText),
		number("POWER", (*gpuUse).power, unitText("W")),
		number("TEMP", (*gpuUse).temperature, unitText("°C")),
	)
	if xid := number("XID", (*gpuUse).xidErrors, unitText("")); wide || slices.ContainsFunc(rows, func(r row) bool { return r.gpu.failed() }) {
		xid.style = func(r row) string {
			if r.gpu.failed() {
				return styleRed
			}
			return ""
		}
		columns = append(columns, xid)
	}
	if wide {
		columns = append(columns,
			number("POWER-LIMIT", (*gpuUse).powerLimit, unitText("W")),
			number("ENERGY", (*gpuUse).energy, unitText("J")),
			column{title: "PCI", text: func(r row) string { return r.gpu.device.GetPciAddress() }},
			column{title: "UUID", text: func(r row) string { return r.gpu.device.GetId() }},
			column{title: "CONTAINER-ID", text: func(r row) string { return r.gpu.container.GetId() }},
		)
	}
	return columns
}

// failed tells whether the driver reported errors.
func (u *gpuUse) failed() bool {
	n := u.xidErrors()
	return n != nil && *n > 0
}

func bytesText(v float64) string { return humanBytes(uint64(max(v, 0))) }

func unitText(unit string) func(float64) string {
	return func(v float64) string { return strings.TrimSpace(fmt.Sprintf("%.0f %s", v, unit)) }
}

// jsonGPU is a device, or what a container does with it, as JSON. What was not measured is left out.
type jsonGPU struct {
	Node       string `json:"node"`
	GPU        uint32 `json:"gpu"`
	UUID       string `json:"uuid"`
	Parent     string `json:"parent,omitempty"`
	Model      string `json:"model,omitempty"`
	PCIAddress string `json:"pciAddress,omitempty"`
	MIGProfile string `json:"migProfile,omitempty"`
	// Of a container.
	Namespace   string `json:"namespace,omitempty"`
	Pod         string `json:"pod,omitempty"`
	Container   string `json:"container,omitempty"`
	ContainerID string `json:"containerId,omitempty"`
	Cgroup      string `json:"cgroup,omitempty"`
	Unit        string `json:"unit,omitempty"`
	// From 0 to 1, bytes, watts, degrees Celsius, joules.
	Utilization *float64 `json:"utilization,omitempty"`
	Memory      *uint64  `json:"memory,omitempty"`
	MemoryLimit *uint64  `json:"memoryLimit,omitempty"`
	Power       *float64 `json:"power,omitempty"`
	PowerLimit  *float64 `json:"powerLimit,omitempty"`
	Temperature *float64 `json:"temperature,omitempty"`
	Energy      *float64 `json:"energy,omitempty"`
	XIDErrors   *uint64  `json:"xidErrors,omitempty"`
	// GivenTo is the pod, NAMESPACE/NAME, that was given the device whole, where this is a container of another one.
	GivenTo string `json:"givenTo,omitempty"`
}

func newJSONGPU(u *gpuUse) jsonGPU {
	d, c := u.device, u.container
	return jsonGPU{
		Node: u.node, GPU: d.GetIndex(), UUID: d.GetId(), Parent: d.GetParent(), Model: d.GetModel(), PCIAddress: d.GetPciAddress(),
		MIGProfile: d.GetMigProfile(), Namespace: c.GetNamespace(), Pod: c.GetPod(), Container: c.GetName(), ContainerID: c.GetId(),
		Cgroup: c.GetCgroup(), Unit: c.GetUnit(), GivenTo: u.holder, Utilization: u.utilization(), Memory: whole(u.memory()), MemoryLimit: whole(u.memoryLimit()),
		Power: u.power(), PowerLimit: u.powerLimit(), Temperature: u.temperature(), Energy: u.energy(), XIDErrors: whole(u.xidErrors()),
	}
}

// whole is a number that has no part of one.
func whole(v *float64) *uint64 {
	if v == nil {
		return nil
	}
	return new(uint64(max(*v, 0)))
}
