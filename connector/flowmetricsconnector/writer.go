package flowmetricsconnector

import (
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/orb8/orb8/internal/flow"
)

// Attributes of the metrics, next to those that flow records have too.
const (
	attrSource      = "source.workload"
	attrDestination = "destination.workload"
)

// instrument says what metric a counter is a point of.
type instrument struct {
	name, unit, description string
	// outcome is an attribute of the point; empty for metrics without.
	outcome flow.Outcome
	// always tells that a point is written also while it is 0.
	always bool
}

// instruments are in the order of the counters; those of one metric follow each other.
func instruments() [numCounters]instrument {
	outcome := func(o flow.Outcome) instrument {
		return instrument{
			name: "orb8.workload.connection.outcomes", unit: "{connection}", outcome: o,
			description: "TCP connections that ended, by how, in the direction from client to server.",
		}
	}
	return [numCounters]instrument{
		bytes: {
			name: "orb8.workload.flow.io", unit: "By", always: true,
			description: "Layer-3 bytes as on the wire, IP headers included.",
		},
		packets: {
			name: "orb8.workload.flow.packets", unit: "{packet}", always: true,
			description: "Packets as on the wire.",
		},
		connections: {
			name: "orb8.workload.connections", unit: "{connection}", always: true,
			description: "Connections opened; for TCP initial SYN segments, for the other transports first packets of a flow.",
		},
		retransmits: {
			name: "orb8.workload.tcp.retransmits", unit: "{segment}",
			description: "TCP segments sent again.",
		},
		zeroWindows: {
			name: "orb8.workload.tcp.zero_windows", unit: "{segment}",
			description: "TCP segments whose sender could take no more.",
		},
		closed:   outcome(flow.OutcomeClosed),
		reset:    outcome(flow.OutcomeReset),
		refused:  outcome(flow.OutcomeRefused),
		timedOut: outcome(flow.OutcomeTimeout),
	}
}

// writer writes series as data points.
type writer struct {
	table       *table
	now         pcommon.Timestamp
	metrics     pmetric.MetricSlice
	instruments [numCounters]instrument
	points      [numCounters]pmetric.NumberDataPointSlice
}

func newWriter(metrics pmetric.MetricSlice, t *table, now time.Time) *writer {
	w := &writer{table: t, now: pcommon.NewTimestampFromTime(now), metrics: metrics, instruments: instruments()}
	for i, in := range w.instruments {
		if i > 0 && in.name == w.instruments[i-1].name {
			w.points[i] = w.points[i-1]
			continue
		}
		m := metrics.AppendEmpty()
		m.SetName(in.name)
		m.SetUnit(in.unit)
		m.SetDescription(in.description)
		sum := m.SetEmptySum()
		sum.SetIsMonotonic(true)
		sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		w.points[i] = sum.DataPoints()
		if in.always {
			w.points[i].EnsureCapacity(len(t.series))
		}
	}
	return w
}

func (w *writer) write(k *key, s *series) {
	source, destination := k.source.String(), k.destination.String()
	for i, value := range s.counts {
		in := &w.instruments[i]
		if value == 0 && !in.always {
			continue
		}
		p := w.points[i].AppendEmpty()
		p.SetStartTimestamp(s.start)
		p.SetTimestamp(w.now)
		p.SetIntValue(int64(value))
		a := p.Attributes()
		a.EnsureCapacity(5)
		if w.table.source {
			a.PutStr(attrSource, source)
		}
		if w.table.destination {
			a.PutStr(attrDestination, destination)
		}
		if w.table.direction {
			a.PutStr(flow.AttrDirection, k.direction.String())
		}
		if w.table.transport {
			a.PutStr(flow.AttrTransport, k.transport.String())
		}
		if in.outcome != flow.OutcomeUnknown {
			a.PutStr(flow.AttrOutcome, in.outcome.String())
		}
	}
}

// finish removes the metrics that got no points.
func (w *writer) finish() {
	w.metrics.RemoveIf(func(m pmetric.Metric) bool { return m.Sum().DataPoints().Len() == 0 })
}
