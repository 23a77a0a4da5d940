package orb8storeexporter

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exportertest"
	"go.opentelemetry.io/collector/extension/extensiontest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"

	"github.com/orb8/orb8/exporter/orb8storeexporter/internal/metadata"
	"github.com/orb8/orb8/exporter/orb8storeexporter/internal/metadatatest"
	"github.com/orb8/orb8/extension/orb8storageextension"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

type host map[component.ID]component.Component

func (h host) GetExtensions() map[component.ID]component.Component { return h }

// fakeStore notes the writes, and the size of each.
type fakeStore struct {
	component.Component
	storage.Reader
	flows    []flow.Record
	events   []flow.Event
	lookups  []flow.Lookup
	statuses []flow.NetworkStatus

	counts        []syscalls.Counts
	calls         []syscalls.Event
	anomalies     []syscalls.Anomaly
	callsStatuses []syscalls.Status
	gpuStatuses   []gpu.Status

	samples []gpu.Sample

	largest int
	err     error
}

func (s *fakeStore) WriteFlows(_ context.Context, records []flow.Record) error {
	s.flows = append(s.flows, records...)
	s.largest = max(s.largest, len(records))
	return s.err
}

func (s *fakeStore) WriteEvents(_ context.Context, events []flow.Event) error {
	s.events = append(s.events, events...)
	s.largest = max(s.largest, len(events))
	return s.err
}

func (s *fakeStore) WriteLookups(_ context.Context, lookups []flow.Lookup) error {
	s.lookups = append(s.lookups, lookups...)
	s.largest = max(s.largest, len(lookups))
	return s.err
}

func (s *fakeStore) WriteStatus(_ context.Context, status flow.NetworkStatus) error {
	s.statuses = append(s.statuses, status)
	return s.err
}

func (s *fakeStore) WriteSyscalls(_ context.Context, counts []syscalls.Counts) error {
	s.counts = append(s.counts, counts...)
	s.largest = max(s.largest, len(counts))
	return s.err
}

func (s *fakeStore) WriteSyscallEvents(_ context.Context, events []syscalls.Event) error {
	s.calls = append(s.calls, events...)
	s.largest = max(s.largest, len(events))
	return s.err
}

func (s *fakeStore) WriteAnomalies(_ context.Context, anomalies []syscalls.Anomaly) error {
	s.anomalies = append(s.anomalies, anomalies...)
	return s.err
}

func (s *fakeStore) WriteGPU(_ context.Context, samples []gpu.Sample) error {
	s.samples = append(s.samples, samples...)
	s.largest = max(s.largest, len(samples))
	return s.err
}

func (s *fakeStore) WriteSyscallStatus(_ context.Context, status syscalls.Status) error {
	s.callsStatuses = append(s.callsStatuses, status)
	return s.err
}

func (s *fakeStore) WriteGPUStatus(_ context.Context, status gpu.Status) error {
	s.gpuStatuses = append(s.gpuStatuses, status)
	return s.err
}

func start(t *testing.T, store component.Component) (exporter.Logs, *componenttest.Telemetry) {
	t.Helper()
	telemetry := componenttest.NewTelemetry()
	set := exportertest.NewNopSettings(metadata.Type)
	set.TelemetrySettings = telemetry.NewTelemetrySettings()
	logs, err := NewFactory().CreateLogs(t.Context(), set, createDefaultConfig())
	require.NoError(t, err)
	require.NoError(t, logs.Start(t.Context(), host{component.MustNewID("orb8_storage"): store}))
	t.Cleanup(func() {
		assert.NoError(t, logs.Shutdown(context.Background()))
		assert.NoError(t, telemetry.Shutdown(context.Background()))
	})
	return logs, telemetry
}

func record(port uint16) flow.Record {
	now := time.Now().UTC().Truncate(0)
	return flow.Record{
		Start: now.Add(-time.Second), End: now, Node: "node-a",
		Direction: flow.Egress, Transport: flow.TCP, TCPFlags: 0x12, Bytes: 1500, Packets: 3, Connections: 1, LostPackets: 2,
		Source: flow.Endpoint{
			Addr:     netip.MustParseAddrPort("10.0.0.1:40000"),
			Identity: flow.Identity{CgroupID: 7, Pod: "web-0", Process: "curl", PID: 100},
		},
		Destination: flow.Endpoint{Addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), port)},
	}
}

func status() flow.NetworkStatus {
	now := time.Now().UTC().Truncate(0)
	return flow.NetworkStatus{
		Node: "node-a", Version: "0.1.0", Kernel: "6.12", Time: now, Started: now.Add(-time.Minute), AttachMode: "cgroup",
		AttachPoints: 2, Interval: 10 * time.Second, Packets: 1000, LostPackets: 3, RingBufferUtilization: 0.25,
	}
}

func lookup() flow.Lookup {
	r := record(53)
	return flow.Lookup{
		Time: r.End, Node: r.Node, Direction: flow.Egress, Transport: flow.UDP, Client: r.Source, Server: r.Destination,
		Name: "www.example.com", Type: "A", RCode: "NOERROR", Latency: time.Millisecond, Queries: 1,
		Answers: []flow.Answer{{Name: "www.example.com", Type: "A", TTL: time.Minute, Data: "192.0.2.1"}},
	}
}

// resource appends a resource of node-a's container 7 and returns a function that appends a log record to it.
func resource(logs plog.Logs) func() plog.LogRecord {
	rl := logs.ResourceLogs().AppendEmpty()
	a := rl.Resource().Attributes()
	a.PutStr(flow.AttrNodeName, "node-a")
	a.PutInt(flow.AttrCgroupID, 7)
	a.PutStr(flow.AttrPod, "web-0")
	return rl.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty
}

// golden is a batch with one of each, and what is in it.
func golden() (logs plog.Logs, live, ended flow.Record, syn flow.Event, node flow.NetworkStatus) {
	live, ended = record(443), record(80)
	ended.Ended = true
	syn = flow.Event{Kind: flow.EventSYN, Record: record(443)}
	// An event is one packet: it has neither a start nor a loss.
	syn.Start, syn.LostPackets = syn.End, 0
	node = status()
	logs = plog.NewLogs()
	add := resource(logs)
	live.PutTo(add())
	syn.PutTo(add())
	ended.PutTo(resource(logs)())
	node.PutTo(resource(logs)())
	return logs, live, ended, syn, node
}

func TestGoldenPath(t *testing.T) {
	extensions := orb8storageextension.NewFactory()
	extension, err := extensions.Create(t.Context(), extensiontest.NewNopSettings(extensions.Type()), extensions.CreateDefaultConfig())
	require.NoError(t, err)
	store := extension.(storage.Store)
	exporter, _ := start(t, extension)
	subscription := store.Subscribe(storage.EventSelection{})
	defer subscription.Close()

	logs, live, ended, syn, node := golden()
	asked := lookup()
	asked.PutTo(resource(logs)())
	logs.MarkReadOnly()
	require.NoError(t, exporter.ConsumeLogs(t.Context(), logs))

	dns := flow.Event{Kind: flow.EventDNS, Record: asked.Record(), Lookup: &asked}
	for _, want := range []flow.Event{syn, dns, {Kind: flow.EventFlow, Record: live}, {Kind: flow.EventEnd, Record: ended}} {
		got, _, err := subscription.Next(t.Context())
		require.NoError(t, err)
		assert.Equal(t, storage.Event{Flow: &want}, got)
	}
	result, err := store.QueryFlows(t.Context(), storage.FlowQuery{})
	require.NoError(t, err)
	assert.ElementsMatch(t, []storage.Flow{{Record: live}, {Record: ended}}, result.Flows)
	lookups, err := store.QueryLookups(t.Context(), storage.LookupQuery{})
	require.NoError(t, err)
	assert.Equal(t, []flow.Lookup{asked}, lookups.Lookups)
	state, err := store.Status(t.Context())
	require.NoError(t, err)
	require.Len(t, state.Nodes, 1)
	assert.Equal(t, &node, state.Nodes[0].Network)
}

func TestWhatIsNotWritten(t *testing.T) {
	tests := []struct {
		name      string
		change    func(plog.LogRecord)
		malformed bool
	}{
		{"another event name", func(r plog.LogRecord) { r.SetEventName("k8s.event") }, false},
		{"no event name", func(r plog.LogRecord) { r.SetEventName("") }, false},
		{"flow without an address", func(r plog.LogRecord) { r.Attributes().Remove(flow.AttrSourceAddress) }, true},
		{"flow with a bad address", func(r plog.LogRecord) { r.Attributes().PutStr(flow.AttrDestinationAddress, "10.0.0.256") }, true},
		{"flow with a bad transport", func(r plog.LogRecord) { r.Attributes().PutStr(flow.AttrTransport, "quic") }, true},
		{"flow without a direction", func(r plog.LogRecord) { r.Attributes().Remove(flow.AttrDirection) }, true},
		{"event without a kind", func(r plog.LogRecord) { r.SetEventName(flow.EventNameEvent) }, true},
		{"status without an interval", func(r plog.LogRecord) { r.SetEventName(flow.EventNameStatus) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store := &fakeStore{}
			exporter, telemetry := start(t, store)
			logs := plog.NewLogs()
			add := resource(logs)
			bad, good := record(1), record(2)
			spoilt := add()
			bad.PutTo(spoilt)
			tt.change(spoilt)
			good.PutTo(add())

			require.NoError(t, exporter.ConsumeLogs(t.Context(), logs))
			assert.Equal(t, []flow.Record{good}, store.flows, "the rest of the batch is written")
			assert.Empty(t, store.events)
			assert.Empty(t, store.statuses)
			one := []metricdata.DataPoint[int64]{{Value: 1}}
			counted, other := metadatatest.AssertEqualStoreIgnoredRecords, "orb8_store_malformed_records"
			if tt.malformed {
				counted, other = metadatatest.AssertEqualStoreMalformedRecords, "orb8_store_ignored_records"
			}
			counted(t, telemetry, one, metricdatatest.IgnoreTimestamp(), metricdatatest.IgnoreExemplars())
			_, err := telemetry.GetMetric(other)
			assert.Error(t, err, "%s must not be counted", other)
		})
	}
}

func TestMalformedLookup(t *testing.T) {
	store := &fakeStore{}
	exporter, telemetry := start(t, store)
	logs := plog.NewLogs()
	add := resource(logs)
	bad, good := lookup(), lookup()
	spoilt := add()
	bad.PutTo(spoilt)
	spoilt.Attributes().Remove(flow.AttrRCode)
	good.PutTo(add())
	require.NoError(t, exporter.ConsumeLogs(t.Context(), logs))
	assert.Equal(t, []flow.Lookup{good}, store.lookups)
	metadatatest.AssertEqualStoreMalformedRecords(t, telemetry, []metricdata.DataPoint[int64]{{Value: 1}}, metricdatatest.IgnoreTimestamp(), metricdatatest.IgnoreExemplars())
}

// Drops reach the store by the sums in the status: their records are neither stored nor strangers.
func TestDropsAreNotIgnored(t *testing.T) {
	store := &fakeStore{}
	exporter, telemetry := start(t, store)
	logs := plog.NewLogs()
	add := resource(logs)
	d := flow.Drop{Reason: "no_socket", Packets: 3}
	d.PutTo(add())
	s := status()
	s.Drops = map[string]uint64{"no_socket": 3}
	s.PutTo(add())
	require.NoError(t, exporter.ConsumeLogs(t.Context(), logs))
	require.Len(t, store.statuses, 1)
	assert.Equal(t, s.Drops, store.statuses[0].Drops)
	for _, name := range []string{"orb8_store_ignored_records", "orb8_store_malformed_records"} {
		_, err := telemetry.GetMetric(name)
		assert.Error(t, err, "%s must not be counted", name)
	}
}

func TestStatusOfNobody(t *testing.T) {
	store := &fakeStore{}
	exporter, telemetry := start(t, store)
	logs := plog.NewLogs()
	s := status()
	s.PutTo(logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords().AppendEmpty())
	require.NoError(t, exporter.ConsumeLogs(t.Context(), logs))
	assert.Empty(t, store.statuses)
	metadatatest.AssertEqualStoreMalformedRecords(t, telemetry, []metricdata.DataPoint[int64]{{Value: 1}}, metricdatatest.IgnoreTimestamp(), metricdatatest.IgnoreExemplars())
}

func TestLargeBatchIsWrittenInParts(t *testing.T) {
	store := &fakeStore{}
	exporter, _ := start(t, store)
	logs := plog.NewLogs()
	add := resource(logs)
	const n = 3*maxBatch + 1
	for i := range n {
		r := record(uint16(i))
		r.PutTo(add())
		e := flow.Event{Kind: flow.EventFIN, Record: r}
		e.PutTo(add())
	}
	require.NoError(t, exporter.ConsumeLogs(t.Context(), logs))
	require.Len(t, store.flows, n)
	require.Len(t, store.events, n)
	for i := range n {
		require.EqualValues(t, i, store.flows[i].Destination.Addr.Port(), "in order")
		require.EqualValues(t, i, store.events[i].Destination.Addr.Port(), "in order")
	}
	assert.LessOrEqual(t, store.largest, maxBatch)
}

func TestErrorOfTheStore(t *testing.T) {
	boom := errors.New("disk full")
	r, s, l := record(1), status(), lookup()
	e := flow.Event{Kind: flow.EventRST, Record: r}
	for name, put := range map[string]func(plog.LogRecord){"flow": r.PutTo, "event": e.PutTo, "lookup": l.PutTo, "status": s.PutTo} {
		t.Run(name, func(t *testing.T) {
			exporter, _ := start(t, &fakeStore{err: boom})
			logs := plog.NewLogs()
			put(resource(logs)())
			assert.ErrorIs(t, exporter.ConsumeLogs(t.Context(), logs), boom)
		})
	}
}

func TestStartWithoutStorage(t *testing.T) {
	logs, err := NewFactory().CreateLogs(t.Context(), exportertest.NewNopSettings(metadata.Type), createDefaultConfig())
	require.NoError(t, err)
	assert.False(t, logs.Capabilities().MutatesData)
	assert.ErrorContains(t, logs.Start(t.Context(), host{}), `there is no extension "orb8_storage"`)
	assert.NoError(t, logs.Shutdown(t.Context()))
}

func BenchmarkConsume(b *testing.B) {
	e, err := newStoreExporter(componenttest.NewNopTelemetrySettings(), createDefaultConfig().(*Config))
	require.NoError(b, err)
	require.NoError(b, e.start(b.Context(), host{e.storage: &discard{}}))
	logs := plog.NewLogs()
	add := resource(logs)
	const n = 1000
	for i := range n {
		r := record(uint16(i))
		r.PutTo(add())
	}
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, e.consume(b.Context(), logs))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/record")
}

type discard struct{ fakeStore }

func (*discard) WriteFlows(context.Context, []flow.Record) error { return nil }
