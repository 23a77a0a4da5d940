package syscallanomalyprocessor

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/processor/processortest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/processor/syscallanomalyprocessor/internal/metadata"
)

// testInterval is that of the counts in tests.
const testInterval = 5 * time.Second

// harness is a detector with a clock of its own.
type harness struct {
	t    testing.TB
	d    *detector
	tel  *componenttest.Telemetry
	logs *observer.ObservedLogs
	time time.Time
}

func testConfig() *Config { return createDefaultConfig().(*Config) }

func newHarness(t *testing.T, cfg *Config) *harness {
	t.Helper()
	require.NoError(t, cfg.Validate())
	core, logs := observer.New(zap.InfoLevel)
	h := &harness{t: t, tel: componenttest.NewTelemetry(), logs: logs, time: time.Unix(1_800_000_000, 0).UTC()}
	set := processortest.NewNopSettings(metadata.Type)
	set.TelemetrySettings = h.tel.NewTelemetrySettings()
	set.Logger = zap.New(core)
	var err error
	h.d, err = newDetector(set, cfg)
	require.NoError(t, err)
	h.d.now = func() time.Time { return h.time }
	t.Cleanup(func() { require.NoError(t, h.tel.Shutdown(context.Background())) })
	return h
}

// newLogs makes a batch of one resource.
func newLogs(attrs map[string]any) (plog.Logs, plog.LogRecordSlice) {
	ld := plog.NewLogs()
	rl := ld.ResourceLogs().AppendEmpty()
	if err := rl.Resource().Attributes().FromRaw(attrs); err != nil {
		panic(err)
	}
	return ld, rl.ScopeLogs().AppendEmpty().LogRecords()
}

// cart is the container of a Deployment's pod; of each pod another.
func cart(pod string) map[string]any {
	return map[string]any{
		flow.AttrNodeName: "node-1", flow.AttrCgroupID: int64(len(pod)) + 1000, flow.AttrContainerID: "c-" + pod, flow.AttrPodUID: "u-" + pod,
		flow.AttrNamespace: "shop", "k8s.deployment.name": "cart", flow.AttrContainer: "app", flow.AttrPod: pod,
	}
}

func unit(name string) map[string]any {
	return map[string]any{flow.AttrNodeName: "node-1", flow.AttrCgroupID: int64(7), flow.AttrUnit: name}
}

// consume gives the detector a batch and returns the anomalies that it appended.
func (h *harness) consume(ld plog.Logs) []syscalls.Anomaly {
	h.t.Helper()
	_, err := h.d.logs(h.t.Context(), ld)
	require.NoError(h.t, err)
	var found []syscalls.Anomaly
	for _, rl := range ld.ResourceLogs().All() {
		for _, sl := range rl.ScopeLogs().All() {
			for _, lr := range sl.LogRecords().All() {
				if lr.EventName() == syscalls.EventNameAnomaly {
					require.Equal(h.t, metadata.ScopeName, sl.Scope().Name())
					n, err := syscalls.AnomalyFrom(rl.Resource(), lr)
					require.NoError(h.t, err)
					found = append(found, n)
				}
			}
		}
	}
	return found
}

// counts makes the interval that ends now.
func (h *harness) counts(resource map[string]any, calls map[string]uint64) []syscalls.Anomaly {
	h.t.Helper()
	ld, records := newLogs(resource)
	h.countsOf(calls).PutTo(records.AppendEmpty(), syscalls.X86_64)
	return h.consume(ld)
}

func (h *harness) countsOf(calls map[string]uint64) *syscalls.Counts {
	c := &syscalls.Counts{Start: h.time.Add(-testInterval), End: h.time}
	for name, n := range calls {
		c.Calls = append(c.Calls, syscalls.Count{Call: callOf(h.t, name), Calls: n})
	}
	return c
}

// event is a call made now, as PROCESS NAME ARGUMENT=VALUE ...
func (h *harness) event(resource map[string]any, text string) []syscalls.Anomaly {
	h.t.Helper()
	ld, records := newLogs(resource)
	h.eventOf(text).PutTo(records.AppendEmpty())
	return h.consume(ld)
}

func (h *harness) eventOf(text string) *syscalls.Event {
	words := strings.Split(text, " ")
	e := &syscalls.Event{Time: h.time, Call: callOf(h.t, words[1]), TID: 12, Sampling: 1}
	e.Identity.Process, e.Identity.PID = words[0], 11
	for _, word := range words[2:] {
		name, value, _ := strings.Cut(word, "=")
		e.Arguments = append(e.Arguments, syscalls.Argument{Name: name, Value: value})
	}
	return e
}

func callOf(t testing.TB, name string) syscalls.Call {
	abi := syscalls.X86_64
	if prefix, rest, foreign := strings.Cut(name, "/"); foreign {
		var err error
		abi, err = syscalls.ParseABI(prefix)
		require.NoError(t, err)
		name = rest
	}
	c, err := syscalls.ParseCall(abi, name)
	require.NoError(t, err)
	return c
}

// learn brings the workload through its learning window with the same calls all the time.
func (h *harness) learn(resource map[string]any, calls map[string]uint64) {
	h.t.Helper()
	for range h.d.cfg.Learning.MinIntervals {
		require.Empty(h.t, h.counts(resource, calls))
		h.time = h.time.Add(testInterval)
	}
	h.time = h.time.Add(h.d.cfg.Learning.Window)
	require.Empty(h.t, h.counts(resource, calls))
	h.time = h.time.Add(testInterval)
}

func rulesOf(found []syscalls.Anomaly) []string {
	var rules []string
	for _, n := range found {
		rules = append(rules, n.Rule)
	}
	slices.Sort(rules)
	return rules
}

// metric returns the value of a metric of the processor with those attributes, as reason, usual, rule, mount.
func (h *harness) metric(name string, attrs ...string) int64 {
	h.t.Helper()
	m, err := h.tel.GetMetric("otelcol_processor_syscall_anomaly_" + name)
	if err != nil {
		return 0
	}
	var points []metricdata.DataPoint[int64]
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		points = data.DataPoints
	case metricdata.Gauge[int64]:
		points = data.DataPoints
	}
	var want []attribute.KeyValue
	for i := 0; i < len(attrs); i += 2 {
		want = append(want, attribute.String(attrs[i], attrs[i+1]))
	}
	set := attribute.NewSet(want...)
	for _, p := range points {
		if p.Attributes.Equals(&set) {
			return p.Value
		}
	}
	return 0
}
