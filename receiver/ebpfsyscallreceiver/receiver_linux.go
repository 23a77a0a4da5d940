package ebpfsyscallreceiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receiverhelper"
	"go.uber.org/zap"

	"github.com/orb8/orb8/internal/backpressure"
	"github.com/orb8/orb8/internal/bpfstats"
	"github.com/orb8/orb8/internal/preflight"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/arguments"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/engine"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/metadata"
)

// eventDelay is the longest that an event waits for company before it goes down the pipeline.
const eventDelay = 100 * time.Millisecond

// syscallReceiver owns a system call engine. One goroutine reads its ring buffer (readEvents), another drains its counts once
// an interval (run).
type syscallReceiver struct {
	cfg     *Config
	set     receiver.Settings
	logs    consumer.Logs
	metrics consumer.Metrics

	obs     *receiverhelper.ObsReport
	mb      *metadata.MetricsBuilder
	decoder *arguments.Decoder
	native  syscalls.ABI
	engine  *engine.Engine
	kernel  string
	started time.Time
	host    component.Host
	// check is preflight.RunSyscalls.
	check func(context.Context) []preflight.Check
	// unavailable are the features that the host does not allow, and why.
	unavailable map[string]string

	cancel context.CancelFunc
	wg     sync.WaitGroup

	// Of the goroutine of run alone.
	counts   *counts
	series   *series
	pressure backpressure.Watch
	// until is when the last interval ended.
	until      time.Time
	kernelLoss engine.Loss // as of then
	thinning   uint32
	lostBefore uint64 // calls, kernel and user space
	calls      uint64
	// As of the status before this one.
	reportedAt    time.Time
	reportedCalls uint64
	probeStats    io.Closer // nil where the kernel is not asked to measure

	mu     sync.Mutex
	events *batch
	// lost is what the pipeline refused.
	lostCalls, lostEvents uint64
}

func newSyscallReceiver(set receiver.Settings, cfg *Config) (*syscallReceiver, error) {
	obs, err := receiverhelper.NewObsReport(receiverhelper.ObsReportSettings{
		ReceiverID: set.ID, Transport: "ebpf", ReceiverCreateSettings: set,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot create the receiver's own telemetry: %w", err)
	}
	native := nativeABI()
	return &syscallReceiver{
		cfg: cfg, set: set, obs: obs, native: native,
		mb:       metadata.NewMetricsBuilder(cfg.MetricsBuilderConfig, set),
		decoder:  arguments.New(native),
		counts:   &counts{},
		events:   newBatch(set.BuildInfo.Version),
		thinning: 1,
		pressure: backpressure.Watch{
			Logger: set.Logger,
			Advice: "raise ring_buffer_size, or sample more sparsely: events.hot and events.hot_sampling",
			Losses: []string{"lost_events", "lost_calls"},
		},
		check:       preflight.RunSyscalls,
		unavailable: map[string]string{},
	}, nil
}

// nativeABI is that of programs like this one.
func nativeABI() syscalls.ABI {
	if runtime.GOARCH == "arm64" {
		return syscalls.ARM64
	}
	return syscalls.X86_64
}

// Start checks the host, loads and attaches the programs, and leaves the rest to two goroutines. What the host lacks is an
// error and a permanent status.
func (r *syscallReceiver) Start(_ context.Context, host component.Host) error {
	if err := r.open(); err != nil {
		err = fmt.Errorf("%s: %w", r.set.ID, err)
		componentstatus.ReportStatus(host, componentstatus.NewPermanentErrorEvent(err))
		return err
	}
	r.host = host
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	r.wg.Add(2)
	go r.readEvents()
	go r.run(ctx)
	return nil
}

func (r *syscallReceiver) open() error {
	if err := preflight.Err(r.check(context.Background())); err != nil {
		return err
	}
	opts := engine.Options{RingBufferSize: r.cfg.RingBufferSize, SelfEvents: r.cfg.SelfEvents, Latency: r.cfg.Latency}
	if r.cfg.Events.Enabled && r.logs != nil {
		opts.Policy = r.policy()
	}
	r.kernel = preflight.KernelRelease()
	r.started = time.Now()
	r.until = r.started
	var err error
	if r.engine, err = engine.New(opts); err != nil {
		return err
	}
	if err := r.engine.LatencyError(); err != nil {
		r.unavailable["latency"] = err.Error()
		r.set.Logger.Warn("Latency and errors of system calls are not measured", zap.Error(err))
	}
	r.reportedAt = r.started
	r.openProbeStats()
	if r.metrics != nil {
		r.series = newSeries(r.measuresLatency())
	}
	r.set.Logger.Info("Counting system calls", zap.Bool("latency", r.measuresLatency()))
	return nil
}

func (r *syscallReceiver) openProbeStats() {
	if !r.cfg.ProbeStats {
		return
	}
	var err error
	if r.probeStats, err = bpfstats.Enable(); err != nil {
		r.unavailable["probe cost"] = err.Error()
		r.set.Logger.Warn("What the probes cost is not measured", zap.Error(err))
	}
}

func (r *syscallReceiver) measuresLatency() bool {
	return r.cfg.Latency && r.unavailable["latency"] == ""
}

// policy says of each call which events the configuration wants, and what to read of its arguments.
func (r *syscallReceiver) policy() func(syscalls.Call) engine.Policy {
	always := make(map[string]bool, len(r.cfg.Events.Always))
	for _, name := range r.cfg.Events.Always {
		always[name] = true
	}
	return func(c syscalls.Call) engine.Policy {
		name := c.Name()
		p := engine.Policy{Sampling: r.cfg.Events.sampling(name), Always: always[name]}
		p.Text, p.Bytes = r.decoder.Capture(c)
		return p
	}
}

// Shutdown takes the programs off, reports what they had counted until then, and unloads them.
func (r *syscallReceiver) Shutdown(context.Context) error {
	if r.cancel == nil {
		return nil
	}
	err := r.engine.Detach()
	// Nothing is added any more: what is in the ring buffer is read to its end before the last interval is closed.
	err = errors.Join(err, r.engine.Flush())
	r.cancel()
	r.wg.Wait()
	r.flushEvents()
	r.report()
	if r.probeStats != nil {
		err = errors.Join(err, r.probeStats.Close())
	}
	return errors.Join(err, r.engine.Close())
}

// run closes an interval when its time has come.
func (r *syscallReceiver) run(ctx context.Context) {
	defer r.wg.Done()
	intervals := time.NewTicker(r.cfg.Interval)
	defer intervals.Stop()
	events := time.NewTicker(eventDelay)
	defer events.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-events.C:
			r.flushEvents()
		case <-intervals.C:
			r.report()
		}
	}
}

// report closes an interval: it drains the counts and sends records, status and metrics.
func (r *syscallReceiver) report() {
	start, end := r.until, time.Now()
	r.counts.reset()
	loss, err := r.engine.Drain(r.counts.add)
	if err != nil {
		// What was drained before the error is gone from the kernel: it is reported. The rest is left for the next interval.
		componentstatus.ReportStatus(r.host, componentstatus.NewRecoverableErrorEvent(fmt.Errorf("%s: %w", r.set.ID, err)))
	} else {
		r.until = end
		r.setLoss(loss)
	}
	r.calls += r.counts.calls
	r.mu.Lock()
	lost := r.kernelLoss.Calls + r.lostCalls
	r.mu.Unlock()
	r.sendCounts(start, end, lost-r.lostBefore)
	r.lostBefore = lost

	status := r.status(end)
	r.pressure.Interval(status.RingBufferUtilization, status.LostEvents, status.LostCalls)
	b := newBatch(r.set.BuildInfo.Version)
	b.addStatus(&status)
	r.consume(b)
	r.sendMetrics(start, end, &status)
}

func (r *syscallReceiver) setLoss(loss engine.Loss) {
	r.thinning = 1
	if loss.Thinned > r.kernelLoss.Thinned {
		r.thinning = engine.Thinning
	}
	r.kernelLoss = loss
}

// sendCounts sends a record for each cgroup. lost calls were lost since the last time.
func (r *syscallReceiver) sendCounts(start, end time.Time, lost uint64) {
	if r.logs == nil {
		return
	}
	b := newBatch(r.set.BuildInfo.Version)
	for record := range r.counts.records() {
		record.Start, record.End, record.LostCalls = start, end, lost
		b.addCounts(&record, r.native)
		if b.full() {
			r.consume(b)
			b = newBatch(r.set.BuildInfo.Version)
		}
	}
	r.consume(b)
}

// consume hands a batch to the pipeline. What the pipeline refuses is lost, and counted.
func (r *syscallReceiver) consume(b *batch) {
	if r.logs == nil || b.Records == 0 {
		return
	}
	ctx := r.obs.StartLogsOp(context.Background())
	err := r.logs.ConsumeLogs(ctx, b.Logs)
	r.obs.EndLogsOp(ctx, metadata.Type.String(), b.Records, err)
	if err != nil {
		r.mu.Lock()
		r.lostCalls += b.calls
		r.lostEvents += b.events
		r.mu.Unlock()
	}
}

func (r *syscallReceiver) status(now time.Time) syscalls.Status {
	r.mu.Lock()
	lostCalls, lostEvents := r.lostCalls, r.lostEvents
	r.mu.Unlock()
	rate := float64(r.calls-r.reportedCalls) / max(now.Sub(r.reportedAt).Seconds(), time.Millisecond.Seconds())
	r.reportedAt, r.reportedCalls = now, r.calls
	return syscalls.Status{
		CallsPerSecond:        rate,
		Probes:                bpfstats.Costs(r.engine.Programs()...),
		Version:               r.set.BuildInfo.Version,
		Kernel:                r.kernel,
		Time:                  now,
		Started:               r.started,
		Interval:              r.cfg.Interval,
		Calls:                 r.calls,
		LostCalls:             r.kernelLoss.Calls + lostCalls,
		LostEvents:            r.kernelLoss.Events + lostEvents,
		Cgroups:               uint64(len(r.counts.cgroups)),
		RingBufferBytes:       uint64(r.cfg.RingBufferSize),
		RingBufferUtilization: r.engine.RingBufferUtilization(),
		Thinning:              r.thinning,
		Latency:               r.measuresLatency(),
		Unavailable:           r.unavailable,
	}
}
