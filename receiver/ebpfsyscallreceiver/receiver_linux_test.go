package ebpfsyscallreceiver

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/ebpfconfig"
	"github.com/orb8/orb8/internal/preflight"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/engine"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/metadata"
)

func TestWhatIsInFlightAtShutdownIsReported(t *testing.T) {
	sink := &consumertest.LogsSink{}
	g := newGroup(t)
	before := time.Now()
	r := startLogs(t, kernelConfig(t), sink)
	pid := g.run(t, "getppid:1000,openat:7,getpgid:3")
	require.NoError(t, r.Shutdown(t.Context()))

	counts, lost := countsOf(t, sink, g)
	assert.Zero(t, lost)
	assert.EqualValues(t, 1000, counts["getppid"].Calls)
	assert.EqualValues(t, 3, counts["getpgid"].Calls)
	assert.EqualValues(t, 1, counts["execve"].Calls)
	assert.Nil(t, counts["openat"].Errors, "not measured")

	execs := eventsOf(t, sink, g.id, "execve")
	require.Len(t, execs, 1)
	exec := execs[0]
	assert.EqualValues(t, pid, exec.Identity.PID)
	assert.EqualValues(t, pid, exec.TID)
	assert.EqualValues(t, 1, exec.Sampling)
	assert.WithinRange(t, exec.Time, before.Add(-time.Second), time.Now().Add(time.Second))
	assert.Equal(t, []syscalls.Argument{{Name: "pathname", Value: "/proc/self/exe"}}, exec.Arguments)

	missing := 0
	for _, e := range eventsOf(t, sink, g.id, "openat") {
		if e.Arguments[1].Value == missingFile {
			assert.Equal(t, []syscalls.Argument{
				{Name: "dirfd", Value: "-1"}, {Name: "pathname", Value: missingFile}, {Name: "flags", Value: "O_RDONLY"},
			}, e.Arguments)
			missing++
		}
	}
	assert.Equal(t, 7, missing, "every one: it is not hot")

	var stands uint64
	hot := eventsOf(t, sink, g.id, "getppid")
	for _, e := range hot {
		stands += uint64(e.Sampling)
	}
	assert.NotEmpty(t, hot, "the first in an interval is always told")
	assert.LessOrEqual(t, len(hot), 1000/100+8, "one in a hundred, and the first of each CPU")
	assert.InDelta(t, 1000, stands, 400)
}

func TestOwnCallsAreCountedAndNotTold(t *testing.T) {
	for name, self := range map[string]bool{"left out": false, "told": true} {
		t.Run(name, func(t *testing.T) {
			cfg := kernelConfig(t)
			cfg.SelfEvents = self
			cfg.Events.Sampling = map[string]uint32{"getpgid": 1}
			cfg.Events.Always = []string{"getpgid"}
			require.NoError(t, cfg.Validate())
			sink := &consumertest.LogsSink{}
			r := startLogs(t, cfg, sink)
			for range 50 {
				_, err := unix.Getpgid(0)
				require.NoError(t, err)
			}
			require.NoError(t, r.Shutdown(t.Context()))

			counted, told := uint64(0), 0
			eachLog(sink, syscalls.EventNameCounts, func(res plog.ResourceLogs, lr plog.LogRecord) {
				c, err := syscalls.CountsFrom(res.Resource(), lr)
				require.NoError(t, err)
				for _, n := range c.Calls {
					if n.Call.Name() == "getpgid" {
						counted += n.Calls
					}
				}
			})
			eachLog(sink, syscalls.EventNameEvent, func(res plog.ResourceLogs, lr plog.LogRecord) {
				e, err := syscalls.EventFrom(res.Resource(), lr)
				require.NoError(t, err)
				if e.Call.Name() == "getpgid" && e.Identity.PID == uint32(os.Getpid()) {
					told++
				}
			})
			assert.GreaterOrEqual(t, counted, uint64(50))
			if self {
				assert.Equal(t, 50, told)
			} else {
				assert.Zero(t, told)
			}
		})
	}
}

func TestSamplingOfSingleCalls(t *testing.T) {
	cfg := kernelConfig(t)
	cfg.Events.Sampling = map[string]uint32{"getppid": 0, "getpgid": 10}
	sink := &consumertest.LogsSink{}
	g := newGroup(t)
	r := startLogs(t, cfg, sink)
	g.run(t, "getppid:100,getpgid:100")
	require.NoError(t, r.Shutdown(t.Context()))
	assert.Empty(t, eventsOf(t, sink, g.id, "getppid"))
	assert.InDelta(t, 11, len(eventsOf(t, sink, g.id, "getpgid")), 4, "one in ten, and the first of each CPU")
}

func TestNoEvents(t *testing.T) {
	cfg := kernelConfig(t)
	cfg.Events.Enabled = false
	sink := &consumertest.LogsSink{}
	g := newGroup(t)
	r := startLogs(t, cfg, sink)
	g.run(t, "getppid:100")
	require.NoError(t, r.Shutdown(t.Context()))
	eachLog(sink, syscalls.EventNameEvent, func(plog.ResourceLogs, plog.LogRecord) { t.Error("an event") })
	counts, _ := countsOf(t, sink, g)
	assert.EqualValues(t, 100, counts["getppid"].Calls)
}

// point returns a metric's value for a cgroup's call, and whether there is one.
func point(md pmetric.Metrics, g group, metric, call string) (value int64, ok bool) {
	for _, rm := range md.ResourceMetrics().All() {
		if id, _ := rm.Resource().Attributes().Get("orb8.cgroup.id"); uint64(id.Int()) != g.id {
			continue
		}
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			if m.Name() != metric || m.Type() != pmetric.MetricTypeSum {
				continue
			}
			for _, dp := range m.Sum().DataPoints().All() {
				if name, _ := dp.Attributes().Get("orb8.syscall.name"); name.Str() == call {
					value, ok = value+dp.IntValue(), true
				}
			}
		}
	}
	return value, ok
}

func TestStatusAndMetricsEveryInterval(t *testing.T) {
	cfg := kernelConfig(t)
	cfg.Interval, cfg.ProbeStats = ebpfconfig.MinInterval, true
	f := NewFactory()
	set := receivertest.NewNopSettings(metadata.Type)
	logs, metrics := &consumertest.LogsSink{}, &consumertest.MetricsSink{}
	lr, err := f.CreateLogs(t.Context(), set, cfg, logs)
	require.NoError(t, err)
	mr, err := f.CreateMetrics(t.Context(), set, cfg, metrics)
	require.NoError(t, err)
	require.Same(t, lr, mr, "the programs must be loaded once for both pipelines")
	require.NoError(t, lr.Start(t.Context(), componenttest.NewNopHost()))
	require.NoError(t, mr.Start(t.Context(), componenttest.NewNopHost()))
	g := newGroup(t)
	g.run(t, "getppid:500")
	seen := len(metrics.AllMetrics())
	require.Eventually(t, func() bool { return len(metrics.AllMetrics()) > seen+2 }, patience, tick)
	g.run(t, "getppid:200")
	require.NoError(t, lr.Shutdown(t.Context()))
	require.NoError(t, mr.Shutdown(t.Context()))

	var status syscalls.Status
	var rated float64
	eachLog(logs, syscalls.EventNameStatus, func(res plog.ResourceLogs, lr plog.LogRecord) {
		since := status.Time
		status = syscalls.StatusFrom(res.Resource(), lr)
		if since.IsZero() {
			since = status.Started
		}
		rated += status.CallsPerSecond * status.Time.Sub(since).Seconds()
	})
	assert.InEpsilon(t, status.Calls, rated, 0.001, "rates, each for its time, are all calls")
	require.Len(t, status.Probes, 1)
	assert.Equal(t, "sys_enter", status.Probes[0].Program)
	assert.GreaterOrEqual(t, status.Probes[0].Runs, uint64(700))
	assert.Zero(t, status.LostCalls)
	assert.EqualValues(t, 512<<10, status.RingBufferBytes)
	assert.EqualValues(t, 1, status.Thinning)
	assert.Equal(t, ebpfconfig.MinInterval, status.Interval)
	assert.NotEmpty(t, status.Kernel)
	assert.False(t, status.Latency)
	assert.Empty(t, status.Unavailable)
	counts, _ := countsOf(t, logs, g)
	assert.EqualValues(t, 700, counts["getppid"].Calls, "over several intervals")

	// The last metrics say the same as the last status.
	all := metrics.AllMetrics()
	last := all[len(all)-1]
	calls, ok := point(last, g, "orb8.syscall.calls", "getppid")
	assert.True(t, ok)
	assert.EqualValues(t, 700, calls)
	_, ok = point(last, g, "orb8.syscall.errors", "openat")
	assert.False(t, ok)
	var total int64
	for _, rm := range last.ResourceMetrics().All() {
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			if m.Name() != "orb8.syscall.calls" {
				continue
			}
			assert.True(t, m.Sum().IsMonotonic())
			for _, dp := range m.Sum().DataPoints().All() {
				assert.NotZero(t, dp.StartTimestamp())
				assert.Less(t, dp.StartTimestamp(), dp.Timestamp())
				total += dp.IntValue()
			}
		}
	}
	assert.EqualValues(t, status.Calls, total)
}

func TestLatencyAndErrors(t *testing.T) {
	cfg := kernelConfig(t)
	cfg.Latency = true
	set := receivertest.NewNopSettings(metadata.Type)
	f := NewFactory()
	logs, metrics := &consumertest.LogsSink{}, &consumertest.MetricsSink{}
	r, err := f.CreateLogs(t.Context(), set, cfg, logs)
	require.NoError(t, err)
	_, err = f.CreateMetrics(t.Context(), set, cfg, metrics)
	require.NoError(t, err)
	require.NoError(t, r.Start(t.Context(), componenttest.NewNopHost()))
	require.NoError(t, inner(r).engine.LatencyError())
	g := newGroup(t)
	g.run(t, "getppid:400,getpgid:30") // the latter of a process that is none
	require.NoError(t, r.Shutdown(t.Context()))

	counts, _ := countsOf(t, logs, g)
	assert.EqualValues(t, 400, counts["getppid"].Latency.Calls())
	assert.Nil(t, counts["getppid"].Errors)
	assert.Equal(t, map[string]uint64{"ESRCH": 30}, counts["getpgid"].Errors)

	all := metrics.AllMetrics()
	last := all[len(all)-1]
	failed, _ := point(last, g, "orb8.syscall.errors", "getpgid")
	assert.EqualValues(t, 30, failed)
	found := false
	for _, rm := range last.ResourceMetrics().All() {
		id, _ := rm.Resource().Attributes().Get("orb8.cgroup.id")
		m := rm.ScopeMetrics().At(0).Metrics().At(0)
		if uint64(id.Int()) != g.id || m.Name() != durationName {
			continue
		}
		for _, dp := range m.Histogram().DataPoints().All() {
			if name, _ := dp.Attributes().Get("orb8.syscall.name"); name.Str() == "getppid" {
				found = true
				assert.EqualValues(t, 400, dp.Count())
				assert.Positive(t, dp.Sum())
			}
		}
	}
	assert.True(t, found)
	eachLog(logs, syscalls.EventNameStatus, func(res plog.ResourceLogs, lr plog.LogRecord) {
		assert.True(t, syscalls.StatusFrom(res.Resource(), lr).Latency)
	})
}

func TestRefusedRecordsAreLostAndCounted(t *testing.T) {
	cfg := kernelConfig(t)
	r, err := NewFactory().CreateLogs(t.Context(), receivertest.NewNopSettings(metadata.Type), cfg,
		consumertest.NewErr(errors.New("memory is short")))
	require.NoError(t, err)
	require.NoError(t, r.Start(t.Context(), componenttest.NewNopHost()))
	g := newGroup(t)
	g.run(t, "getppid:1000,openat:7")
	require.NoError(t, r.Shutdown(t.Context()))
	sr := inner(r)
	assert.Equal(t, sr.calls, sr.lostCalls, "all of them")
	assert.GreaterOrEqual(t, sr.lostCalls, uint64(1007))
	assert.GreaterOrEqual(t, sr.lostEvents, uint64(8))
}

func TestThinningIsOfTheLastInterval(t *testing.T) {
	r, err := newSyscallReceiver(receivertest.NewNopSettings(metadata.Type), createDefaultConfig().(*Config))
	require.NoError(t, err)
	for _, tt := range []struct {
		thinned uint64
		want    uint32
	}{{0, 1}, {5, engine.Thinning}, {6, engine.Thinning}, {6, 1}} {
		r.setLoss(engine.Loss{Thinned: tt.thinned})
		assert.Equal(t, tt.want, r.thinning)
	}
}

func TestLatencyThatTheHostDoesNotAllowIsNotMeasured(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	r, err := newSyscallReceiver(receivertest.NewNopSettings(metadata.Type), cfg)
	require.NoError(t, err)
	assert.False(t, r.measuresLatency(), "not asked for")
	cfg.Latency = true
	assert.True(t, r.measuresLatency())
	r.unavailable["latency"] = "needs another kernel"
	assert.False(t, r.measuresLatency())
}

func TestEventsThatNobodyTakesAreNotMade(t *testing.T) {
	cfg := kernelConfig(t)
	r, err := NewFactory().CreateMetrics(t.Context(), receivertest.NewNopSettings(metadata.Type), cfg, consumertest.NewNop())
	require.NoError(t, err)
	require.NoError(t, r.Start(t.Context(), componenttest.NewNopHost()))
	g := newGroup(t)
	g.run(t, "getppid:100,openat:100")
	require.NoError(t, r.Shutdown(t.Context()))
	sr := inner(r)
	assert.Zero(t, sr.events.Records)
	calls := sr.series.cgroups[g.id].calls
	getppid, err := syscalls.ParseCall(nativeABI(), "getppid")
	require.NoError(t, err)
	assert.EqualValues(t, 100, calls[getppid].calls)
}

// statusHost keeps the statuses that are reported to it.
type statusHost struct {
	component.Host
	events []*componentstatus.Event
}

func (h *statusHost) Report(e *componentstatus.Event) { h.events = append(h.events, e) }

func TestAHostThatCannotBeWatchedIsAPermanentError(t *testing.T) {
	r, err := NewFactory().CreateLogs(t.Context(), receivertest.NewNopSettings(metadata.Type), createDefaultConfig(), consumertest.NewNop())
	require.NoError(t, err)
	inner(r).check = func(context.Context) []preflight.Check {
		return []preflight.Check{{Name: "syscalls", Status: preflight.Fail, Detail: "no tracepoint", Fix: "use another kernel"}}
	}
	host := &statusHost{Host: componenttest.NewNopHost()}
	err = r.Start(t.Context(), host)
	require.ErrorContains(t, err, "syscalls: no tracepoint; use another kernel")
	require.Len(t, host.events, 1)
	assert.Equal(t, componentstatus.StatusPermanentError, host.events[0].Status())
	assert.NoError(t, r.Shutdown(t.Context()))
}

func TestShutdownWithoutStart(t *testing.T) {
	r, err := NewFactory().CreateLogs(t.Context(), receivertest.NewNopSettings(metadata.Type), createDefaultConfig(), consumertest.NewNop())
	require.NoError(t, err)
	assert.NoError(t, r.Shutdown(t.Context()))
}
