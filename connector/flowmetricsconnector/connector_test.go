package flowmetricsconnector

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/connector/connectortest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/orb8/orb8/connector/flowmetricsconnector/internal/metadata"
	"github.com/orb8/orb8/connector/flowmetricsconnector/internal/metadatatest"
	"github.com/orb8/orb8/internal/flow"
)

// never is an interval that no test waits for.
const never = time.Hour

func newConnector(t testing.TB, set connector.Settings, next consumer.Metrics, change func(*Config)) *flowMetrics {
	t.Helper()
	cfg := createDefaultConfig().(*Config)
	cfg.Interval, cfg.Expiry = never, never
	change(cfg)
	c, err := newFlowMetrics(set, cfg, next)
	require.NoError(t, err)
	return c
}

func nop() connector.Settings { return connectortest.NewNopSettings(metadata.Type) }

// agentLogs is what an agent reports: each of the cgroups' flows, as pod_enrichment leaves them.
func agentLogs(cgroups, flows int) plog.Logs {
	ld := plog.NewLogs()
	for c := range cgroups {
		rl := ld.ResourceLogs().AppendEmpty()
		a := rl.Resource().Attributes()
		a.PutStr(flow.AttrNodeName, "node-1")
		a.PutInt(flow.AttrCgroupID, int64(1000+c))
		a.PutStr(flow.AttrCgroupPath, fmt.Sprintf("/kubepods.slice/kubepods-pod%04d.slice/cri-containerd-%064x.scope", c, c))
		a.PutStr(flow.AttrContainerID, fmt.Sprintf("%064x", c))
		a.PutStr(flow.AttrRuntime, "containerd")
		a.PutStr(flow.AttrPodUID, fmt.Sprintf("0a1b2c3d-4e5f-6071-8293-%012d", c))
		a.PutStr(flow.AttrPodQOSClass, "burstable")
		records := rl.ScopeLogs().AppendEmpty().LogRecords()
		for f := range flows {
			r := sample()
			r.Source.Addr = netip.AddrPortFrom(r.Source.Addr.Addr(), uint16(32768+f))
			r.Source.Identity.Process, r.Source.Identity.PID = "curl", 77
			r.Destination.Name = fmt.Sprintf("service-%d.example.com", f%20)
			r.PutTo(records.AppendEmpty())
		}
	}
	return ld
}

// total sums the points of a metric.
func total(md pmetric.Metrics, name string) (sum int64) {
	for _, m := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().All() {
		if m.Name() == name {
			for _, p := range m.Sum().DataPoints().All() {
				sum += p.IntValue()
			}
		}
	}
	return sum
}

func TestFlowRecordsBecomeMetrics(t *testing.T) {
	sink := &consumertest.MetricsSink{}
	c := newConnector(t, nop(), sink, func(c *Config) { c.Interval = 100 * time.Millisecond })
	require.NoError(t, c.Start(t.Context(), componenttest.NewNopHost()))
	require.NoError(t, c.ConsumeLogs(t.Context(), agentLogs(3, 40)))
	require.Eventually(t, func() bool { return len(sink.AllMetrics()) > 0 }, 10*time.Second, time.Millisecond)
	md := sink.AllMetrics()[0]
	assert.EqualValues(t, 3*40*1500, total(md, "orb8.workload.flow.io"))
	assert.EqualValues(t, 3*40*3, total(md, "orb8.workload.flow.packets"))
	assert.EqualValues(t, 3*40, total(md, "orb8.workload.connections"))
	assert.EqualValues(t, 3*40*2, total(md, "orb8.workload.tcp.retransmits"))
	assert.Equal(t, 3*20*5, md.DataPointCount(), "five metrics of twenty peers of each pod")
	scope := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Scope()
	assert.Equal(t, metadata.ScopeName, scope.Name())

	require.NoError(t, c.ConsumeLogs(t.Context(), agentLogs(3, 40)))
	require.NoError(t, c.Shutdown(t.Context()))
	all := sink.AllMetrics()
	assert.EqualValues(t, 2*3*40*1500, total(all[len(all)-1], "orb8.workload.flow.io"), "the last report has all")
}

func TestOtherLogRecordsAreLeftAlone(t *testing.T) {
	c := newConnector(t, nop(), consumertest.NewNop(), func(*Config) {})
	ld := plog.NewLogs()
	records := ld.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords()
	event := flow.Event{Kind: flow.EventSYN, Record: sample()}
	event.PutTo(records.AppendEmpty())
	records.AppendEmpty().Body().SetStr("hello")
	require.NoError(t, c.ConsumeLogs(t.Context(), ld))
	assert.Empty(t, c.table.series)
	assert.False(t, c.Capabilities().MutatesData)
}

func TestNothingIsReportedOfNothing(t *testing.T) {
	sink := &consumertest.MetricsSink{}
	c := newConnector(t, nop(), sink, func(*Config) {})
	require.NoError(t, c.Start(t.Context(), componenttest.NewNopHost()))
	require.NoError(t, c.Shutdown(t.Context()))
	assert.Empty(t, sink.AllMetrics())
}

func TestMalformedAndFoldedAreTold(t *testing.T) {
	telemetry := componenttest.NewTelemetry()
	defer func() { require.NoError(t, telemetry.Shutdown(context.Background())) }()
	core, logged := observer.New(zap.WarnLevel)
	set := nop()
	set.TelemetrySettings = telemetry.NewTelemetrySettings()
	set.Logger = zap.New(core)
	c := newConnector(t, set, consumertest.NewNop(), func(c *Config) { c.MaxSeries = 12 })
	require.NoError(t, c.Start(t.Context(), componenttest.NewNopHost()))

	require.NoError(t, c.ConsumeLogs(t.Context(), agentLogs(1, 12)))
	assert.Zero(t, logged.Len(), "there is room for all")
	ld := agentLogs(1, 20)
	spoilt := sample()
	spoilt.Direction = 0
	spoilt.PutTo(ld.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().AppendEmpty())
	for range 3 {
		require.NoError(t, c.ConsumeLogs(t.Context(), ld))
	}
	require.Equal(t, 1, logged.Len(), "once")
	assert.Contains(t, logged.All()[0].Message, "Raise max_series")
	assert.EqualValues(t, 12, logged.All()[0].ContextMap()["max_series"])

	exact := []metricdatatest.Option{metricdatatest.IgnoreTimestamp(), metricdatatest.IgnoreExemplars()}
	metadatatest.AssertEqualFlowMetricsMalformedRecords(t, telemetry, []metricdata.DataPoint[int64]{{Value: 3}}, exact...)
	metadatatest.AssertEqualFlowMetricsSeries(t, telemetry, []metricdata.DataPoint[int64]{{Value: 13}}, exact...)
	folded := c.table.foldedKeys()
	metadatatest.AssertEqualFlowMetricsFoldedKeys(t, telemetry, []metricdata.DataPoint[int64]{{Value: folded}}, exact...)
	assert.InDelta(t, 8, folded, 1)
	require.NoError(t, c.Shutdown(t.Context()))
}

// What the next component refuses is in the next report.
func TestARefusedReportLosesNothing(t *testing.T) {
	core, logged := observer.New(zap.WarnLevel)
	set := nop()
	set.Logger = zap.New(core)
	var (
		mu      sync.Mutex
		refuse  = true
		arrived int64
	)
	next, err := consumer.NewMetrics(func(_ context.Context, md pmetric.Metrics) error {
		mu.Lock()
		defer mu.Unlock()
		if refuse {
			return errors.New("memory is short")
		}
		arrived = total(md, "orb8.workload.flow.io")
		return nil
	})
	require.NoError(t, err)
	c := newConnector(t, set, next, func(c *Config) { c.Interval = 100 * time.Millisecond })
	require.NoError(t, c.Start(t.Context(), componenttest.NewNopHost()))
	require.NoError(t, c.ConsumeLogs(t.Context(), agentLogs(1, 10)))
	require.Eventually(t, func() bool { return logged.Len() > 0 }, 10*time.Second, time.Millisecond)
	assert.Contains(t, fmt.Sprint(logged.All()[0].ContextMap()), "memory is short")
	mu.Lock()
	refuse = false
	mu.Unlock()
	require.NoError(t, c.Shutdown(t.Context()))
	assert.EqualValues(t, 10*1500, arrived)
}

func TestManyAtOnce(t *testing.T) {
	sink := &consumertest.MetricsSink{}
	c := newConnector(t, nop(), sink, func(c *Config) { c.Interval, c.MaxSeries = 100*time.Millisecond, 30 })
	require.NoError(t, c.Start(t.Context(), componenttest.NewNopHost()))
	ld := agentLogs(4, 50)
	ld.MarkReadOnly()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				assert.NoError(t, c.ConsumeLogs(t.Context(), ld))
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			assert.NoError(t, c.report(t.Context()))
		}
	})
	wg.Wait()
	require.NoError(t, c.Shutdown(t.Context()))
	all := sink.AllMetrics()
	assert.EqualValues(t, 8*20*4*50*1500, total(all[len(all)-1], "orb8.workload.flow.io"))
}

func TestKnownSeriesCostNoAllocation(t *testing.T) {
	c := newConnector(t, nop(), consumertest.NewNop(), func(*Config) {})
	ld := agentLogs(10, 100)
	require.NoError(t, c.ConsumeLogs(t.Context(), ld))
	ctx := t.Context()
	assert.Zero(t, testing.AllocsPerRun(10, func() { _ = c.ConsumeLogs(ctx, ld) }), "of a thousand records")
}

// records are those of a batch of the receiver, of 2,000 series.
func benchmarkConsume(b *testing.B, change func(*Config)) {
	c := newConnector(b, nop(), consumertest.NewNop(), change)
	ld := agentLogs(100, 40)
	b.ReportAllocs()
	for b.Loop() {
		_ = c.ConsumeLogs(b.Context(), ld)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*ld.LogRecordCount()), "ns/record")
}

func BenchmarkKnownSeries(b *testing.B) { benchmarkConsume(b, func(*Config) {}) }

func BenchmarkFolded(b *testing.B) { benchmarkConsume(b, func(c *Config) { c.MaxSeries = 1 }) }

func BenchmarkReport(b *testing.B) {
	c := newConnector(b, nop(), consumertest.NewNop(), func(*Config) {})
	require.NoError(b, c.ConsumeLogs(b.Context(), agentLogs(500, 20)))
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, c.report(b.Context()))
	}
	b.ReportMetric(float64(len(c.table.series)), "series")
}
