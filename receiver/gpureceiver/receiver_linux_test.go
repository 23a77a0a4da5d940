package gpureceiver

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"go.opentelemetry.io/collector/scraper/scrapererror"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/metadata"
)

// statusHost keeps the statuses that a component reports.
type statusHost struct {
	component.Host
	events []*componentstatus.Event
}

func (h *statusHost) Report(e *componentstatus.Event) { h.events = append(h.events, e) }

// scripted is a source that says one thing after the other.
type scripted struct {
	says   []error
	sees   []observation
	closed int
}

func (s *scripted) scrape(_ context.Context, to *recorder) error {
	for _, o := range s.sees {
		to.add(o)
	}
	if len(s.says) == 0 {
		return nil
	}
	err := s.says[0]
	s.says = s.says[1:]
	return err
}

func (s *scripted) close() error { s.closed++; return nil }

// newTestReceiver returns one without the sources of the host.
func newTestReceiver(t *testing.T) (*gpuReceiver, *statusHost, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	set := receivertest.NewNopSettings(metadata.Type)
	set.Logger = zap.New(core)
	cfg := createDefaultConfig().(*Config)
	cfg.NVML.Mode, cfg.DCGM.Mode, cfg.CUDA.Mode, cfg.PodResources.Mode = ModeOff, ModeOff, ModeOff, ModeOff
	r, err := newGPUReceiver(set, cfg)
	require.NoError(t, err)
	r.scraped = true
	host := &statusHost{Host: componenttest.NewNopHost()}
	require.NoError(t, r.Start(t.Context(), host))
	t.Cleanup(func() { require.NoError(t, r.Shutdown(context.Background())) })
	return r, host, logs
}

func TestWhatASourceLacksIsSaidOnce(t *testing.T) {
	r, host, logs := newTestReceiver(t)
	missing := absence{errors.New("cannot find libnvidia-ml.so.1")}
	s := &scripted{says: []error{missing, missing, nil, nil, errors.New("GPU is lost"), errors.New("GPU is lost"), nil}}
	r.add("nvml", ModeAuto, func() source { return s })
	var partial []bool
	for range 7 {
		_, err := r.scrape(t.Context())
		partial = append(partial, scrapererror.IsPartialScrapeError(err))
	}
	assert.Equal(t, []bool{false, false, false, false, true, true, false}, partial)
	var said []string
	for _, e := range logs.All() {
		said = append(said, e.Level.String()+" "+e.Message)
	}
	assert.Equal(t, []string{
		"info GPUs are not watched by a source that this host does not have", "info GPUs are watched",
		"warn GPUs are not watched as the configuration wants it", "info GPUs are watched",
	}, said)
	require.Len(t, host.events, 4)
	assert.Equal(t, componentstatus.StatusOK, host.events[0].Status())
	why, _ := host.events[0].Attributes().Get(attrAbsent)
	assert.Equal(t, "nvml: cannot find libnvidia-ml.so.1", why.AsString())
	assert.Equal(t, componentstatus.StatusOK, host.events[1].Status())
	assert.Zero(t, host.events[1].Attributes().Len())
	assert.Equal(t, componentstatus.StatusRecoverableError, host.events[2].Status())
	assert.EqualError(t, host.events[2].Err(), r.set.ID.String()+": nvml: GPU is lost")
	assert.Equal(t, componentstatus.StatusOK, host.events[3].Status())
}

func TestASourceThatIsOnMustBeThere(t *testing.T) {
	r, host, _ := newTestReceiver(t)
	r.add("nvml", ModeOn, func() source { return &scripted{says: []error{absence{errors.New("cannot find it")}}} })
	r.add("cuda", ModeOff, func() source { t.Fatal("it is off"); return nil })
	_, err := r.scrape(t.Context())
	assert.True(t, scrapererror.IsPartialScrapeError(err))
	require.Len(t, host.events, 1)
	assert.Equal(t, componentstatus.StatusRecoverableError, host.events[0].Status())
}

var (
	gpu0 = gpu.Device{ID: "GPU-0", Index: 3, Model: "NVIDIA H100", PCIAddress: "00000000:17:00.0"}
	mig0 = gpu.Device{ID: "MIG-0", Parent: "GPU-0", Index: 3, Model: "NVIDIA H100", PCIAddress: "00000000:17:00.0", MIGProfile: "1g.10gb"}
)

// samples are those that the store reads from what is emitted.
func samples(t *testing.T, md pmetric.Metrics) (all []gpu.Sample) {
	t.Helper()
	for _, rm := range md.ResourceMetrics().All() {
		rm.Resource().Attributes().PutStr("k8s.node.name", "node")
		reader := gpu.NewReader(rm.Resource())
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				for s, err := range reader.Read(m) {
					require.NoError(t, err)
					all = append(all, s)
				}
			}
		}
	}
	return all
}

func TestWhatSourcesSeeIsWhatTheStoreReads(t *testing.T) {
	r, _, _ := newTestReceiver(t)
	began := time.Now().Add(-time.Hour)
	r.add("nvml", ModeOn, func() source {
		return &scripted{sees: []observation{
			{metric: "hw.power", device: gpu0, value: 100.5},
			{metric: "hw.gpu.utilization", part: "general", device: gpu0, value: 0.25},
			{metric: "hw.energy", device: gpu0, value: 7},
			{metric: "gpu.xid.errors", part: "79", device: gpu0, value: 2},
			{metric: "gpu.sm.activity", device: mig0, value: 0.5},
			{metric: "gpu.process.memory.usage", device: mig0, container: container{cgroupID: 42}, value: 1 << 30},
		}}
	})
	r.add("cuda", ModeOn, func() source {
		return sourceFunc(func(to *recorder) {
			c := container{cgroupID: 42}
			before, known := to.add(observation{metric: "hw.power", device: gpu0, value: 90})
			assert.True(t, known, "the first source's word counts")
			assert.InDelta(t, 100.5, before, 0)
			to.begin(c, began)
			to.share("GPU-0", "time-slicing")
			to.add(observation{metric: "gpu.cuda.kernel.launch.calls", container: c, value: 9})
			to.add(observation{
				metric: "gpu.allocation", device: gpu.Device{ID: "GPU-0"}, container: container{namespace: "ml", pod: "train-0", name: "main"}, value: 1,
				more: []metadata.MetricAttributeOption{metadata.WithGpuAllocationResourceMetricAttribute("nvidia.com/gpu")},
			})
		})
	})
	md, err := r.scrape(t.Context())
	require.NoError(t, err)
	type row struct {
		metric, device, parent, attributes, who string
		value                                   float64
		counter, started                        bool
	}
	var got []row
	all := samples(t, md)
	for _, s := range all {
		who := s.Identity.Pod
		if s.Identity.CgroupID != 0 {
			who = "cgroup"
		}
		assert.Equal(t, all[0].Time, s.Time, "one time for all")
		if s.Device.ID != "" {
			assert.EqualValues(t, 3, s.Device.Index)
			assert.Equal(t, "NVIDIA H100", s.Device.Model)
		}
		got = append(got, row{s.Metric, s.Device.ID, s.Device.Parent, s.Attributes, who, s.Value, s.Counter, !s.Start.IsZero()})
	}
	strategies := 0
	for _, rm := range md.ResourceMetrics().All() {
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			if m.Name() != "hw.power" && m.Name() != "gpu.allocation" {
				continue
			}
			strategy, _ := m.Gauge().DataPoints().At(0).Attributes().Get(gpu.AttrSharing)
			assert.Equal(t, "time-slicing", strategy.AsString(), "who sees a container's share says so of the device")
			strategies++
		}
	}
	assert.Equal(t, 2, strategies)
	assert.ElementsMatch(t, []row{
		{"hw.power", "GPU-0", "", "", "", 100.5, false, false},
		{"hw.gpu.utilization", "GPU-0", "", "hw.gpu.task=general", "", 0.25, false, false},
		{"hw.energy", "GPU-0", "", "", "", 7, true, false},
		{"gpu.xid.errors", "GPU-0", "", "gpu.xid.code=79", "", 2, true, true},
		{"gpu.sm.activity", "MIG-0", "GPU-0", "", "", 0.5, false, false},
		{"gpu.process.memory.usage", "MIG-0", "GPU-0", "", "cgroup", 1 << 30, false, false},
		{"gpu.cuda.kernel.launch.calls", "", "", "", "cgroup", 9, true, true},
		{"gpu.allocation", "GPU-0", "", "gpu.allocation.resource=nvidia.com/gpu", "train-0", 1, false, false},
	}, got)
}

type sourceFunc func(to *recorder)

func (f sourceFunc) scrape(_ context.Context, to *recorder) error { f(to); return nil }
func (sourceFunc) close() error                                   { return nil }

func TestEveryMetricHasAWriter(t *testing.T) {
	r, _, _ := newTestReceiver(t)
	to := newRecorder(time.Now())
	for name := range writers {
		to.add(observation{metric: name, device: gpu0, container: container{cgroupID: 1}, value: 1})
	}
	md := to.emit(r.mb, time.Now())
	assert.Equal(t, len(writers), md.MetricCount())
	assert.Equal(t, len(writers), md.DataPointCount())
	assert.Equal(t, 33, len(writers), "as many as metadata.yaml has")
}

func TestPipelinesShareAReceiver(t *testing.T) {
	f := NewFactory()
	cfg := f.CreateDefaultConfig().(*Config)
	cfg.NVML.Mode, cfg.DCGM.Mode, cfg.CUDA.Mode, cfg.PodResources.Mode = ModeOff, ModeOff, ModeOff, ModeOff
	set := receivertest.NewNopSettings(metadata.Type)
	logs, err := f.CreateLogs(t.Context(), set, cfg, consumertest.NewNop())
	require.NoError(t, err)
	sink := &consumertest.MetricsSink{}
	metrics, err := f.CreateMetrics(t.Context(), set, cfg, sink)
	require.NoError(t, err)
	for _, c := range []receiver.Logs{logs, metrics} {
		require.NoError(t, c.Start(t.Context(), componenttest.NewNopHost()))
	}
	for _, c := range []receiver.Logs{logs, metrics} {
		require.NoError(t, c.Shutdown(t.Context()))
	}
}

func TestHistogramsAreAppended(t *testing.T) {
	r, _, _ := newTestReceiver(t)
	to := newRecorder(time.Now())
	to.append(func(md pmetric.Metrics, at pcommon.Timestamp) {
		m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		m.SetEmptyHistogram().DataPoints().AppendEmpty().SetTimestamp(at)
	})
	md := to.emit(r.mb, time.Now())
	require.Equal(t, 1, md.DataPointCount())
	p := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).Histogram().DataPoints().At(0)
	assert.Equal(t, to.at.UnixNano(), p.Timestamp().AsTime().UnixNano())
}
