package flowmetricsconnector

import (
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// otherName is the workload of what is folded.
const otherName = "other"

// series are the sums of one key.
type series struct {
	start  pcommon.Timestamp
	last   time.Time
	counts counts
}

// table keeps the series. Its size is bounded: a new key that finds it full is folded into the one whose workloads are
// otherName, which is kept for each direction and transport on top of the bound. It is not safe for concurrent use.
type table struct {
	max                                       int
	expiry                                    time.Duration
	source, destination, direction, transport bool

	series map[key]*series
	// reported is when the series were last reported, or else when the table was made. A series that is new was without
	// counts until then, and one that comes back has ended by then.
	reported time.Time
	// folded are the keys that found the table full; nil until there is one.
	folded *sketch
}

func newTable(cfg *Config, now time.Time) *table {
	return &table{
		max:         cfg.MaxSeries,
		expiry:      cfg.Expiry,
		source:      slices.Contains(cfg.Dimensions, dimSource),
		destination: slices.Contains(cfg.Dimensions, dimDestination),
		direction:   slices.Contains(cfg.Dimensions, dimDirection),
		transport:   slices.Contains(cfg.Dimensions, dimTransport),
		series:      map[key]*series{},
		reported:    now,
	}
}

// add adds to the series of a key.
func (t *table) add(k key, n *counts, now time.Time) {
	t.project(&k)
	s, ok := t.series[k]
	if !ok {
		s = t.admit(k)
	}
	s.last = now
	for i, v := range n {
		s.counts[i] += v
	}
}

// project clears the dimensions that are not asked for.
func (t *table) project(k *key) {
	if !t.source {
		k.source = workload{}
	}
	if !t.destination {
		k.destination = workload{}
	}
	if !t.direction {
		k.direction = 0
	}
	if !t.transport {
		k.transport = 0
	}
}

// admit returns the series of a key that has none yet: a new one, or that of the others.
func (t *table) admit(k key) *series {
	if len(t.series) >= t.max {
		if t.folded == nil {
			t.folded = newSketch()
		}
		t.folded.add(&k)
		k.source, k.destination = workload{name: otherName}, workload{name: otherName}
		t.project(&k)
		if s, ok := t.series[k]; ok {
			return s
		}
	}
	s := &series{start: pcommon.NewTimestampFromTime(t.reported)}
	t.series[k] = s
	return s
}

// foldedKeys returns how many different keys were folded, about.
func (t *table) foldedKeys() int64 {
	if t.folded == nil {
		return 0
	}
	return t.folded.estimate()
}

// report writes every series, and then forgets those that have had no flow record for longer than the expiry.
func (t *table) report(metrics pmetric.MetricSlice, now time.Time) {
	w := newWriter(metrics, t, now)
	for k, s := range t.series {
		w.write(&k, s)
		if now.Sub(s.last) > t.expiry {
			delete(t.series, k)
		}
	}
	w.finish()
	t.reported = now
}
