package orb8storeexporter

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/extension/extensiontest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"

	"github.com/orb8/orb8/exporter/orb8storeexporter/internal/metadata"
	"github.com/orb8/orb8/exporter/orb8storeexporter/internal/metadatatest"
	"github.com/orb8/orb8/extension/orb8storageextension"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/storage"
)

func startMetrics(t *testing.T, store component.Component) (exporter.Metrics, *componenttest.Telemetry) {
	t.Helper()
	telemetry := componenttest.NewTelemetry()
	set := exportertest.NewNopSettings(metadata.Type)
	set.TelemetrySettings = telemetry.NewTelemetrySettings()
	metrics, err := NewFactory().CreateMetrics(t.Context(), set, createDefaultConfig())
	require.NoError(t, err)
	require.NoError(t, metrics.Start(t.Context(), host{component.MustNewID("orb8_storage"): store}))
	t.Cleanup(func() {
		assert.NoError(t, metrics.Shutdown(context.Background()))
		assert.NoError(t, telemetry.Shutdown(context.Background()))
	})
	return metrics, telemetry
}

// gauge appends a metric to a new resource of node-a with these attributes, and returns what appends data points to it.
func gauge(metrics pmetric.Metrics, name string, resource map[string]string) func(id string, value float64) {
	rm := metrics.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr(flow.AttrNodeName, "node-a")
	for k, v := range resource {
		rm.Resource().Attributes().PutStr(k, v)
	}
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName(name)
	points := m.SetEmptyGauge().DataPoints()
	now := pcommon.NewTimestampFromTime(time.Now())
	return func(id string, value float64) {
		p := points.AppendEmpty()
		p.SetTimestamp(now)
		p.SetDoubleValue(value)
		if id != "" {
			p.Attributes().PutStr(gpu.AttrID, id)
		}
	}
}

func TestGoldenPathOfGPUs(t *testing.T) {
	extensions := orb8storageextension.NewFactory()
	extension, err := extensions.Create(t.Context(), extensiontest.NewNopSettings(extensions.Type()), extensions.CreateDefaultConfig())
	require.NoError(t, err)
	store := extension.(storage.Store)
	exporter, telemetry := startMetrics(t, extension)

	metrics := pmetric.NewMetrics()
	utilization := gauge(metrics, "hw.gpu.utilization", nil)
	utilization("GPU-0", 0.5)
	utilization("GPU-1", 0.25)
	utilization("", 1)
	gauge(metrics, gpu.MetricAllocation, map[string]string{flow.AttrPod: "train-0", flow.AttrNamespace: "ml"})("GPU-1", 1)
	foreign := gauge(metrics, "orb8.network.bytes", map[string]string{flow.AttrPod: "train-0"})
	foreign("", 100)
	foreign("", 200)
	metrics.MarkReadOnly()
	require.NoError(t, exporter.ConsumeMetrics(t.Context(), metrics))

	result, err := store.QueryGPU(t.Context(), storage.GPUQuery{})
	require.NoError(t, err)
	var got []string
	for _, s := range result.Series {
		got = append(got, fmt.Sprintln(s.Metric, s.Device.ID, s.Identity.Pod, s.Points[0].Value))
	}
	assert.Equal(t, []string{"hw.gpu.utilization GPU-0  0.5\n", "gpu.allocation GPU-1 train-0 1\n", "hw.gpu.utilization GPU-1 train-0 0.25\n"}, got)
	metadatatest.AssertEqualStoreIgnoredDataPoints(t, telemetry, []metricdata.DataPoint[int64]{{Value: 2}},
		metricdatatest.IgnoreTimestamp(), metricdatatest.IgnoreExemplars())
	metadatatest.AssertEqualStoreMalformedDataPoints(t, telemetry, []metricdata.DataPoint[int64]{{Value: 1}},
		metricdatatest.IgnoreTimestamp(), metricdatatest.IgnoreExemplars())
}

func TestMetricsAreWrittenInParts(t *testing.T) {
	store := &fakeStore{}
	exporter, _ := startMetrics(t, store)
	metrics := pmetric.NewMetrics()
	add := gauge(metrics, "hw.gpu.utilization", nil)
	for i := range 2*maxBatch + 1 {
		add(fmt.Sprint("GPU-", i), 1)
	}
	for range 2 {
		require.NoError(t, exporter.ConsumeMetrics(t.Context(), metrics))
		require.Len(t, store.samples, 2*maxBatch+1)
		assert.Equal(t, "GPU-1024", store.samples[2*maxBatch].Device.ID)
		assert.Equal(t, maxBatch, store.largest)
		store.samples = nil
	}
	assert.NoError(t, exporter.ConsumeMetrics(t.Context(), pmetric.NewMetrics()))
	assert.Empty(t, store.samples)
}

func TestMetricsThatTheStoreRefusesFail(t *testing.T) {
	for _, samples := range []int{1, maxBatch + 1} {
		store := &fakeStore{err: errors.New("disk full")}
		exporter, _ := startMetrics(t, store)
		metrics := pmetric.NewMetrics()
		add := gauge(metrics, "hw.gpu.utilization", nil)
		for i := range samples {
			add(fmt.Sprint("GPU-", i), 1)
		}
		assert.ErrorContains(t, exporter.ConsumeMetrics(t.Context(), metrics), "disk full")
		assert.Len(t, store.samples, min(samples, maxBatch), "the rest comes again")
	}
}
