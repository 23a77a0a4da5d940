package flowmetricsconnector

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/orb8/orb8/internal/flow"
)

var began = time.Unix(1000, 0).UTC()

func tableOf(change func(*Config)) *table {
	cfg := createDefaultConfig().(*Config)
	change(cfg)
	return newTable(cfg, began)
}

func other(d flow.Direction, transport flow.Transport) key {
	return key{workload{name: "other"}, workload{name: "other"}, d, transport}
}

// reported makes a report and returns its byte counts.
func reported(t *table, now time.Time) pmetric.NumberDataPointSlice {
	metrics := pmetric.NewMetricSlice()
	t.report(metrics, now)
	if metrics.Len() == 0 {
		return pmetric.NewNumberDataPointSlice()
	}
	return metrics.At(0).Sum().DataPoints()
}

func TestSeriesAreSummed(t *testing.T) {
	tab := tableOf(func(*Config) {})
	tab.add(numbered(1), &counts{bytes: 100, refused: 1}, began)
	tab.add(numbered(2), &counts{bytes: 7}, began)
	tab.add(numbered(1), &counts{bytes: 50, timedOut: 2}, began)
	require.Len(t, tab.series, 2)
	assert.Equal(t, counts{bytes: 150, refused: 1, timedOut: 2}, tab.series[numbered(1)].counts)
	assert.Equal(t, counts{bytes: 7}, tab.series[numbered(2)].counts)
	assert.Zero(t, tab.foldedKeys())
}

func TestOnlyTheDimensionsTellSeriesApart(t *testing.T) {
	in := key{workload{"shop", "web"}, workload{name: "private"}, flow.Ingress, flow.UDP}
	for name, test := range map[string]struct {
		dimensions []string
		want       key
	}{
		"source":      {[]string{dimSource}, key{source: in.source}},
		"destination": {[]string{dimDestination}, key{destination: in.destination}},
		"direction":   {[]string{dimDirection}, key{direction: in.direction}},
		"transport":   {[]string{dimTransport}, key{transport: in.transport}},
		"all":         {allDimensions(), in},
	} {
		t.Run(name, func(t *testing.T) {
			tab := tableOf(func(c *Config) { c.Dimensions = test.dimensions })
			tab.add(in, &counts{bytes: 1}, began)
			require.Len(t, tab.series, 1)
			assert.Contains(t, tab.series, test.want)
			p := reported(tab, began.Add(time.Second)).At(0)
			assert.Equal(t, len(test.dimensions), p.Attributes().Len(), "attributes of the others")
		})
	}
}

func TestKeysBeyondTheBoundAreFolded(t *testing.T) {
	tab := tableOf(func(c *Config) { c.MaxSeries = 2 })
	for i := range 10 {
		tab.add(numbered(i), &counts{bytes: 1, packets: uint64(i)}, began)
	}
	udp := numbered(20)
	udp.transport = flow.UDP
	tab.add(udp, &counts{bytes: 1}, began)
	tab.add(numbered(0), &counts{bytes: 1}, began)

	require.Len(t, tab.series, 4, "two, and the others of two transports")
	assert.Equal(t, counts{bytes: 2}, tab.series[numbered(0)].counts, "what has a series keeps it")
	assert.Equal(t, counts{bytes: 8, packets: 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9}, tab.series[other(flow.Egress, flow.TCP)].counts)
	assert.Equal(t, counts{bytes: 1}, tab.series[other(flow.Egress, flow.UDP)].counts)
	assert.InDelta(t, 9, tab.foldedKeys(), 1)
}

func TestFoldingKeepsToTheDimensions(t *testing.T) {
	tab := tableOf(func(c *Config) { c.MaxSeries, c.Dimensions = 1, []string{dimDestination} })
	for _, name := range []string{"a", "b", "c"} {
		tab.add(key{destination: workload{name: name}}, &counts{bytes: 1}, began)
	}
	require.Len(t, tab.series, 2)
	assert.Contains(t, tab.series, key{destination: workload{name: "other"}})
}

// A workload that is called so is nobody else's business: it makes no second series of the same attributes.
func TestWorkloadsNamedOther(t *testing.T) {
	tab := tableOf(func(c *Config) { c.MaxSeries = 1 })
	tab.add(other(flow.Egress, flow.TCP), &counts{bytes: 1}, began)
	tab.add(numbered(1), &counts{bytes: 2}, began)
	require.Len(t, tab.series, 1)
	assert.EqualValues(t, 3, tab.series[other(flow.Egress, flow.TCP)].counts[bytes])
}

func TestIdleSeriesExpireAndMakeRoom(t *testing.T) {
	tab := tableOf(func(c *Config) { c.MaxSeries, c.Expiry = 1, time.Minute })
	tab.add(numbered(1), &counts{bytes: 5}, began)
	at := began.Add(time.Minute)
	assert.Equal(t, 1, reported(tab, at).Len())
	assert.Len(t, tab.series, 1, "not idle for longer than the expiry")

	at = at.Add(time.Second)
	last := reported(tab, at)
	require.Equal(t, 1, last.Len(), "reported a last time")
	assert.EqualValues(t, 5, last.At(0).IntValue())
	assert.Empty(t, tab.series)
	assert.Zero(t, reported(tab, at.Add(time.Second)).Len(), "nothing is left to report")

	tab.add(numbered(2), &counts{bytes: 1}, at)
	assert.Contains(t, tab.series, numbered(2), "has its room")
}

func TestASeriesThatComesBackStartsAnew(t *testing.T) {
	tab := tableOf(func(c *Config) { c.Expiry = time.Minute })
	tab.add(numbered(1), &counts{bytes: 5}, began)
	first := reported(tab, began.Add(10*time.Second)).At(0)
	assert.Equal(t, began, first.StartTimestamp().AsTime(), "the table's beginning")

	ended := began.Add(2 * time.Minute)
	last := reported(tab, ended).At(0)
	assert.Equal(t, first.StartTimestamp(), last.StartTimestamp())

	tab.add(numbered(1), &counts{bytes: 3}, ended.Add(5*time.Second))
	again := reported(tab, ended.Add(10*time.Second)).At(0)
	assert.EqualValues(t, 3, again.IntValue())
	assert.Equal(t, ended, again.StartTimestamp().AsTime(), "when it was not there yet")
	assert.GreaterOrEqual(t, again.StartTimestamp(), last.Timestamp(), "the two do not overlap")
	assert.Equal(t, pcommon.NewTimestampFromTime(ended.Add(10*time.Second)), again.Timestamp())
}

// However late the report: what was added is reported before it is forgotten.
func TestNothingExpiresUnreported(t *testing.T) {
	tab := tableOf(func(c *Config) { c.Expiry = c.Interval })
	tab.add(numbered(1), &counts{bytes: 5}, began)
	points := reported(tab, began.Add(time.Hour))
	require.Equal(t, 1, points.Len())
	assert.EqualValues(t, 5, points.At(0).IntValue())
}

// A million different keys take the memory of the bound, and every byte of theirs is in some series.
func TestAMillionKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second")
	}
	const keys = 1_000_000
	tab := tableOf(func(*Config) {})
	var want counts
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range keys {
		n := counts{bytes: uint64(i), packets: 1, connections: uint64(i % 2), refused: uint64(i % 3)}
		tab.add(numbered(i), &n, began)
		for c, v := range n {
			want[c] += v
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	assert.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(16<<20))

	assert.Len(t, tab.series, 10_000+1)
	var got counts
	for _, s := range tab.series {
		for c, v := range s.counts {
			got[c] += v
		}
	}
	assert.Equal(t, want, got)
	assert.InDelta(t, keys-10_000, tab.foldedKeys(), 0.05*keys)
	runtime.KeepAlive(tab)
}
