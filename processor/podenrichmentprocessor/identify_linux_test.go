package podenrichmentprocessor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/processor/processortest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/processor/podenrichmentprocessor/internal/metadata"
	"github.com/orb8/orb8/processor/podenrichmentprocessor/internal/metadatatest"
)

const podUID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"

var (
	containerID   = strings.Repeat("0123456789abcdef", 4)
	containerPath = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + strings.ReplaceAll(podUID, "-", "_") +
		".slice/cri-containerd-" + containerID + ".scope"
)

// unknownID is no directory's.
const unknownID = int64(1) << 62

// node is an enricher of a node called node-1 whose cgroups are directories of the test's.
type node struct {
	*enricher
	telemetry *componenttest.Telemetry
	root      string
}

func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{telemetry: componenttest.NewTelemetry(), root: t.TempDir()}
	t.Cleanup(func() { assert.NoError(t, n.telemetry.Shutdown(context.Background())) })
	for _, path := range []string{containerPath, "/system.slice/sshd.service", "/build"} {
		require.NoError(t, os.MkdirAll(filepath.Join(n.root, path), 0o755))
	}
	set := processortest.NewNopSettings(metadata.Type)
	set.TelemetrySettings = n.telemetry.NewTelemetrySettings()
	var err error
	n.enricher, err = newEnricher(set, &Config{})
	require.NoError(t, err)
	n.node = "node-1"
	n.resolver, err = cgroup.NewResolver(n.root, set.Logger)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, n.shutdown()) })
	return n
}

func (n *node) id(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(n.root, path))
	require.NoError(t, err)
	return int64(info.Sys().(*syscall.Stat_t).Ino)
}

// lookups asserts how often each outcome was counted.
func (n *node) lookups(t *testing.T, want map[string]int64) {
	t.Helper()
	var points []metricdata.DataPoint[int64]
	for outcome, count := range want {
		points = append(points, metricdata.DataPoint[int64]{
			Attributes: attribute.NewSet(attribute.String("outcome", outcome)), Value: count,
		})
	}
	metadatatest.AssertEqualProcessorPodEnrichmentLookups(t, n.telemetry, points, metricdatatest.IgnoreTimestamp())
}

func TestResource(t *testing.T) {
	n := newNode(t)
	container, service, build := n.id(t, containerPath), n.id(t, "/system.slice/sshd.service"), n.id(t, "/build")
	for _, tt := range []struct {
		name        string
		attrs, want map[string]any
	}{
		{
			name:  "container",
			attrs: map[string]any{"orb8.cgroup.id": container},
			want: map[string]any{
				"k8s.node.name": "node-1", "orb8.cgroup.id": container, "orb8.cgroup.path": containerPath,
				"container.id": containerID, "container.runtime.name": "containerd",
				"k8s.pod.uid": podUID, "orb8.k8s.pod.qos_class": "burstable",
			},
		},
		{
			name:  "service",
			attrs: map[string]any{"orb8.cgroup.id": service},
			want: map[string]any{
				"k8s.node.name": "node-1", "orb8.cgroup.id": service, "orb8.cgroup.path": "/system.slice/sshd.service",
				"orb8.systemd.unit": "sshd.service",
			},
		},
		{
			name:  "nothing but a path",
			attrs: map[string]any{"orb8.cgroup.id": build},
			want:  map[string]any{"k8s.node.name": "node-1", "orb8.cgroup.id": build, "orb8.cgroup.path": "/build"},
		},
		{
			name: "what is there stays",
			attrs: map[string]any{
				"orb8.cgroup.id": container, "k8s.node.name": "node-1", "container.id": "mine", "k8s.pod.uid": "",
			},
			want: map[string]any{
				"k8s.node.name": "node-1", "orb8.cgroup.id": container, "orb8.cgroup.path": containerPath,
				"container.id": "mine", "container.runtime.name": "containerd",
				"k8s.pod.uid": "", "orb8.k8s.pod.qos_class": "burstable",
			},
		},
		{
			name:  "unknown id",
			attrs: map[string]any{"orb8.cgroup.id": unknownID},
			want:  map[string]any{"k8s.node.name": "node-1", "orb8.cgroup.id": unknownID},
		},
		{
			name:  "another node's",
			attrs: map[string]any{"orb8.cgroup.id": container, "k8s.node.name": "node-2"},
			want:  map[string]any{"orb8.cgroup.id": container, "k8s.node.name": "node-2"},
		},
		{
			name:  "another node's, no id",
			attrs: map[string]any{"k8s.node.name": "node-2", "service.name": "web"},
			want:  map[string]any{"k8s.node.name": "node-2", "service.name": "web"},
		},
		{
			name:  "the node itself",
			attrs: map[string]any{"service.name": "web"},
			want:  map[string]any{"k8s.node.name": "node-1", "service.name": "web"},
		},
		{
			name:  "no number",
			attrs: map[string]any{"orb8.cgroup.id": "7"},
			want:  map[string]any{"k8s.node.name": "node-1", "orb8.cgroup.id": "7"},
		},
		{
			name:  "no cgroup",
			attrs: map[string]any{"orb8.cgroup.id": int64(0)},
			want:  map[string]any{"k8s.node.name": "node-1", "orb8.cgroup.id": int64(0)},
		},
	} {
		t.Run("logs/"+tt.name, func(t *testing.T) {
			ld := plog.NewLogs()
			require.NoError(t, ld.ResourceLogs().AppendEmpty().Resource().Attributes().FromRaw(tt.attrs))
			got, err := n.logs(t.Context(), ld, nil)
			require.NoError(t, err)
			assert.Equal(t, tt.want, got.ResourceLogs().At(0).Resource().Attributes().AsRaw())
		})
		t.Run("metrics/"+tt.name, func(t *testing.T) {
			md := pmetric.NewMetrics()
			require.NoError(t, md.ResourceMetrics().AppendEmpty().Resource().Attributes().FromRaw(tt.attrs))
			got, err := n.metrics(t.Context(), md, nil)
			require.NoError(t, err)
			assert.Equal(t, tt.want, got.ResourceMetrics().At(0).Resource().Attributes().AsRaw())
		})
	}
	n.lookups(t, map[string]int64{"resolved": 8, "unresolved": 2, "other_node": 2})
}

func TestPeer(t *testing.T) {
	n := newNode(t)
	container, service := n.id(t, containerPath), n.id(t, "/system.slice/sshd.service")
	ld := plog.NewLogs()
	rl := ld.ResourceLogs().AppendEmpty()
	records := rl.ScopeLogs().AppendEmpty().LogRecords()
	for _, attrs := range []map[string]any{
		{"source.orb8.cgroup.id": container, "source.address": "10.0.0.1"},
		{"destination.orb8.cgroup.id": service, "destination.orb8.systemd.unit": "mine"},
		{"source.orb8.cgroup.id": unknownID, "destination.orb8.cgroup.id": service},
		{"orb8.cgroup.id": container},
	} {
		require.NoError(t, records.AppendEmpty().Attributes().FromRaw(attrs))
	}
	other := ld.ResourceLogs().AppendEmpty()
	other.Resource().Attributes().PutStr("k8s.node.name", "node-2")
	theirs := map[string]any{"source.orb8.cgroup.id": container}
	require.NoError(t, other.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty().Attributes().FromRaw(theirs))

	_, err := n.logs(t.Context(), ld, nil)
	require.NoError(t, err)
	for i, want := range []map[string]any{
		{
			"source.orb8.cgroup.id": container, "source.address": "10.0.0.1", "source.orb8.cgroup.path": containerPath,
			"source.container.id": containerID, "source.container.runtime.name": "containerd",
			"source.k8s.pod.uid": podUID, "source.orb8.k8s.pod.qos_class": "burstable",
		},
		{
			"destination.orb8.cgroup.id": service, "destination.orb8.cgroup.path": "/system.slice/sshd.service",
			"destination.orb8.systemd.unit": "mine",
		},
		{
			"source.orb8.cgroup.id": unknownID, "destination.orb8.cgroup.id": service,
			"destination.orb8.cgroup.path": "/system.slice/sshd.service", "destination.orb8.systemd.unit": "sshd.service",
		},
		{"orb8.cgroup.id": container},
	} {
		assert.Equal(t, want, records.At(i).Attributes().AsRaw(), "record %d", i)
	}
	assert.Equal(t, map[string]any{"k8s.node.name": "node-1"}, rl.Resource().Attributes().AsRaw())
	assert.Equal(t, theirs, other.ScopeLogs().At(0).LogRecords().At(0).Attributes().AsRaw())
	n.lookups(t, map[string]int64{"resolved": 3, "unresolved": 1})
}

func TestIdentifyKnownAllocatesNothing(t *testing.T) {
	n := newNode(t)
	attrs := pcommon.NewMap()
	attrs.PutInt("orb8.cgroup.id", n.id(t, containerPath))
	var counts tally
	n.resource(attrs, &counts)
	assert.Zero(t, testing.AllocsPerRun(100, func() { n.resource(attrs, &counts) }))
	assert.Zero(t, counts[unresolved])
}

// BenchmarkLogs is 10,000 flow records of 100 cgroups. All allocations are those of pdata for the attributes added.
func BenchmarkLogs(b *testing.B) {
	n := newNode(b)
	id := n.id(b, containerPath)
	in := plog.NewLogs()
	for range 100 {
		rl := in.ResourceLogs().AppendEmpty()
		rl.Resource().Attributes().PutInt("orb8.cgroup.id", id)
		records := rl.ScopeLogs().AppendEmpty().LogRecords()
		for range 100 {
			attrs := records.AppendEmpty().Attributes()
			for _, name := range []string{
				"source.address", "source.port", "destination.address", "destination.port", "network.transport",
				"network.type", "orb8.flow.direction", "orb8.flow.bytes", "orb8.flow.packets", "orb8.connection.id",
			} {
				attrs.PutInt(name, 1)
			}
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, rl := range in.ResourceLogs().All() {
			rl.Resource().Attributes().RemoveIf(func(name string, _ pcommon.Value) bool { return name != "orb8.cgroup.id" })
		}
		if _, err := n.logs(b.Context(), in, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*in.LogRecordCount()), "ns/record")
}
