package gpu

import (
	"errors"
	"math"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/orb8/orb8/internal/flow"
)

var (
	started = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	scraped = started.Add(time.Minute)
)

// metric returns one with a data point of each of the attributes.
func metric(t *testing.T, name, unit string, kind pmetric.MetricType, attributes ...map[string]any) pmetric.Metric {
	t.Helper()
	m := pmetric.NewMetric()
	m.SetName(name)
	m.SetUnit(unit)
	var add func() pmetric.NumberDataPoint
	switch kind {
	case pmetric.MetricTypeGauge:
		add = m.SetEmptyGauge().DataPoints().AppendEmpty
	case pmetric.MetricTypeSum:
		m.SetEmptySum().SetIsMonotonic(true)
		add = m.Sum().DataPoints().AppendEmpty
	default:
		t.Fatalf("%s is not made here", kind)
	}
	for _, a := range attributes {
		p := add()
		p.SetTimestamp(pcommon.NewTimestampFromTime(scraped))
		p.SetStartTimestamp(pcommon.NewTimestampFromTime(started))
		p.SetDoubleValue(0.5)
		require.NoError(t, p.Attributes().FromRaw(a))
	}
	return m
}

func resource(t *testing.T, attributes map[string]any) *Reader {
	t.Helper()
	r := pcommon.NewResource()
	require.NoError(t, r.Attributes().FromRaw(attributes))
	return NewReader(r)
}

func read(r *Reader, m pmetric.Metric) (samples []Sample, err error) {
	for s, e := range r.Read(m) {
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		samples = append(samples, s)
	}
	return samples, err
}

var device = map[string]any{
	"hw.id": "MIG-1", "hw.type": "gpu", "hw.vendor": "NVIDIA", "hw.name": "the first", "hw.model": "NVIDIA H100", "hw.parent": "GPU-0",
	"gpu.index": 3, "gpu.pci.bdf": "00000000:17:00.0", "gpu.mig.profile": "1g.10gb",
}

func with(more map[string]any) map[string]any {
	all := map[string]any{}
	for _, from := range []map[string]any{device, more} {
		for k, v := range from {
			all[k] = v
		}
	}
	return all
}

var wantDevice = Device{ID: "MIG-1", Parent: "GPU-0", Index: 3, Model: "NVIDIA H100", PCIAddress: "00000000:17:00.0", MIGProfile: "1g.10gb"}

func TestReadADevicesMetrics(t *testing.T) {
	node := resource(t, map[string]any{"k8s.node.name": "node-a", "host.name": "a.example"})
	level := Sample{
		Series: Series{
			Node: "node-a", Device: wantDevice, Metric: "hw.gpu.utilization", Unit: "1", Attributes: "hw.gpu.task=general,slice=2",
		},
		Time: scraped, Value: 0.5,
	}
	samples, err := read(node, metric(t, "hw.gpu.utilization", "1", pmetric.MetricTypeGauge, with(map[string]any{"slice": 2, "hw.gpu.task": "general"})))
	require.NoError(t, err)
	require.Equal(t, []Sample{level}, samples, "a level has no start")
	assert.True(t, samples[0].Own())

	counter := Sample{Series: Series{Node: "node-a", Device: wantDevice, Metric: "hw.energy", Unit: "J", Counter: true}, Time: scraped, Start: started, Value: 0.5}
	energy := metric(t, "hw.energy", "J", pmetric.MetricTypeSum, device)
	samples, err = read(node, energy)
	require.NoError(t, err)
	assert.Equal(t, []Sample{counter}, samples)

	energy.Sum().DataPoints().At(0).SetIntValue(7)
	energy.Sum().DataPoints().At(0).SetStartTimestamp(0)
	counter.Value, counter.Start = 7, time.Time{}
	samples, err = read(node, energy)
	require.NoError(t, err)
	assert.Equal(t, []Sample{counter}, samples, "a start that is not known is none")

	energy.Sum().SetIsMonotonic(false)
	samples, err = read(node, energy)
	require.NoError(t, err)
	assert.False(t, samples[0].Counter)
}

func TestReadAContainersMetrics(t *testing.T) {
	pod := resource(t, map[string]any{
		"host.name": "a.example", "k8s.pod.name": "train-0", "k8s.namespace.name": "ml", "k8s.container.name": "main", "hw.id": "GPU-0", "gpu.index": "1",
	})
	samples, err := read(pod, metric(t, "gpu.process.memory.usage", "By", pmetric.MetricTypeGauge, map[string]any{}, map[string]any{"hw.id": "GPU-9"}))
	require.NoError(t, err)
	who := flow.Identity{Pod: "train-0", Namespace: "ml", Container: "main"}
	want := Sample{Series: Series{Node: "a.example", Device: Device{ID: "GPU-0", Index: 1}, Identity: who, Metric: "gpu.process.memory.usage", Unit: "By"}, Time: scraped, Value: 0.5}
	other := want
	other.Device.ID = "GPU-9"
	assert.Equal(t, []Sample{want, other}, samples, "a data point knows better than its resource")
	assert.False(t, samples[0].Own())

	anywhere := resource(t, map[string]any{"k8s.node.name": "node-a", "orb8.cgroup.id": 7})
	samples, err = read(anywhere, metric(t, "gpu.cuda.kernel.launch.calls", "{call}", pmetric.MetricTypeSum, map[string]any{}))
	require.NoError(t, err)
	require.Len(t, samples, 1, "who calls CUDA is known, on which device is not")
	assert.EqualValues(t, 7, samples[0].Identity.CgroupID)
}

func TestReadHistograms(t *testing.T) {
	pod := resource(t, map[string]any{"k8s.node.name": "node-a", "k8s.pod.name": "train-0"})
	m := pmetric.NewMetric()
	m.SetName("gpu.cuda.synchronize.duration")
	m.SetUnit("s")
	p := m.SetEmptyHistogram().DataPoints().AppendEmpty()
	p.SetTimestamp(pcommon.NewTimestampFromTime(scraped))
	p.SetStartTimestamp(pcommon.NewTimestampFromTime(started))
	p.SetCount(3)
	p.SetSum(1.5)
	want := []Sample{{
		Series: Series{Node: "node-a", Identity: flow.Identity{Pod: "train-0"}, Metric: "gpu.cuda.synchronize.duration", Unit: "s", Counter: true},
		Time:   scraped, Start: started, Value: 1.5,
	}}
	samples, err := read(pod, m)
	require.NoError(t, err)
	assert.Equal(t, want, samples)

	p.RemoveSum()
	_, err = read(pod, m)
	assert.EqualError(t, err, "metric gpu.cuda.synchronize.duration: a histogram has no sum")

	e := m.SetEmptyExponentialHistogram().DataPoints().AppendEmpty()
	e.SetTimestamp(pcommon.NewTimestampFromTime(scraped))
	e.SetStartTimestamp(pcommon.NewTimestampFromTime(started))
	e.SetSum(1.5)
	samples, err = read(pod, m)
	require.NoError(t, err)
	assert.Equal(t, want, samples)
}

func TestReadWhatIsNoGPUs(t *testing.T) {
	node := resource(t, map[string]any{"k8s.node.name": "node-a"})
	fan := metric(t, "hw.power", "W", pmetric.MetricTypeGauge, map[string]any{"hw.id": "fan-1", "hw.type": "fan"}, device)
	samples, err := read(node, fan)
	assert.Equal(t, ErrForeign.Error(), err.Error())
	assert.Len(t, samples, 1, "only the GPU's")
	samples, err = read(resource(t, map[string]any{"k8s.node.name": "node-a", "hw.type": "gpu", "hw.id": "GPU-0"}),
		metric(t, "hw.power", "W", pmetric.MetricTypeGauge, map[string]any{}))
	require.NoError(t, err, "the resource is a GPU")
	assert.Len(t, samples, 1)
	_, err = read(node, metric(t, "orb8.network.bytes", "By", pmetric.MetricTypeSum, map[string]any{}))
	assert.ErrorIs(t, err, ErrForeign)
	m := pmetric.NewMetric()
	m.SetName("rpc.duration")
	m.SetEmptySummary().DataPoints().AppendEmpty()
	_, err = read(node, m)
	assert.Equal(t, ErrForeign.Error(), err.Error())
	m.SetEmptyHistogram().DataPoints().AppendEmpty()
	_, err = read(node, m)
	assert.Equal(t, ErrForeign.Error(), err.Error())
	samples, err = read(node, pmetric.NewMetric())
	assert.NoError(t, err)
	assert.Empty(t, samples)
}

func TestReadNamesWhatIsWrong(t *testing.T) {
	node := map[string]any{"k8s.node.name": "node-a"}
	level := func(t *testing.T, a map[string]any) pmetric.Metric {
		return metric(t, "hw.gpu.utilization", "1", pmetric.MetricTypeGauge, a)
	}
	number := func(t *testing.T, value float64) pmetric.Metric {
		m := level(t, device)
		m.Gauge().DataPoints().At(0).SetDoubleValue(value)
		return m
	}
	timeless := level(t, device)
	timeless.Gauge().DataPoints().At(0).SetTimestamp(0)
	summary := pmetric.NewMetric()
	summary.SetName("gpu.cuda.synchronize.duration")
	summary.SetEmptySummary().DataPoints().AppendEmpty()
	for want, tt := range map[string]struct {
		resource map[string]any
		metric   pmetric.Metric
	}{
		"metric hw.gpu.utilization: resource attribute k8s.node.name: missing":                                 {nil, level(t, device)},
		"metric hw.gpu.utilization: attribute hw.id: missing, and the resource is no container":                {node, level(t, map[string]any{"gpu.index": 0})},
		`metric hw.gpu.utilization: attribute gpu.index: "first" is not the number of a GPU`:                   {node, level(t, with(map[string]any{"gpu.index": "first"}))},
		`metric hw.gpu.utilization: attribute gpu.index: "-1" is not the number of a GPU`:                      {map[string]any{"gpu.index": -1}, level(t, device)},
		"metric hw.gpu.utilization: a data point has no time":                                                  {node, timeless},
		"metric hw.gpu.utilization: NaN is no value":                                                           {node, number(t, math.NaN())},
		"metric hw.gpu.utilization: +Inf is no value":                                                          {node, number(t, math.Inf(1))},
		"metric gpu.cuda.synchronize.duration: a summary cannot be stored; send a gauge, a sum or a histogram": {node, summary},
	} {
		samples, err := read(resource(t, tt.resource), tt.metric)
		assert.EqualError(t, err, want)
		assert.Empty(t, samples)
	}
	stale := level(t, device)
	stale.Gauge().DataPoints().At(0).SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
	samples, err := read(resource(t, node), stale)
	assert.NoError(t, err, "that there is no value is not an error")
	assert.Empty(t, samples)
}

func TestReadMakesTextValid(t *testing.T) {
	node := resource(t, map[string]any{"k8s.node.name": "node\xff"})
	samples, err := read(node, metric(t, "gpu.\xff", "\xff", pmetric.MetricTypeGauge, map[string]any{"hw.id": "\xff", "hw.model": "\xff", "a\xff": "\xff"}))
	require.NoError(t, err)
	assert.Equal(t, Series{
		Node: "node\uFFFD", Device: Device{ID: "\uFFFD", Model: "\uFFFD"}, Metric: "gpu.\uFFFD", Unit: "\uFFFD", Attributes: "a\uFFFD=\uFFFD",
	}, samples[0].Series)
}

// Whoever may send metrics may send any: no sample lacks what the store needs.
func FuzzRead(f *testing.F) {
	metrics := pmetric.NewMetrics()
	rm := metrics.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("k8s.node.name", "node-a")
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("hw.gpu.utilization")
	p := m.SetEmptyGauge().DataPoints().AppendEmpty()
	p.SetTimestamp(1)
	if err := p.Attributes().FromRaw(device); err != nil {
		f.Fatal(err)
	}
	seed, err := (&pmetric.ProtoMarshaler{}).MarshalMetrics(metrics)
	require.NoError(f, err)
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		metrics, err := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(data)
		if err != nil {
			return
		}
		for _, resource := range metrics.ResourceMetrics().All() {
			r := NewReader(resource.Resource())
			for _, scope := range resource.ScopeMetrics().All() {
				for _, m := range scope.Metrics().All() {
					for s, err := range r.Read(m) {
						if err != nil {
							continue
						}
						require.NotEmpty(t, s.Node)
						require.False(t, s.Own() && s.Device.ID == "")
						require.False(t, s.Time.IsZero() || math.IsNaN(s.Value))
						_, err := ParseAttributes(s.Attributes)
						require.NoError(t, err)
						for _, text := range []string{s.Node, s.Device.ID, s.Device.Parent, s.Device.Model, s.Metric, s.Unit, s.Attributes} {
							require.True(t, utf8.ValidString(text))
						}
					}
				}
			}
		}
	})
}
