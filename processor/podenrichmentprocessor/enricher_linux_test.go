package podenrichmentprocessor

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/processor/processortest"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/processor/podenrichmentprocessor/internal/metadata"
)

// TestRealCgroup goes all the way, from the factory to a cgroup that was made after the start and is gone by the time
// of its flow record.
func TestRealCgroup(t *testing.T) {
	mount, err := cgroup.FindMount("")
	testutil.Require(t, "bpf", err == nil, "there is no cgroup v2 hierarchy")
	testutil.Require(t, "bpf", os.Geteuid() == 0, "only root can make cgroups")
	root, err := os.MkdirTemp(mount.Path, "orb8-test-")
	require.NoError(t, err)
	defer os.Remove(root)
	tel := componenttest.NewTelemetry()
	defer func() { assert.NoError(t, tel.Shutdown(t.Context())) }()
	set := processortest.NewNopSettings(metadata.Type)
	set.TelemetrySettings = tel.NewTelemetrySettings()

	factory := NewFactory()
	cfg := &Config{CgroupPath: root, NodeName: "node-1"}
	logsSink, metricsSink, tracesSink := &consumertest.LogsSink{}, &consumertest.MetricsSink{}, &consumertest.TracesSink{}
	logs, err := factory.CreateLogs(t.Context(), set, cfg, logsSink)
	require.NoError(t, err)
	metrics, err := factory.CreateMetrics(t.Context(), set, cfg, metricsSink)
	require.NoError(t, err)
	traces, err := factory.CreateTraces(t.Context(), set, cfg, tracesSink)
	require.NoError(t, err)
	require.NoError(t, logs.Start(t.Context(), componenttest.NewNopHost()))
	require.NoError(t, traces.Start(t.Context(), componenttest.NewNopHost()))
	require.NoError(t, metrics.Start(t.Context(), componenttest.NewNopHost()))

	known := func() int64 {
		m, err := tel.GetMetric("otelcol_processor_pod_enrichment_cgroups")
		require.NoError(t, err)
		points := m.Data.(metricdata.Gauge[int64]).DataPoints
		require.Len(t, points, 1, "the pipelines share one enricher")
		return points[0].Value
	}
	assert.Equal(t, int64(1), known())
	dir := filepath.Join(root, "web.service")
	require.NoError(t, os.Mkdir(dir, 0o755))
	defer os.Remove(dir)
	info, err := os.Stat(dir)
	require.NoError(t, err)
	id := int64(info.Sys().(*syscall.Stat_t).Ino)
	require.Eventually(t, func() bool { return known() == 2 }, time.Minute, time.Millisecond)
	require.NoError(t, os.Remove(dir))

	ld := plog.NewLogs()
	ld.ResourceLogs().AppendEmpty().Resource().Attributes().PutInt("orb8.cgroup.id", id)
	require.NoError(t, logs.ConsumeLogs(t.Context(), ld))
	md := pmetric.NewMetrics()
	md.ResourceMetrics().AppendEmpty().Resource().Attributes().PutInt("orb8.cgroup.id", id)
	// The pipelines stop one after the other: what one of them still holds is told all the same.
	require.NoError(t, logs.Shutdown(t.Context()))
	require.NoError(t, metrics.ConsumeMetrics(t.Context(), md))
	require.NoError(t, metrics.Shutdown(t.Context()))
	td := ptrace.NewTraces()
	td.ResourceSpans().AppendEmpty().Resource().Attributes().PutInt("orb8.cgroup.id", id)
	require.NoError(t, traces.ConsumeTraces(t.Context(), td))
	require.NoError(t, traces.Shutdown(t.Context()))

	want := map[string]any{
		"k8s.node.name": "node-1", "orb8.cgroup.id": id,
		"orb8.cgroup.path": "/web.service", "orb8.systemd.unit": "web.service",
	}
	assert.Equal(t, want, logsSink.AllLogs()[0].ResourceLogs().At(0).Resource().Attributes().AsRaw())
	assert.Equal(t, want, metricsSink.AllMetrics()[0].ResourceMetrics().At(0).Resource().Attributes().AsRaw())
	want["service.name"] = "web"
	assert.Equal(t, want, tracesSink.AllTraces()[0].ResourceSpans().At(0).Resource().Attributes().AsRaw())
}

func TestServiceName(t *testing.T) {
	tests := map[string]struct {
		attrs map[string]any
		want  any
	}{
		"service":           {map[string]any{"orb8.cgroup.id": 7, "orb8.systemd.unit": "nginx.service", "service.name": "worker"}, "nginx"},
		"login":             {map[string]any{"orb8.cgroup.id": 7, "orb8.systemd.unit": "session-3.scope", "service.name": "curl"}, "curl"},
		"container":         {map[string]any{"orb8.cgroup.id": 7, "container.id": "c0ffee", "service.name": "java"}, "java"},
		"span of someone's": {map[string]any{"orb8.systemd.unit": "nginx.service", "service.name": "shop"}, "shop"},
		"nothing known":     {map[string]any{"orb8.cgroup.id": 7}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			attrs := pcommon.NewMap()
			require.NoError(t, attrs.FromRaw(tt.attrs))
			nameService(attrs)
			assert.Equal(t, tt.want, attrs.AsRaw()["service.name"])
		})
	}
}

func TestSpansOfAnotherNodeAreLeftAlone(t *testing.T) {
	e := newTestEnricher(t, &Config{})
	e.node = "node-1"
	td := ptrace.NewTraces()
	raw := map[string]any{"k8s.node.name": "node-2", "orb8.cgroup.id": int64(7), "orb8.systemd.unit": "nginx.service", "service.name": "worker"}
	require.NoError(t, td.ResourceSpans().AppendEmpty().Resource().Attributes().FromRaw(raw))
	got, err := e.traces(t.Context(), td, nil)
	require.NoError(t, err)
	assert.Equal(t, raw, got.ResourceSpans().At(0).Resource().Attributes().AsRaw())
}

func TestFactoryMakesAnewAfterShutdown(t *testing.T) {
	factory := NewFactory()
	cfg := factory.CreateDefaultConfig()
	for range 2 {
		p, err := factory.CreateLogs(t.Context(), processortest.NewNopSettings(metadata.Type), cfg, consumertest.NewNop())
		require.NoError(t, err)
		require.NoError(t, p.Start(t.Context(), componenttest.NewNopHost()))
		assert.NoError(t, p.Shutdown(t.Context()))
	}
}

// statusHost remembers the statuses that were reported.
type statusHost struct {
	component.Host
	mu     sync.Mutex
	events []*componentstatus.Event
}

func (h *statusHost) Report(e *componentstatus.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

func (h *statusHost) reported() []*componentstatus.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events)
}

func newTestEnricher(t *testing.T, cfg *Config) *enricher {
	t.Helper()
	e, err := newEnricher(processortest.NewNopSettings(metadata.Type), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, e.shutdown()) })
	return e
}

func TestStartRefusesAPathThatIsNoCgroup(t *testing.T) {
	dir := t.TempDir()
	e := newTestEnricher(t, &Config{CgroupPath: dir})
	host := &statusHost{}
	assert.EqualError(t, e.start(t.Context(), host),
		"cgroup_path: "+dir+" is not in a cgroup v2 hierarchy; leave the path empty to have one found")
	assert.Empty(t, host.reported())
}

func TestStartWithoutCgroupsPassesDataOn(t *testing.T) {
	none := errors.New("no cgroup v2 hierarchy is mounted")
	core, logs := observer.New(zap.WarnLevel)
	e := newTestEnricher(t, &Config{NodeName: "node-1"})
	e.set.Logger = zap.New(core)
	e.findMount = func(string) (cgroup.Mount, error) { return cgroup.Mount{}, none }
	host := &statusHost{}
	require.NoError(t, e.start(t.Context(), host))
	require.NoError(t, e.start(t.Context(), host))
	require.Len(t, host.reported(), 1)
	assert.Equal(t, componentstatus.StatusPermanentError, host.reported()[0].Status())
	assert.Equal(t, none, host.reported()[0].Err())
	assert.Len(t, logs.All(), 1)

	ld := plog.NewLogs()
	ld.ResourceLogs().AppendEmpty().Resource().Attributes().PutInt("orb8.cgroup.id", 7)
	got, err := e.logs(t.Context(), ld, nil)
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"k8s.node.name": "node-1", "orb8.cgroup.id": int64(7)},
		got.ResourceLogs().At(0).Resource().Attributes().AsRaw())
}

func TestStartSaysThatCgroupsAreHidden(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	e := newTestEnricher(t, &Config{})
	e.set.Logger = zap.New(core)
	dir := t.TempDir()
	e.findMount = func(string) (cgroup.Mount, error) { return cgroup.Mount{Path: dir, Partial: true}, nil }
	host := &statusHost{}
	require.NoError(t, e.start(t.Context(), host))
	assert.Empty(t, host.reported())
	require.Len(t, logs.All(), 1)
	assert.Equal(t, "Only a part of the cgroups of this node is known; give the container the host's /sys/fs/cgroup", logs.All()[0].Message)
	assert.Equal(t, 1, e.resolver.Len())
}

func TestShutdownWithoutStart(t *testing.T) {
	e := newTestEnricher(t, &Config{})
	assert.NoError(t, e.shutdown())
}

func TestNodeName(t *testing.T) {
	hostname, err := os.Hostname()
	require.NoError(t, err)
	for _, tt := range []struct{ name, config, env, want string }{
		{name: "configured", config: "node-1", env: "node-2", want: "node-1"},
		{name: "of the environment", env: "node-2", want: "node-2"},
		{name: "of the host", want: hostname},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("NODE_NAME", tt.env)
			e := newTestEnricher(t, &Config{NodeName: tt.config})
			require.NoError(t, e.start(t.Context(), componenttest.NewNopHost()))
			assert.Equal(t, tt.want, e.node)
		})
	}
}
