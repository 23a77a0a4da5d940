package ebpfnetworkreceiver

import (
	"fmt"
	"maps"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/engine"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/metadata"
)

// dropCounter adds up what the kernel dropped. Without a source nothing was.
type dropCounter struct {
	source *engine.Drops
	// totals are packets by reason since the start.
	totals map[string]uint64
	series map[dropSeriesKey]*dropSeries
	// until is the end of the last interval.
	until time.Time
}

// dropSeriesKey is the identity of a metric's data points.
type dropSeriesKey struct {
	cgroupID  uint64
	reason    string
	transport string // empty when it is not known
}

// dropSeries adds up since start, and ends when it has been silent for seriesTimeout.
type dropSeries struct {
	packets     uint64
	start, last time.Time
}

func newDropCounter(source *engine.Drops, now time.Time) *dropCounter {
	return &dropCounter{source: source, totals: map[string]uint64{}, series: map[dropSeriesKey]*dropSeries{}, until: now}
}

// collect closes the interval and hands to emit what was dropped in it.
func (c *dropCounter) collect(now time.Time, emit func(*flow.Drop)) error {
	if c.source == nil {
		return nil
	}
	err := c.source.Drain(func(d *flow.Drop) {
		d.Time = now
		c.add(d)
		emit(d)
	})
	c.end(now)
	if err != nil {
		return fmt.Errorf("drops: %w", err)
	}
	return nil
}

// programs are structs of bpf2go; none where drops are not counted.
func (c *dropCounter) programs() []any {
	if c.source == nil {
		return nil
	}
	return c.source.Programs()
}

// end closes an interval: it forgets the series that have been silent for too long.
func (c *dropCounter) end(now time.Time) {
	c.until = now
	maps.DeleteFunc(c.series, func(_ dropSeriesKey, s *dropSeries) bool { return now.Sub(s.last) >= seriesTimeout })
}

func (c *dropCounter) add(d *flow.Drop) {
	c.totals[d.Reason] += d.Packets
	key := dropSeriesKey{cgroupID: d.CgroupID, reason: d.Reason}
	if d.Source.IsValid() {
		key.transport = d.Transport.String()
	}
	s := c.series[key]
	if s == nil {
		s = &dropSeries{start: c.until}
		c.series[key] = s
	}
	s.packets += d.Packets
	s.last = d.Time
}

// record hands the series to the metrics builder, those of one cgroup under one resource.
func (c *dropCounter) record(mb *metadata.MetricsBuilder, now pcommon.Timestamp) {
	byCgroup := map[uint64][]dropSeriesKey{}
	for k := range c.series {
		byCgroup[k.cgroupID] = append(byCgroup[k.cgroupID], k)
	}
	for id, keys := range byCgroup {
		start := now
		for _, k := range keys {
			s := c.series[k]
			start = min(start, pcommon.NewTimestampFromTime(s.start))
			var opts []metadata.MetricAttributeOption
			if k.transport != "" {
				opts = append(opts, metadata.WithDropTransportMetricAttribute(k.transport))
			}
			mb.RecordOrb8NetworkDropsDataPoint(now, int64(s.packets), k.reason, opts...)
		}
		rb := mb.NewResourceBuilder()
		if id != 0 {
			rb.SetOrb8CgroupID(int64(id))
		}
		mb.EmitForResource(metadata.WithResource(rb.Emit()), metadata.WithStartTimeOverride(start))
	}
}

func (c *dropCounter) close() error {
	if c.source == nil {
		return nil
	}
	return c.source.Close()
}
