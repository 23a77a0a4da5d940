package ebpfnetworkreceiver

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/metadata"
)

// maxBatch is how many log records go down the pipeline in one piece.
const maxBatch = 1024

// batch gathers log records, those of one cgroup under one resource.
type batch struct {
	version string
	logs    plog.Logs
	scopes  map[uint64]plog.ScopeLogs
	records int
	// packets are those of its flow records: what is lost if the pipeline refuses it.
	packets, bytes uint64
}

func newBatch(version string) *batch {
	b := &batch{version: version}
	b.reset()
	return b
}

func (b *batch) reset() {
	b.logs = plog.NewLogs()
	b.scopes = map[uint64]plog.ScopeLogs{}
	b.records, b.packets, b.bytes = 0, 0, 0
}

func (b *batch) addFlow(r *flow.Record) {
	r.PutTo(b.next(r.Local().Identity.CgroupID))
	b.packets += r.Packets
	b.bytes += r.Bytes
}

func (b *batch) addEvent(e *flow.Event) { e.PutTo(b.next(e.Local().Identity.CgroupID)) }

func (b *batch) addLookup(l *flow.Lookup) { l.PutTo(b.next(l.Local().Identity.CgroupID)) }

func (b *batch) addDrop(d *flow.Drop) { d.PutTo(b.next(d.CgroupID)) }

func (b *batch) addStatus(s *flow.NetworkStatus) { s.PutTo(b.next(0)) }

// next appends an empty log record under the resource of a cgroup; 0 is the node itself.
func (b *batch) next(cgroupID uint64) plog.LogRecord {
	scope, ok := b.scopes[cgroupID]
	if !ok {
		rl := b.logs.ResourceLogs().AppendEmpty()
		if cgroupID != 0 {
			rl.Resource().Attributes().PutInt(flow.AttrCgroupID, int64(cgroupID))
		}
		scope = rl.ScopeLogs().AppendEmpty()
		scope.Scope().SetName(metadata.ScopeName)
		scope.Scope().SetVersion(b.version)
		b.scopes[cgroupID] = scope
	}
	b.records++
	return scope.LogRecords().AppendEmpty()
}

// recordSeries hands the series of the tracker to the metrics builder, those of one cgroup under one resource.
func recordSeries(t *tracker, mb *metadata.MetricsBuilder, now pcommon.Timestamp) {
	type resource struct {
		keys  []seriesKey
		start pcommon.Timestamp
	}
	byCgroup := map[uint64]*resource{}
	for k, s := range t.series {
		r := byCgroup[k.cgroupID]
		start := pcommon.NewTimestampFromTime(s.start)
		if r == nil {
			r = &resource{start: start}
			byCgroup[k.cgroupID] = r
		}
		r.keys = append(r.keys, k)
		r.start = min(r.start, start)
	}
	for id, r := range byCgroup {
		for _, k := range r.keys {
			recordPoint(t, mb, now, k)
		}
		rb := mb.NewResourceBuilder()
		if id != 0 {
			rb.SetOrb8CgroupID(int64(id))
		}
		mb.EmitForResource(metadata.WithResource(rb.Emit()), metadata.WithStartTimeOverride(r.start))
	}
}

func recordPoint(t *tracker, mb *metadata.MetricsBuilder, now pcommon.Timestamp, k seriesKey) {
	s := t.series[k]
	direction := metadata.MapAttributeOrb8FlowDirection[flow.Direction(k.direction).String()]
	network := metadata.AttributeNetworkTypeIpv6
	if k.ipv4 {
		network = metadata.AttributeNetworkTypeIpv4
	}
	transport := flow.Transport(k.transport).String()
	mb.RecordOrb8NetworkFlowIoDataPoint(now, int64(s.bytes), direction, transport, network)
	mb.RecordOrb8NetworkFlowPacketsDataPoint(now, int64(s.packets), direction, transport, network)
	mb.RecordOrb8NetworkConnectionsDataPoint(now, int64(s.connections), direction, transport, network)
}
