//go:build cgo

package gpureceiver

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/orb8/orb8/internal/fakenvml"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/metadata"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/nvml"
)

var update = flag.Bool("update", false, "write the golden files anew")

// processTable are cgroups by process.
type processTable map[uint32]uint64

func (p processTable) Find(pid uint32) (uint64, string, error) {
	id, ok := p[pid]
	if !ok {
		return 0, "", fmt.Errorf("process %d: %w", pid, fs.ErrNotExist)
	}
	if id == hostCgroup {
		return id, "/system.slice/display-manager.service", nil
	}
	return id, "/kubepods/pod" + podUID(id) + "/" + strings.Repeat("4", 64), nil
}

// hostCgroup is in no pod.
const hostCgroup = 99

// podUID is that of the pod of a cgroup in a processTable.
func podUID(id uint64) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", id) }

// nvmlReceiver is a receiver of the fake library, of which nothing else is a source.
type nvmlReceiver struct {
	*gpuReceiver
	t    *testing.T
	gpus *fakenvml.GPUs
	host *statusHost
	logs *consumertest.LogsSink
}

// newNVMLReceiver returns one whose processes are in cgroups as the table says.
func newNVMLReceiver(t *testing.T, library, gpus string, cgroups processTable) *nvmlReceiver {
	t.Helper()
	cfg := createDefaultConfig().(*Config)
	cfg.DCGM.Mode, cfg.CUDA.Mode, cfg.PodResources.Mode = ModeOff, ModeOff, ModeOff
	cfg.NVML = NVMLConfig{Mode: ModeAuto, LibraryPaths: []string{library}, Hold: HoldAlways}
	cfg.Events.IgnoredXIDs = []uint64{43}
	r, err := newGPUReceiver(receivertest.NewNopSettings(metadata.Type), cfg)
	require.NoError(t, err)
	n := &nvmlReceiver{
		gpuReceiver: r, t: t, gpus: fakenvml.New(t, gpus), host: &statusHost{Host: componenttest.NewNopHost()}, logs: &consumertest.LogsSink{},
	}
	r.sources[0].source.(*nvmlSource).open = func() (processes, error) { return cgroups, nil }
	r.scraped = true
	r.logs = n.logs
	require.NoError(t, r.Start(t.Context(), n.host))
	r.tellStatus = nil // these tests count the events
	t.Cleanup(func() { require.NoError(t, r.Shutdown(context.Background())) })
	return n
}

// twice scrapes twice, as it would be 10 s apart: some values are of the time between, in which more lines are added to the GPUs.
func (n *nvmlReceiver) twice(more string) (md pmetric.Metrics) {
	n.t.Helper()
	now := time.Now()
	for _, at := range []time.Time{now, now.Add(10 * time.Second)} {
		to := newRecorder(at)
		require.NoError(n.t, n.sources[0].scrape(n.t.Context(), to))
		md = to.emit(n.mb, n.started)
		n.gpus.Append(more)
	}
	return md
}

// table writes what is emitted, a data point a line.
func table(md pmetric.Metrics) string {
	var lines []string
	pairs := func(m pcommon.Map) string {
		raw := m.AsRaw()
		var all []string
		for _, k := range slices.Sorted(maps.Keys(raw)) {
			all = append(all, fmt.Sprintf("%s=%v", k, raw[k]))
		}
		return strings.Join(all, ",")
	}
	for _, rm := range md.ResourceMetrics().All() {
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			var points pmetric.NumberDataPointSlice
			kind := "gauge"
			switch {
			case m.Type() == pmetric.MetricTypeGauge:
				points = m.Gauge().DataPoints()
			case m.Sum().IsMonotonic():
				points, kind = m.Sum().DataPoints(), "counter"
			default:
				points, kind = m.Sum().DataPoints(), "up-down counter"
			}
			for _, p := range points.All() {
				value := fmt.Sprint(p.DoubleValue())
				if p.ValueType() == pmetric.NumberDataPointValueTypeInt {
					value = fmt.Sprint(p.IntValue())
				}
				started := ""
				if p.StartTimestamp() != 0 {
					started = ", started"
				}
				lines = append(lines, fmt.Sprintf("{%s} %s{%s} %s %s (%s%s)\n", pairs(rm.Resource().Attributes()), m.Name(), pairs(p.Attributes()),
					value, m.Unit(), kind, started))
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func (n *nvmlReceiver) golden(name string, md pmetric.Metrics) {
	n.t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		require.NoError(n.t, os.WriteFile(path, []byte(table(md)), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(n.t, err)
	assert.Equal(n.t, string(want), table(md))
}

// The subtests share a library, as a process can load only one, and come one after the other: go-nvml keeps in variables of its own which
// functions the library has.
func TestNVML(t *testing.T) {
	fakenvml.RequireCompiler(t)
	library, err := fakenvml.Build(t.TempDir())
	require.NoError(t, err)
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, library string)
	}{
		{"golden metrics", testGoldenMetrics},
		{"two pods share a card", testTimeSlicing},
		{"seven MIG instances, seven pods", testMIG},
		{"instances as kubelets call them", testNamesOfInstances},
		{"errors are events and counters", testEvents},
		{"a storm of errors", testStorm},
		{"rows that are remapped", testRows},
		{"events that the pipeline refuses", testRefusedEvents},
		{"processes of nobody", testProcessesOfNobody},
		{"processes of others", testIntruders},
		{"processes of containers that are not to be told", testProcessesThatAreNotTold},
		{"a driver that goes and comes", testDriverGoes},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, library) })
	}
}

const processLine = "process c %d %d 4294967295 4294967295\n"

func testGoldenMetrics(t *testing.T, library string) {
	for _, name := range []string{"a100", "h100", "rtx"} {
		t.Run(name, func(t *testing.T) {
			gpus := fakenvml.Scenario(name) + fmt.Sprintf(processLine, 100, 3<<30) + "sample 100 9000000000000000 50 25 0 10\n"
			n := newNVMLReceiver(t, library, gpus, processTable{100: 42})
			n.golden("nvml-"+name, n.twice("sample 100 9000000000000001 60 25 0 10\n"))
		})
	}
}

func testTimeSlicing(t *testing.T, library string) {
	gpus := fakenvml.Scenario("a100") + fmt.Sprintf(processLine+processLine+processLine, 100, 1<<30, 101, 2<<30, 200, 4<<30) +
		"sample 100 9000000000000000 40 10 0 0\nsample 101 9000000000000000 30 0 0 0\nsample 200 9000000000000000 20 5 0 0\n"
	n := newNVMLReceiver(t, library, gpus, processTable{100: 1, 101: 1, 200: 2})
	md, err := n.scrape(t.Context())
	require.NoError(t, err)
	power, memory, busy := 0, map[uint64]float64{}, map[uint64]float64{}
	for _, s := range samples(t, md) {
		switch {
		case s.Metric == gpu.MetricPower:
			power++
			assert.True(t, s.Own())
		case s.Metric == gpu.MetricProcessMemory:
			memory[s.Identity.CgroupID] += s.Value
		case s.Metric == gpu.MetricProcessUtilization && strings.Contains(s.Attributes, "sm"):
			busy[s.Identity.CgroupID] += s.Value
		default:
			assert.True(t, s.Own() || s.Metric == gpu.MetricProcessUtilization, s.Metric)
		}
	}
	assert.Equal(t, 1, power, "the card has one")
	assert.Equal(t, map[uint64]float64{1: 3 << 30, 2: 4 << 30}, memory)
	assert.InDeltaMapValues(t, map[uint64]float64{1: 0.7, 2: 0.2}, busy, 1e-9)
}

func testMIG(t *testing.T, library string) {
	var gpus strings.Builder
	cgroups := processTable{}
	instance := 0
	for line := range strings.Lines(fakenvml.Scenario("h100-mig")) {
		gpus.WriteString(line)
		if strings.HasPrefix(line, "gi ") {
			fmt.Fprintf(&gpus, "process c %d %d %d 0\n", 500+instance, (instance+1)<<30, 7+instance)
			cgroups[uint32(500+instance)] = uint64(900 + instance)
			instance++
		}
	}
	n := newNVMLReceiver(t, library, gpus.String(), cgroups)
	md, err := n.scrape(t.Context())
	require.NoError(t, err)
	memory := map[string]float64{}
	for _, s := range samples(t, md) {
		if s.Metric == gpu.MetricProcessMemory {
			memory[fmt.Sprint(s.Device.ID, " ", s.Device.MIGProfile, " of ", s.Device.Parent, " ", s.Identity.CgroupID)] = s.Value
		}
	}
	want := map[string]float64{}
	for i := range 7 {
		id := "c1000000-0000-0000-0000-00000000000"
		want[fmt.Sprintf("MIG-%s%d 1g.10gb of GPU-%s0 %d", id, i, id, 900+i)] = float64((i + 1) << 30)
	}
	assert.Equal(t, want, memory)
	n.golden("nvml-h100-mig", n.twice(""))

	n.events.add(nvml.Event{Type: nvml.XID, UUID: "GPU-c1000000-0000-0000-0000-000000000000", Code: 31, GPUInstance: 9, ComputeInstance: 0})
	require.Equal(t, 1, n.logs.LogRecordCount())
	record := n.logs.AllLogs()[0].ResourceLogs().At(0)
	assert.Equal(t, map[string]any{"orb8.cgroup.id": int64(902)}, record.Resource().Attributes().AsRaw(), "an error of an instance is of who has it")
	id, _ := record.ScopeLogs().At(0).LogRecords().At(0).Attributes().Get(gpu.AttrID)
	assert.Equal(t, "MIG-c1000000-0000-0000-0000-000000000002", id.AsString())
}

// await returns the log records once there are so many.
func (n *nvmlReceiver) await(records int) []plog.LogRecord {
	n.t.Helper()
	require.Eventually(n.t, func() bool { return n.logs.LogRecordCount() >= records }, 10*time.Second, 5*time.Millisecond)
	var all []plog.LogRecord
	for _, logs := range n.logs.AllLogs() {
		for _, rl := range logs.ResourceLogs().All() {
			for _, r := range rl.ScopeLogs().At(0).LogRecords().All() {
				all = append(all, r)
			}
		}
	}
	return all
}

// xids returns the counts by code, and whether they have a start.
func xids(t *testing.T, md pmetric.Metrics) map[string]float64 {
	counts := map[string]float64{}
	for _, s := range samples(t, md) {
		if s.Metric == gpu.MetricXIDErrors {
			counts[s.Attributes] = s.Value
			assert.False(t, s.Start.IsZero(), "it is known when we began")
		}
	}
	return counts
}

func testEvents(t *testing.T, library string) {
	n := newNVMLReceiver(t, library, fakenvml.Node(2, 1)+fmt.Sprintf(processLine, 7777, 1), processTable{1000: 42, 1001: 43, 7777: 44})
	_, err := n.scrape(t.Context())
	require.NoError(t, err)
	n.gpus.Append("event 0 8 79 4294967295 4294967295\nevent 1 8 43 4294967295 4294967295\nevent 1 2 0 4294967295 4294967295\n")
	all := n.await(2)
	require.Len(t, all, 2, "of 43 the configuration wants no event")
	lost := all[0]
	assert.Equal(t, "gpu.xid", lost.EventName())
	assert.Equal(t, plog.SeverityNumberFatal, lost.SeverityNumber())
	assert.Equal(t, "GPU 0 (GPU-b1000000-0000-0000-0000-000000000000): XID 79: the GPU has fallen off the bus", lost.Body().Str())
	assert.Equal(t, map[string]any{
		"gpu.affected.cgroups": []any{int64(42)}, "gpu.event.count": int64(1), "gpu.index": int64(0), "gpu.pci.bdf": "00000000:1B:00.0",
		"gpu.xid.code": int64(79), "hw.id": "GPU-b1000000-0000-0000-0000-000000000000", "hw.model": "NVIDIA H100 80GB HBM3", "hw.type": "gpu",
	}, lost.Attributes().AsRaw())
	assert.Equal(t, "gpu.ecc.double_bit", all[1].EventName())
	affected, _ := all[1].Attributes().Get("gpu.affected.cgroups")
	assert.Equal(t, []any{int64(43), int64(44)}, affected.Slice().AsRaw())
	assert.Zero(t, n.logs.AllLogs()[1].ResourceLogs().At(0).Resource().Attributes().Len(), "it is of both")
	md, err := n.scrape(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string]float64{"gpu.xid.code=79": 1, "gpu.xid.code=43": 1}, xids(t, md))
}

func testStorm(t *testing.T, library string) {
	n := newNVMLReceiver(t, library, fakenvml.Node(1, 1), processTable{1000: 42})
	_, err := n.scrape(t.Context())
	require.NoError(t, err)
	n.gpus.Append(strings.Repeat("event 0 8 94 4294967295 4294967295\n", 1000) + "event 0 8 31 4294967295 4294967295\n")
	all := n.await(2)
	require.Len(t, all, 2, "the first of each is told at once")
	md, err := n.scrape(t.Context())
	require.NoError(t, err)
	all = n.await(3)
	require.Len(t, all, 3)
	count, _ := all[2].Attributes().Get("gpu.event.count")
	assert.EqualValues(t, 999, count.Int(), "the others together")
	assert.Equal(t, map[string]float64{"gpu.xid.code=94": 1000, "gpu.xid.code=31": 1}, xids(t, md), "and counted exactly")
	_, err = n.scrape(t.Context())
	require.NoError(t, err)
	assert.Len(t, n.await(3), 3, "nothing is told twice")
}

func testRows(t *testing.T, library string) {
	gpus := fakenvml.Scenario("a100")
	n := newNVMLReceiver(t, library, gpus, nil)
	for _, rows := range []string{"rows 1 0 0 0", "rows 1 1 1 0", "rows 1 1 1 0", "rows 1 1 0 1"} {
		n.gpus.Set(strings.Replace(gpus, "rows 1 0 0 0", rows, 1))
		_, err := n.scrape(t.Context())
		require.NoError(t, err)
	}
	all := n.await(2)
	require.Len(t, all, 2)
	assert.Equal(t, "gpu.rows.remap", all[0].EventName())
	assert.Equal(t, plog.SeverityNumberWarn, all[0].SeverityNumber())
	assert.Equal(t, plog.SeverityNumberFatal, all[1].SeverityNumber(), "it failed")
	rows, _ := all[0].Attributes().Get("gpu.rows.uncorrected")
	assert.EqualValues(t, 1, rows.Int())
}

func testRefusedEvents(t *testing.T, library string) {
	tel := componenttest.NewTelemetry()
	n := newNVMLReceiver(t, library, fakenvml.Node(1, 1), processTable{1000: 42})
	telemetry, err := metadata.NewTelemetryBuilder(tel.NewTelemetrySettings())
	require.NoError(t, err)
	n.telemetry = telemetry
	n.gpuReceiver.logs = consumertest.NewErr(consumererror.NewPermanent(errors.New("full")))
	n.events.add(nvml.Event{Type: nvml.XID, UUID: "GPU-b1000000-0000-0000-0000-000000000000", Code: 79, GPUInstance: nvml.None, ComputeInstance: nvml.None})
	m, err := tel.GetMetric("otelcol_gpu.lost.events")
	require.NoError(t, err)
	assert.Contains(t, fmt.Sprint(m.Data), "1")
	require.NoError(t, tel.Shutdown(context.Background()))
}

func testProcessesOfNobody(t *testing.T, library string) {
	gpus := fakenvml.Scenario("a100") + fmt.Sprintf(processLine+processLine, 100, 1<<30, 200, 2<<30)
	n := newNVMLReceiver(t, library, gpus, processTable{200: 42})
	md, err := n.scrape(t.Context())
	require.NoError(t, err, "one that has ended since is nobody's")
	of := 0
	for _, s := range samples(t, md) {
		if s.Metric == gpu.MetricProcessMemory {
			of++
			assert.EqualValues(t, 42, s.Identity.CgroupID)
		}
	}
	assert.Equal(t, 1, of)
}

func testProcessesThatAreNotTold(t *testing.T, library string) {
	gpus := fakenvml.Scenario("a100") + fmt.Sprintf(processLine+processLine, 100, 1<<30, 200, 2<<30)
	n := newNVMLReceiver(t, library, gpus, nil)
	n.sources[0].source.(*nvmlSource).open = func() (processes, error) { return nil, errors.New("it needs hostPID: true") }
	md, err := n.scrape(t.Context())
	assert.EqualError(t, err, "nvml: 2 processes of GPU 0 cannot be told apart by container: it needs hostPID: true")
	assert.NotEmpty(t, samples(t, md), "the rest is there")
	require.Len(t, n.host.events, 1)
	assert.Equal(t, componentstatus.StatusRecoverableError, n.host.events[0].Status())
}

func testDriverGoes(t *testing.T, library string) {
	n := newNVMLReceiver(t, library, "init 9\n", nil)
	md, err := n.scrape(t.Context())
	require.NoError(t, err)
	assert.Zero(t, md.DataPointCount())
	require.Len(t, n.host.events, 1)
	assert.Equal(t, componentstatus.StatusOK, n.host.events[0].Status())
	why, _ := n.host.events[0].Attributes().Get(attrAbsent)
	assert.Equal(t, "nvml: NVML is not there: "+library+" is there, and NVIDIA's driver is not loaded (modprobe nvidia)", why.AsString())
}

// oneself looks up this process whichever is asked for, in 8 containers.
type oneself struct{ processes }

func (o oneself) Find(pid uint32) (uint64, string, error) {
	_, path, err := o.processes.Find(uint32(os.Getpid()))
	return uint64(1 + pid%8), path, err
}

// A scrape of 8 GPUs with 64 processes: all calls, each process's cgroup, and the metrics of it.
func BenchmarkScrape(b *testing.B) {
	fakenvml.RequireCompiler(b)
	library, err := fakenvml.Build(b.TempDir())
	require.NoError(b, err)
	fakenvml.New(b, fakenvml.Node(8, 8))
	cfg := createDefaultConfig().(*Config)
	cfg.DCGM.Mode, cfg.CUDA.Mode, cfg.PodResources.Mode = ModeOff, ModeOff, ModeOff
	cfg.NVML = NVMLConfig{Mode: ModeOn, LibraryPaths: []string{library}, Hold: HoldAlways}
	r, err := newGPUReceiver(receivertest.NewNopSettings(metadata.Type), cfg)
	require.NoError(b, err)
	real, err := openProcesses()
	require.NoError(b, err)
	r.sources[0].source.(*nvmlSource).open = func() (processes, error) { return oneself{real}, nil }
	r.scraped = true
	require.NoError(b, r.Start(b.Context(), componenttest.NewNopHost()))
	points := 0
	for b.Loop() {
		md, err := r.scrape(b.Context())
		require.NoError(b, err)
		points = md.DataPointCount()
	}
	b.ReportMetric(float64(points), "points")
	require.NoError(b, r.Shutdown(context.Background()))
}
