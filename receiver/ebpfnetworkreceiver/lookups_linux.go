package ebpfnetworkreceiver

import (
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/kernelclock"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/dns"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/engine"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/metadata"
)

// lookupCounter turns DNS packets into lookups, and adds up the metrics.
type lookupCounter struct {
	watcher *dns.Watcher

	mu     sync.Mutex
	series map[lookupSeriesKey]*lookupSeries
}

// lookupSeriesKey is the identity of a metric's data points.
type lookupSeriesKey struct {
	cgroupID        uint64
	direction       flow.Direction
	question, rcode string
}

// lookupSeries adds up since start, and ends when it has been silent for seriesTimeout.
type lookupSeries struct {
	count       int64
	duration    time.Duration
	start, last time.Time
}

func newLookupCounter(timeout time.Duration) *lookupCounter {
	var clock kernelclock.Follower
	return &lookupCounter{
		watcher: dns.New(timeout, func(ns int64) time.Time { return clock.At(ns).Wall(ns) }),
		series:  map[lookupSeriesKey]*lookupSeries{},
	}
}

// dnsPacket is what the kernel has captured of a packet.
func (r *networkReceiver) dnsPacket(e *network.NetworkEvent, payload engine.Payload) *dns.Packet {
	p := &dns.Packet{
		Time:        int64(e.Flow.FirstNs),
		Direction:   flow.Direction(e.Key.Direction),
		Transport:   flow.Transport(e.Key.Transport),
		Source:      netip.AddrPortFrom(netip.AddrFrom16(e.Key.Saddr).Unmap(), e.Key.Sport),
		Destination: netip.AddrPortFrom(netip.AddrFrom16(e.Key.Daddr).Unmap(), e.Key.Dport),
		Asker:       dns.Asker{CgroupID: e.Flow.CgroupId},
		Local:       flow.Identity{CgroupID: e.Flow.CgroupId, PID: e.Flow.Pid, Process: commString(&e.Flow.Comm)},
		Seq:         e.Seq,
		Length:      payload.Length,
		Payload:     payload.Captured,
	}
	if r.devices == nil {
		p.Scope = e.Key.Scope
	} else {
		p.Interface = r.interfaceOf(&e.Key)[0]
		p.Asker.Addr = p.Source.Addr()
	}
	return p
}

// observe hands the lookups that a packet ends to emit.
func (c *lookupCounter) observe(p *dns.Packet, emit func(*flow.Lookup)) {
	c.finish(c.watcher.Observe(p), emit)
}

// expire hands the lookups that have waited for too long to emit.
func (c *lookupCounter) expire(emit func(*flow.Lookup)) {
	c.finish(c.watcher.Expire(kernelclock.Now()), emit)
}

func (c *lookupCounter) finish(lookups []flow.Lookup, emit func(*flow.Lookup)) {
	for i := range lookups {
		c.add(&lookups[i], time.Now())
		emit(&lookups[i])
	}
}

func (c *lookupCounter) add(l *flow.Lookup, now time.Time) {
	key := lookupSeriesKey{
		cgroupID: l.Local().Identity.CgroupID, direction: l.Direction,
		question: orOther(l.Type, "TYPE"), rcode: orOther(l.RCode, "RCODE"),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.series[key]
	if s == nil {
		s = &lookupSeries{start: l.Time}
		c.series[key] = s
	}
	s.count++
	s.duration += l.Latency
	s.last = now
}

// orOther keeps a number that anybody may send from making a series.
func orOther(name, numbered string) string {
	if strings.HasPrefix(name, numbered) {
		return "other"
	}
	return name
}

// record hands the series to the metrics builder, those of one cgroup under one resource, and forgets those that have
// been silent for too long.
func (c *lookupCounter) record(mb *metadata.MetricsBuilder, now time.Time) {
	ts := pcommon.NewTimestampFromTime(now)
	c.recordSeries(mb, now, ts)
	counts := c.watcher.Counts()
	mb.RecordOrb8DNSDiscardedDataPoint(ts, int64(counts.Malformed), metadata.AttributeOrb8DNSDiscardReasonMalformed)
	mb.RecordOrb8DNSDiscardedDataPoint(ts, int64(counts.Unmatched), metadata.AttributeOrb8DNSDiscardReasonUnmatched)
	mb.RecordOrb8DNSDiscardedDataPoint(ts, int64(counts.Overflow), metadata.AttributeOrb8DNSDiscardReasonOverflow)
}

func (c *lookupCounter) recordSeries(mb *metadata.MetricsBuilder, now time.Time, ts pcommon.Timestamp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.series, func(_ lookupSeriesKey, s *lookupSeries) bool { return now.Sub(s.last) >= seriesTimeout })
	byCgroup := map[uint64][]lookupSeriesKey{}
	for k := range c.series {
		byCgroup[k.cgroupID] = append(byCgroup[k.cgroupID], k)
	}
	for id, keys := range byCgroup {
		start := ts
		for _, k := range keys {
			s := c.series[k]
			start = min(start, pcommon.NewTimestampFromTime(s.start))
			direction := metadata.AttributeOrb8FlowDirectionEgress
			if k.direction == flow.Ingress {
				direction = metadata.AttributeOrb8FlowDirectionIngress
			}
			mb.RecordOrb8DNSLookupsDataPoint(ts, s.count, direction, k.question, k.rcode)
			mb.RecordOrb8DNSLookupDurationDataPoint(ts, s.duration.Seconds(), direction, k.question, k.rcode)
		}
		rb := mb.NewResourceBuilder()
		if id != 0 {
			rb.SetOrb8CgroupID(int64(id))
		}
		mb.EmitForResource(metadata.WithResource(rb.Emit()), metadata.WithStartTimeOverride(start))
	}
}
