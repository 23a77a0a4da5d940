package gpureceiver

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/metadata"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/nvml"
)

// Names of events, and attributes that they have beside the device's.
const (
	eventXID          = "gpu.xid"
	eventDoubleBitECC = "gpu.ecc.double_bit"
	eventRowRemap     = "gpu.rows.remap"

	attrXIDCode         = "gpu.xid.code"
	attrGPUInstance     = "gpu.mig.gi"
	attrComputeInstance = "gpu.mig.ci"
	// attrCount is how many events a record is of.
	attrCount = "gpu.event.count"
	// attrCgroups and attrContainers are who used the device at the last scrape: ids of cgroups, and namespace/pod/container.
	attrCgroups    = "gpu.affected.cgroups"
	attrContainers = "gpu.affected.containers"
)

// incident is what events are told apart by.
type incident struct {
	name   string
	device string
	code   uint64
	gi, ci uint32
}

// eventLog counts the errors of GPUs and makes log records of them. Of one incident the first event of an interval is told at once, the
// others together when it ends: a GPU may err thousands of times a second.
type eventLog struct {
	ignored []uint64
	// send hands records to the pipeline; nil where there are none to be made.
	send    func(plog.Logs)
	version string

	mu      sync.Mutex
	xids    map[incident]uint64
	pending map[incident]*repeated
	// devices are those of the last scrape, by UUID, and those that erred; current are those of this one. users are the containers that
	// had them.
	devices map[string]*nvml.Device
	current map[string]bool
	users   map[string][]container
}

// repeated are events of an incident after its first in an interval.
type repeated struct {
	count uint64
	last  time.Time
}

func newEventLog(cfg *EventsConfig, version string) *eventLog {
	return &eventLog{
		ignored: cfg.IgnoredXIDs, version: version, xids: map[incident]uint64{}, pending: map[incident]*repeated{},
		devices: map[string]*nvml.Device{}, current: map[string]bool{}, users: map[string][]container{},
	}
}

// add takes an event of a GPU. It is called by the goroutine that waits for them.
func (l *eventLog) add(e nvml.Event) {
	l.mu.Lock()
	i := incident{name: eventXID, device: l.instance(&e), code: e.Code, gi: e.GPUInstance, ci: e.ComputeInstance}
	if e.Type == nvml.DoubleBitECC {
		i.name = eventDoubleBitECC
	} else {
		l.xids[incident{device: i.device, code: i.code}]++
	}
	logs, ok := l.tell(i, e.Time)
	l.mu.Unlock()
	if ok {
		l.send(logs)
	}
}

// instance returns the UUID of what an event is of: the MIG instance if it names one, else the GPU.
func (l *eventLog) instance(e *nvml.Event) string {
	if e.GPUInstance == nvml.None {
		return e.UUID
	}
	for id, d := range l.devices {
		if d.Parent == e.UUID && d.GPUInstance == e.GPUInstance && (e.ComputeInstance == nvml.None || d.ComputeInstance == e.ComputeInstance) {
			return id
		}
	}
	return e.UUID
}

// tell returns the record of an incident's first event in an interval. The caller holds the lock.
func (l *eventLog) tell(i incident, at time.Time) (plog.Logs, bool) {
	if l.send == nil || i.name == eventXID && slices.Contains(l.ignored, i.code) {
		return plog.Logs{}, false
	}
	if p, ok := l.pending[i]; ok {
		p.count++
		p.last = at
		return plog.Logs{}, false
	}
	l.pending[i] = &repeated{}
	return l.logs(i, at, 1), true
}

// seen takes the devices of a scrape, and finds what changed in them.
func (l *eventLog) seen(devices []nvml.Device, at time.Time) {
	l.mu.Lock()
	var all []plog.Logs
	for n := range devices {
		d := &devices[n]
		if b := l.devices[d.UUID]; b != nil && b.Rows != nil && d.Rows != nil && *b.Rows != *d.Rows {
			if logs, ok := l.tell(incident{name: eventRowRemap, device: d.UUID, gi: nvml.None, ci: nvml.None}, at); ok {
				all = append(all, l.rows(logs, d.Rows))
			}
		}
		l.devices[d.UUID] = d
		l.current[d.UUID] = true
	}
	l.mu.Unlock()
	for _, logs := range all {
		l.send(logs)
	}
}

// rows completes the record of a remapping.
func (*eventLog) rows(logs plog.Logs, rows *nvml.Rows) plog.Logs {
	record := logs.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0)
	severity := plog.SeverityNumberWarn
	if rows.Failed {
		severity = plog.SeverityNumberFatal
	}
	record.SetSeverityNumber(severity)
	record.SetSeverityText(severity.String())
	a := record.Attributes()
	a.PutInt("gpu.rows.corrected", int64(rows.Corrected))
	a.PutInt("gpu.rows.uncorrected", int64(rows.Uncorrected))
	a.PutBool("gpu.rows.pending", rows.Pending)
	a.PutBool("gpu.rows.failed", rows.Failed)
	return logs
}

// interval ends one: it tells what was repeated, records the counts, and learns who uses the devices.
func (l *eventLog) interval(to *recorder) {
	l.mu.Lock()
	clear(l.users)
	for _, o := range to.observations {
		if (o.container != container{}) && o.device.ID != "" {
			for _, id := range []string{o.device.ID, cmp.Or(o.device.Parent, o.device.ID)} {
				if !slices.Contains(l.users[id], o.container) {
					l.users[id] = append(l.users[id], o.container)
				}
			}
		}
	}
	var all []plog.Logs
	for i, p := range l.pending {
		if p.count > 0 {
			all = append(all, l.logs(i, p.last, p.count))
		}
		delete(l.pending, i)
	}
	counted := map[string]bool{}
	for i, n := range l.xids {
		counted[i.device] = true
		to.add(observation{metric: gpu.MetricXIDErrors, part: strconv.FormatUint(i.code, 10), device: l.describe(i.device), value: float64(n)})
	}
	// MIG instances come and go.
	maps.DeleteFunc(l.devices, func(id string, _ *nvml.Device) bool { return !l.current[id] && !counted[id] })
	clear(l.current)
	l.mu.Unlock()
	for _, logs := range all {
		l.send(logs)
	}
}

func (l *eventLog) describe(id string) gpu.Device {
	if d := l.devices[id]; d != nil {
		return describe(d)
	}
	return gpu.Device{ID: id}
}

// severities of XID errors. What a program did wrong is not the node's trouble, and is somebody's.
var severities = map[nvml.Severity]plog.SeverityNumber{
	nvml.Notice: plog.SeverityNumberInfo, nvml.Program: plog.SeverityNumberWarn,
	nvml.Error: plog.SeverityNumberError, nvml.Hardware: plog.SeverityNumberFatal,
}

// logs makes a record of events. Where one container alone uses the device, it is that container's, so that pod_enrichment names it.
func (l *eventLog) logs(i incident, at time.Time, count uint64) plog.Logs {
	logs := plog.NewLogs()
	rl := logs.ResourceLogs().AppendEmpty()
	scope := rl.ScopeLogs().AppendEmpty()
	scope.Scope().SetName(metadata.ScopeName)
	scope.Scope().SetVersion(l.version)
	record := scope.LogRecords().AppendEmpty()
	record.SetTimestamp(pcommon.NewTimestampFromTime(at))
	record.SetObservedTimestamp(pcommon.NewTimestampFromTime(time.Now()))
	record.SetEventName(i.name)
	d := l.describe(i.device)
	a := record.Attributes()
	putDevice(a, &d)
	a.PutInt(attrCount, int64(count))
	if i.gi != nvml.None {
		a.PutInt(attrGPUInstance, int64(i.gi))
	}
	if i.ci != nvml.None {
		a.PutInt(attrComputeInstance, int64(i.ci))
	}
	severity, what := plog.SeverityNumberFatal, "double-bit error of memory"
	switch i.name {
	case eventXID:
		text, s := nvml.DescribeXID(i.code)
		severity, what = severities[s], fmt.Sprintf("XID %d: %s", i.code, text)
		a.PutInt(attrXIDCode, int64(i.code))
	case eventRowRemap:
		severity, what = plog.SeverityNumberWarn, "rows of memory were remapped, or wait for it"
	}
	record.SetSeverityNumber(severity)
	record.SetSeverityText(severity.String())
	record.Body().SetStr(fmt.Sprintf("GPU %d (%s): %s", d.Index, d.ID, what))
	l.putUsers(rl.Resource().Attributes(), a, l.users[i.device])
	return logs
}

func putDevice(a pcommon.Map, d *gpu.Device) {
	a.PutStr(gpu.AttrID, d.ID)
	a.PutStr(gpu.AttrType, gpu.TypeGPU)
	a.PutInt(gpu.AttrIndex, int64(d.Index))
	for name, value := range map[string]string{
		gpu.AttrParent: d.Parent, gpu.AttrModel: d.Model, gpu.AttrPCIAddress: d.PCIAddress, gpu.AttrMIGProfile: d.MIGProfile,
	} {
		if value != "" {
			a.PutStr(name, value)
		}
	}
}

func (*eventLog) putUsers(resource, a pcommon.Map, users []container) {
	var cgroups []uint64
	var names []string
	for _, c := range users {
		if c.cgroupID != 0 {
			cgroups = append(cgroups, c.cgroupID)
		}
		if c.pod != "" {
			names = append(names, c.namespace+"/"+c.pod+"/"+c.name)
		}
	}
	if len(cgroups) > 0 {
		s := a.PutEmptySlice(attrCgroups)
		for _, id := range cgroups {
			s.AppendEmpty().SetInt(int64(id))
		}
	}
	if len(names) > 0 {
		s := a.PutEmptySlice(attrContainers)
		for _, name := range names {
			s.AppendEmpty().SetStr(name)
		}
	}
	if len(cgroups) == 1 && len(names) <= 1 {
		resource.PutInt(flow.AttrCgroupID, int64(cgroups[0]))
	}
}

// sendEvents hands log records to the pipeline. What it refuses is lost, and counted.
func (r *gpuReceiver) sendEvents(logs plog.Logs) {
	n := logs.LogRecordCount()
	ctx := r.obs.StartLogsOp(context.Background())
	err := r.logs.ConsumeLogs(ctx, logs)
	r.obs.EndLogsOp(ctx, metadata.Type.String(), n, err)
	if err != nil {
		r.telemetry.GpuLostEvents.Add(ctx, int64(n))
		r.lostEvents.Add(uint64(n))
	}
}
