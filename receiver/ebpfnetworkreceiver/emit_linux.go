package ebpfnetworkreceiver

import (
	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/orb8/orb8/internal/cgrouplogs"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/metadata"
)

// maxBatch is how many log records go down the pipeline in one piece.
const maxBatch = 1024

// batch gathers log records.
type batch struct {
	cgrouplogs.Batch
	// packets are those of its flow records: what is lost if the pipeline refuses it.
	packets, bytes uint64
}

func newBatch(version string) *batch {
	return &batch{Batch: cgrouplogs.New(metadata.ScopeName, version)}
}

func (b *batch) addFlow(r *flow.Record) {
	r.PutTo(b.Next(r.Local().Identity.CgroupID))
	b.packets += r.Packets
	b.bytes += r.Bytes
}

func (b *batch) addEvent(e *flow.Event) { e.PutTo(b.Next(e.Local().Identity.CgroupID)) }

func (b *batch) addLookup(l *flow.Lookup) { l.PutTo(b.Next(l.Local().Identity.CgroupID)) }

func (b *batch) addDrop(d *flow.Drop) { d.PutTo(b.Next(d.CgroupID)) }

func (b *batch) addStatus(s *flow.NetworkStatus) { s.PutTo(b.Next(0)) }

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
