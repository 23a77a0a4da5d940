package gpureceiver

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumertest"

	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/preflight"
)

// statusesOf are those that a receiver has sent, without what differs from run to run.
func statusesOf(t *testing.T, sink *consumertest.LogsSink) (all []gpu.Status) {
	t.Helper()
	for _, logs := range sink.AllLogs() {
		for _, rl := range logs.ResourceLogs().All() {
			for _, lr := range rl.ScopeLogs().At(0).LogRecords().All() {
				if lr.EventName() != gpu.EventNameStatus {
					continue
				}
				s := gpu.StatusFrom(rl.Resource(), lr)
				assert.Positive(t, s.ScrapeTime)
				assert.False(t, s.Started.After(s.Time))
				s.Time, s.Started, s.ScrapeTime = time.Time{}, time.Time{}, 0
				for i := range s.Sources {
					s.Sources[i].ScrapeTime = 0
				}
				all = append(all, s)
			}
		}
	}
	return all
}

func TestStatusOfEachScrape(t *testing.T) {
	r, _, _ := newTestReceiver(t)
	sink := &consumertest.LogsSink{}
	r.logs, r.tellStatus = sink, r.sendStatus
	r.off = r.off[:1]
	missing := absence{errors.New("cannot find libnvidia-ml.so.1")}
	nvml := &scripted{says: []error{missing, errors.Join(errors.New("GPU 1 is lost"), errors.New("GPU 2 is lost")), nil, missing}}
	r.add("nvml", ModeAuto, func() source { return nvml })
	r.add("cuda", ModeOn, func() source {
		return &scripted{says: []error{errors.New("not permitted"), absence{gap{errors.New("some functions are not counted")}}}}
	})
	for i := range 4 {
		nvml.sees = nil
		if i == 1 || i == 2 {
			nvml.sees = []observation{
				{metric: "hw.power", device: gpu0, value: 1}, {metric: "gpu.sm.activity", device: mig0, value: 0.5},
				{metric: "gpu.allocation", device: gpu.Device{ID: "MIG-1"}, container: container{pod: "a"}, value: 1},
			}
		}
		_, _ = r.scrape(t.Context()) // what it says is in the status
	}
	want := func(scrapes, failed uint64, nvml, nvmlWhy, cuda, cudaWhy string) gpu.Status {
		return gpu.Status{
			Version: r.set.BuildInfo.Version, Kernel: preflight.KernelRelease(), Interval: r.cfg.CollectionInterval, Scrapes: scrapes, FailedScrapes: failed,
			Sources: []gpu.SourceStatus{
				{Name: "nvml", State: nvml, Reason: nvmlWhy}, {Name: "cuda", State: cuda, Reason: cudaWhy},
				{Name: "nvml", State: gpu.SourceOff, Reason: offReason},
			},
		}
	}
	expected := []gpu.Status{
		want(1, 1, gpu.SourceAbsent, "cannot find libnvidia-ml.so.1", gpu.SourceFailed, "not permitted"),
		want(2, 2, gpu.SourcePartial, "GPU 1 is lost; GPU 2 is lost", gpu.SourcePartial, "some functions are not counted"),
		want(3, 2, gpu.SourceUp, "", gpu.SourceUp, ""),
		want(4, 2, gpu.SourceAbsent, "cannot find libnvidia-ml.so.1", gpu.SourceUp, ""),
	}
	for i := 1; i < 3; i++ {
		expected[i].Models, expected[i].Instances = map[string]uint32{"NVIDIA H100": 1}, 2
	}
	assert.Equal(t, expected, statusesOf(t, sink))
}

// What is counted of a device that is gone does not bring it back.
func TestADeviceOfErrorsAloneIsNotInTheStatus(t *testing.T) {
	r, _, _ := newTestReceiver(t)
	sink := &consumertest.LogsSink{}
	r.logs, r.tellStatus = sink, r.sendStatus
	r.events.xids[incident{name: eventXID, device: "GPU-0", code: 79}] = 1
	md, err := r.scrape(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 1, md.DataPointCount())
	assert.Empty(t, statusesOf(t, sink)[0].Models)
}

// A conflict is in the status for as long as it is there, from the scrape on that tells of it.
func TestConflictsInTheStatus(t *testing.T) {
	one := conflict{kind: conflictOwner, device: "GPU-1", about: "container", first: "ml/a/main", other: "ml/b/main"}
	other := conflict{kind: conflictValue, device: "GPU-0", about: "hw.gpu.memory.limit", first: "1", other: "2"}
	begin := time.Unix(1000, 0)
	var q quarrels
	q.update([]conflict{one, other}, begin)
	assert.Empty(t, q.lasting())
	for _, now := range []time.Duration{conflictAfter, 2 * conflictAfter} {
		q.update([]conflict{one, other}, begin.Add(now))
		assert.Equal(t, []gpu.Conflict{
			{Device: "GPU-0", Kind: "value", About: "hw.gpu.memory.limit", First: "1", Other: "2", Since: begin},
			{Device: "GPU-1", Kind: "owner", About: "container", First: "ml/a/main", Other: "ml/b/main", Since: begin},
		}, q.lasting())
	}
	q.update([]conflict{other}, begin.Add(3*conflictAfter))
	require.Len(t, q.lasting(), 1)
	assert.Equal(t, "GPU-0", q.lasting()[0].Device)
}

func TestLostEventsAreInTheStatus(t *testing.T) {
	r, _, _ := newTestReceiver(t)
	refusing := consumertest.NewErr(errors.New("full"))
	r.logs = refusing
	to := newRecorder(time.Now())
	logs := r.events.logs(incident{name: eventDoubleBitECC, device: "GPU-0"}, to.at, 1)
	r.sendEvents(logs)
	r.sendStatus(t.Context(), r.status(to.at, nil))
	assert.EqualValues(t, 1, r.status(to.at, nil).LostEvents, "a status is no event")
}
