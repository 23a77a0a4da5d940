package ebpfnetworkreceiver

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/processor/processortest"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/kernelclock"
	"github.com/orb8/orb8/processor/podenrichmentprocessor"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/engine"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/metadata"
)

// newTestReceiver returns a receiver without an engine.
func newTestReceiver(t testing.TB, logs consumer.Logs) *networkReceiver {
	t.Helper()
	cfg := createDefaultConfig().(*Config)
	r, err := newNetworkReceiver(receivertest.NewNopSettings(metadata.Type), cfg)
	require.NoError(t, err)
	r.logs = logs
	r.tracker = newTracker(cfg, recorder{}, r.emitFlow)
	r.newcomers.flows = r.tracker.flows
	return r
}

func TestKindsOfEvents(t *testing.T) {
	sink := &consumertest.LogsSink{}
	r := newTestReceiver(t, sink)
	ev := r.newEvents()
	now := uint64(kernelclock.Now())
	for kind := network.NetworkEventKindEVENT_NEW; kind <= network.NetworkEventKindEVENT_PACKET; kind++ {
		if kind == network.NetworkEventKindEVENT_DNS {
			continue // a lookup: see lookups_linux_test.go
		}
		ev.observe(&network.NetworkEvent{Key: udpOut, Kind: uint32(kind), Flow: network.NetworkFlow{Packets: 1, FirstNs: now, LastNs: now}},
			engine.Payload{})
	}
	r.flushEvents()
	var kinds []flow.EventKind
	eachLog(sink, flow.EventNameEvent, func(res plog.ResourceLogs, lr plog.LogRecord) {
		e, err := flow.EventFrom(res.Resource(), lr)
		require.NoError(t, err)
		kinds = append(kinds, e.Kind)
		assert.WithinDuration(t, time.Now(), e.End, time.Minute)
	})
	assert.Equal(t, []flow.EventKind{flow.EventNew, flow.EventSYN, flow.EventFIN, flow.EventRST, flow.EventPacket}, kinds)
	assert.Equal(t, 1, r.overflow.len(), "overflow is a count, no event")
	select {
	case <-r.pressure:
	default:
		assert.Fail(t, "pressure asks for a flip")
	}
}

// BenchmarkEvents is an event's way from the ring buffer's memory through pod_enrichment to an exporter that does nothing.
func BenchmarkEvents(b *testing.B) {
	enrich, err := podenrichmentprocessor.NewFactory().CreateLogs(b.Context(), processortest.NewNopSettings(component.MustNewType("pod_enrichment")),
		podenrichmentprocessor.NewFactory().CreateDefaultConfig(), consumertest.NewNop())
	require.NoError(b, err)
	require.NoError(b, enrich.Start(b.Context(), componenttest.NewNopHost()))
	defer func() { require.NoError(b, enrich.Shutdown(b.Context())) }()
	r := newTestReceiver(b, enrich)
	ev := r.newEvents()
	e := network.NetworkEvent{Key: tcpOut, Kind: uint32(network.NetworkEventKindEVENT_SYN), Flow: network.NetworkFlow{
		Packets: 1, Bytes: 60, FirstNs: uint64(kernelclock.Now()), CgroupId: 1, Pid: 1, Comm: comm("nginx"),
	}}
	b.ReportAllocs()
	for b.Loop() {
		ev.observe(&e, engine.Payload{})
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
