package orb8storageextension

import (
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/extension/extensioncapabilities"
	"go.opentelemetry.io/collector/extension/extensiontest"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/metadata"
	"github.com/orb8/orb8/extension/orb8storageextension/internal/metadatatest"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

type host map[component.ID]component.Component

func (h host) GetExtensions() map[component.ID]component.Component { return h }

func TestGet(t *testing.T) {
	id, other := component.NewID(metadata.Type), component.NewIDWithName(metadata.Type, "other")
	extension := newStorageExtension(componenttest.NewNopTelemetrySettings(), createDefaultConfig().(*Config))
	h := host{id: extension, other: struct{ component.Component }{}}

	store, err := Get(h, id)
	require.NoError(t, err)
	assert.Same(t, extension, store)
	_, err = Get(h, component.MustNewID("nowhere"))
	assert.EqualError(t, err, `storage: there is no extension "nowhere"; configure it under extensions and list it in service::extensions`)
	_, err = Get(h, other)
	assert.EqualError(t, err, `storage: extension "orb8_storage/other" stores nothing of orb8's; name an orb8_storage extension`)
}

func TestReady(t *testing.T) {
	logger, logs := observer.New(zap.WarnLevel)
	set := extensiontest.NewNopSettings(metadata.Type)
	set.Logger = zap.New(logger)
	extension, err := NewFactory().Create(t.Context(), set, createDefaultConfig())
	require.NoError(t, err)
	watcher, ok := extension.(extensioncapabilities.PipelineWatcher)
	require.True(t, ok, "the Collector tells it when all has started")
	require.NoError(t, watcher.Ready())
	assert.Empty(t, logs.All(), "a process may drop what it has in memory of its own file")
	require.NoError(t, watcher.NotReady())
}

func TestStore(t *testing.T) {
	telemetry := componenttest.NewTelemetry()
	defer func() { require.NoError(t, telemetry.Shutdown(t.Context())) }()
	set := extensiontest.NewNopSettings(metadata.Type)
	set.TelemetrySettings = telemetry.NewTelemetrySettings()
	extension, err := NewFactory().Create(t.Context(), set, createDefaultConfig())
	require.NoError(t, err)
	require.NoError(t, extension.Start(t.Context(), componenttest.NewNopHost()))
	store := extension.(storage.Store)

	subscription := store.Subscribe(storage.EventSelection{})
	defer subscription.Close()
	now := time.Now().UTC().Truncate(0)
	record := flow.Record{
		Start: now, End: now, Node: "node-a", Direction: flow.Egress, Transport: flow.TCP, Bytes: 40, Packets: 1,
		Source:      flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:40000")},
		Destination: flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.2:443")},
	}
	require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record}))
	require.NoError(t, store.WriteEvents(t.Context(), []flow.Event{{Kind: flow.EventSYN, Record: record}}))
	require.NoError(t, store.WriteStatus(t.Context(), flow.NetworkStatus{Node: "node-a", Time: now, Interval: time.Minute, LostPackets: 3}))

	for _, kind := range []flow.EventKind{flow.EventFlow, flow.EventSYN} {
		event, dropped, err := subscription.Next(t.Context())
		require.NoError(t, err)
		assert.Equal(t, storage.Event{Flow: &flow.Event{Kind: kind, Record: record}}, event)
		assert.Zero(t, dropped)
	}
	result, err := store.QueryFlows(t.Context(), storage.FlowQuery{})
	require.NoError(t, err)
	assert.Equal(t, []storage.Flow{{Record: record}}, result.Flows, "events are not stored")
	assert.EqualValues(t, 3, result.Lost.Packets)
	status, err := store.Status(t.Context())
	require.NoError(t, err)
	require.Len(t, status.Nodes, 1)
	assert.Equal(t, "node-a", status.Nodes[0].Node)
	assert.False(t, status.Nodes[0].Missing)
	assert.EqualValues(t, 1, status.Store.Records)
	assert.Equal(t, 1, status.Store.Subscribers)

	point := func(v int64) []metricdata.DataPoint[int64] { return []metricdata.DataPoint[int64]{{Value: v}} }
	metadatatest.AssertEqualStorageRecords(t, telemetry, point(1), metricdatatest.IgnoreTimestamp())
	metadatatest.AssertEqualStorageSize(t, telemetry, point(int64(status.Store.Bytes)), metricdatatest.IgnoreTimestamp())
	metadatatest.AssertEqualStorageEvictedRecords(t, telemetry, point(0), metricdatatest.IgnoreTimestamp())
	metadatatest.AssertEqualStorageSubscriberDrops(t, telemetry, point(0), metricdatatest.IgnoreTimestamp())

	require.NoError(t, extension.Shutdown(t.Context()))
	_, err = telemetry.GetMetric("orb8_storage_records")
	assert.Error(t, err, "a store that was shut down is observed no more")
}

// reporter is a host that keeps the statuses of its components.
type reporter struct {
	host
	statuses []componentstatus.Status
}

func (r *reporter) Report(event *componentstatus.Event) {
	r.statuses = append(r.statuses, event.Status())
}

func TestAFullDiskIsAStatus(t *testing.T) {
	e := newStorageExtension(componenttest.NewNopTelemetrySettings(), createDefaultConfig().(*Config))
	r := &reporter{}
	e.report(r, "The store takes no records", syscall.ENOSPC)
	e.report(r, "The store takes no records", nil)
	assert.Equal(t, []componentstatus.Status{componentstatus.StatusRecoverableError, componentstatus.StatusOK}, r.statuses)
}

func TestDependencies(t *testing.T) {
	for backend, want := range map[string][]component.ID{
		"embedded": nil, "victorialogs": {component.MustNewIDWithName("basicauth", "logs")}, "loki": {component.MustNewIDWithName("basicauth", "logs")},
	} {
		config := createDefaultConfig().(*Config)
		if want != nil {
			require.NoError(t, confmap.NewFromStringMap(map[string]any{backend: map[string]any{
				"endpoint": "https://logs.example", "auth": map[string]any{"authenticator": "basicauth/logs"},
			}}).Unmarshal(config))
		}
		e := newStorageExtension(componenttest.NewNopTelemetrySettings(), config)
		assert.Equal(t, want, e.Dependencies(), backend)
	}
}
