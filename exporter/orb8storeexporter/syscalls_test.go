package orb8storeexporter

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/extension/extensiontest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"

	"github.com/orb8/orb8/exporter/orb8storeexporter/internal/metadatatest"
	"github.com/orb8/orb8/extension/orb8storageextension"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// web is what resource() says.
var web = flow.Identity{CgroupID: 7, Pod: "web-0"}

func counts(calls int) syscalls.Counts {
	now := time.Now().UTC().Truncate(0)
	c := syscalls.Counts{Start: now.Add(-time.Second), End: now, Node: "node-a", Identity: web, LostCalls: 2}
	for n := range calls {
		c.Calls = append(c.Calls, syscalls.Count{Call: syscalls.Call{ABI: syscalls.X86_64, Number: int32(n)}, Calls: uint64(calls - n)})
	}
	return c
}

func call() syscalls.Event {
	e := syscalls.Event{
		Time: time.Now().UTC().Truncate(0), Node: "node-a", Identity: web, TID: 12, Call: syscalls.Call{ABI: syscalls.X86_64, Number: 257},
		Arguments: []syscalls.Argument{{Name: "pathname", Value: "/etc/passwd"}}, Sampling: 1,
	}
	e.Identity.Process, e.Identity.PID = "sh", 11
	return e
}

func anomaly() syscalls.Anomaly {
	e := call()
	n := syscalls.Anomaly{
		Time: e.Time, Node: "node-a", Identity: e.Identity, Workload: "web", Rule: "mounting", Severity: syscalls.SeverityCritical, Call: e.Call,
		Message: "it did", Evidence: &e,
	}
	e.Identity = flow.Identity{Process: "sh", PID: 11}
	return n
}

func callsStatus() syscalls.Status {
	now := time.Now().UTC().Truncate(0)
	return syscalls.Status{
		Node: "node-a", Version: "0.1.0", Kernel: "6.18", Time: now, Started: now.Add(-time.Minute), Interval: time.Second, Calls: 5, LostCalls: 3, Thinning: 1,
	}
}

func TestGoldenPathOfSyscalls(t *testing.T) {
	extensions := orb8storageextension.NewFactory()
	extension, err := extensions.Create(t.Context(), extensiontest.NewNopSettings(extensions.Type()), extensions.CreateDefaultConfig())
	require.NoError(t, err)
	store := extension.(storage.Store)
	exporter, _ := start(t, extension)
	subscription := store.Subscribe(storage.EventSelection{})
	defer subscription.Close()

	counted, called, odd, node := counts(2), call(), anomaly(), callsStatus()
	gpus := gpu.Status{Node: "node-a", Time: node.Time, Started: node.Started, Interval: time.Second, Models: map[string]uint32{"Tesla T4": 1}}
	logs := plog.NewLogs()
	add := resource(logs)
	odd.PutTo(add())
	counted.PutTo(add(), syscalls.X86_64)
	called.PutTo(add())
	node.PutTo(add())
	gpus.PutTo(add())
	logs.MarkReadOnly()
	require.NoError(t, exporter.ConsumeLogs(t.Context(), logs))

	for _, want := range []storage.Event{{Syscall: &called}, {Anomaly: &odd}} {
		got, _, err := subscription.Next(t.Context())
		require.NoError(t, err)
		assert.Equal(t, want, got, "a call comes before the anomaly that it is")
	}
	result, err := store.QuerySyscalls(t.Context(), storage.SyscallQuery{})
	require.NoError(t, err)
	row := storage.Syscall{Start: counted.Start, End: counted.End, Node: "node-a", Identity: web, Lost: 2}
	first, second := row, row
	first.Count, second.Count = counted.Calls[0], counted.Calls[1]
	assert.Equal(t, []storage.Syscall{first, second}, result.Syscalls)
	assert.EqualValues(t, 3, result.Lost.Calls)
	anomalies, err := store.QueryAnomalies(t.Context(), storage.AnomalyQuery{})
	require.NoError(t, err)
	assert.Equal(t, []syscalls.Anomaly{odd}, anomalies.Anomalies)
	state, err := store.Status(t.Context())
	require.NoError(t, err)
	require.Len(t, state.Nodes, 1)
	assert.Equal(t, &node, state.Nodes[0].Syscalls)
	assert.Equal(t, &gpus, state.Nodes[0].GPU)
	assert.Nil(t, state.Nodes[0].Network)
}

func TestMalformedSyscalls(t *testing.T) {
	c, e, n, s := counts(1), call(), anomaly(), callsStatus()
	g := gpu.Status{Node: "node-a", Time: time.Now(), Interval: time.Second}
	for name, tt := range map[string]struct {
		put func(plog.LogRecord)
		key string
	}{
		"counts without an ABI":      {func(r plog.LogRecord) { c.PutTo(r, syscalls.X86_64) }, syscalls.AttrABI},
		"event without a number":     {e.PutTo, syscalls.AttrNumber},
		"anomaly without a severity": {n.PutTo, syscalls.AttrSeverity},
		"status without an interval": {s.PutTo, syscalls.AttrInterval},
		"GPUs without an interval":   {g.PutTo, gpu.AttrInterval},
	} {
		t.Run(name, func(t *testing.T) {
			store := &fakeStore{}
			exporter, telemetry := start(t, store)
			logs := plog.NewLogs()
			add := resource(logs)
			spoilt := add()
			tt.put(spoilt)
			spoilt.Attributes().Remove(tt.key)
			good := counts(1)
			good.PutTo(add(), syscalls.X86_64)
			require.NoError(t, exporter.ConsumeLogs(t.Context(), logs))
			assert.Equal(t, []syscalls.Counts{good}, store.counts, "the rest of the batch is written")
			assert.Empty(t, store.calls)
			assert.Empty(t, store.anomalies)
			assert.Empty(t, store.callsStatuses)
			assert.Empty(t, store.gpuStatuses)
			metadatatest.AssertEqualStoreMalformedRecords(t, telemetry, []metricdata.DataPoint[int64]{{Value: 1}}, metricdatatest.IgnoreTimestamp(), metricdatatest.IgnoreExemplars())
			_, err := telemetry.GetMetric("orb8_store_ignored_records")
			assert.Error(t, err, "it is orb8's")
		})
	}
}

// A record of counts may be as large as a thousand others.
func TestManyCountsAreWrittenInParts(t *testing.T) {
	store := &fakeStore{}
	exporter, _ := start(t, store)
	logs := plog.NewLogs()
	add := resource(logs)
	const n, calls = 100, 100
	for range n {
		c := counts(calls)
		c.PutTo(add(), syscalls.X86_64)
	}
	require.NoError(t, exporter.ConsumeLogs(t.Context(), logs))
	require.Len(t, store.counts, n)
	assert.LessOrEqual(t, store.largest, 2*maxBatch/calls+1)
	assert.Greater(t, store.largest, 1)
}

func TestErrorOfTheStoreForSyscalls(t *testing.T) {
	boom := errors.New("disk full")
	c, e, n, s := counts(1), call(), anomaly(), callsStatus()
	for name, put := range map[string]func(plog.LogRecord){
		"counts": func(r plog.LogRecord) { c.PutTo(r, syscalls.X86_64) }, "event": e.PutTo, "anomaly": n.PutTo, "status": s.PutTo,
	} {
		t.Run(name, func(t *testing.T) {
			exporter, _ := start(t, &fakeStore{err: boom})
			logs := plog.NewLogs()
			put(resource(logs)())
			assert.ErrorIs(t, exporter.ConsumeLogs(t.Context(), logs), boom)
		})
	}
}

func (*discard) WriteSyscalls(context.Context, []syscalls.Counts) error { return nil }

func BenchmarkConsumeCounts(b *testing.B) {
	e, err := newStoreExporter(componenttest.NewNopTelemetrySettings(), createDefaultConfig().(*Config))
	require.NoError(b, err)
	require.NoError(b, e.start(b.Context(), host{e.storage: &discard{}}))
	logs := plog.NewLogs()
	add := resource(logs)
	const n, calls = 200, 60
	for range n {
		c := counts(calls)
		c.PutTo(add(), syscalls.X86_64)
	}
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, e.consume(b.Context(), logs))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n*calls), "ns/call")
}
