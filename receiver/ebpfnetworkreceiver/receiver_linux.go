package ebpfnetworkreceiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receiverhelper"
	"go.uber.org/zap"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/backpressure"
	"github.com/orb8/orb8/internal/bpfstats"
	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/kernelclock"
	"github.com/orb8/orb8/internal/preflight"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/engine"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/metadata"
)

// eventDelay is the longest that an event waits for company before it goes down the pipeline.
const eventDelay = 100 * time.Millisecond

// passingTime is the longest that a packet is expected to take from one interface of this host to the next.
const passingTime = 10 * time.Millisecond

// networkReceiver owns a flow engine. One goroutine reads its ring buffer (readEvents), another empties its flow table
// once an interval (run).
type networkReceiver struct {
	cfg     *Config
	set     receiver.Settings
	logs    consumer.Logs
	metrics consumer.Metrics
	traces  consumer.Traces

	obs     *receiverhelper.ObsReport
	mb      *metadata.MetricsBuilder
	engine  *engine.Engine
	devices *engine.Interfaces
	mode    string
	kernel  string
	started time.Time
	host    component.Host
	lookups *lookupCounter // nil where DNS is not wanted
	// unavailable are the features that the host does not allow, and why.
	unavailable map[string]string

	cancel    context.CancelFunc
	wg        sync.WaitGroup
	pressure  chan struct{}
	newcomers newcomers

	// Of the goroutine of run alone.
	tracker      *tracker
	merger       *merger // nil in cgroup mode
	drops        *dropCounter
	namer        *namer // nil where DNS is not wanted
	spans        *spans // nil where there is no traces pipeline
	flows        *batch
	backpressure backpressure.Watch
	kernelLoss   engine.Loss // as of the last interval's end
	lostBefore   uint64      // packets, kernel and user space
	packets      uint64
	bytes        uint64
	reported     reported
	probeStats   io.Closer // nil where the kernel is not asked to measure
	tableFlows   int

	mu sync.Mutex
	// overflow holds the flows that found the kernel's table full, until the next interval ends.
	overflow *overflow
	events   *batch
	// lost is what user space lost: overflow that found no place here, and flow records that the pipeline refused.
	lostPackets, lostBytes uint64
}

func newNetworkReceiver(set receiver.Settings, cfg *Config) (*networkReceiver, error) {
	obs, err := receiverhelper.NewObsReport(receiverhelper.ObsReportSettings{
		ReceiverID: set.ID, Transport: "ebpf", ReceiverCreateSettings: set,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot create the receiver's own telemetry: %w", err)
	}
	version := set.BuildInfo.Version
	return &networkReceiver{
		cfg: cfg, set: set, obs: obs,
		mb:       metadata.NewMetricsBuilder(cfg.MetricsBuilderConfig, set),
		flows:    newBatch(version),
		events:   newBatch(version),
		overflow: newOverflow(),
		pressure: make(chan struct{}, 1),
		backpressure: backpressure.Watch{
			Logger: set.Logger,
			Advice: "raise ring_buffer_size or flow_table_size, or lower events.sampling",
			Losses: []string{"lost_events", "lost_packets"},
		},

		unavailable: map[string]string{},
	}, nil
}

// Start checks the host, loads and attaches the programs, and leaves the rest to two goroutines. What the host lacks
// is an error and a permanent status.
func (r *networkReceiver) Start(_ context.Context, host component.Host) error {
	if err := r.open(); err != nil {
		err = fmt.Errorf("%s: %w", r.set.ID, err)
		componentstatus.ReportStatus(host, componentstatus.NewPermanentErrorEvent(err))
		return errors.Join(err, r.close())
	}
	r.host = host
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	r.wg.Add(2)
	go r.readEvents()
	go r.run(ctx)
	return nil
}

func (r *networkReceiver) open() error {
	checks := preflight.Run(context.Background(), preflight.Options{CgroupPath: r.cfg.Attach.CgroupPath, Mode: r.cfg.Attach.Mode})
	if err := preflight.Err(checks); err != nil {
		return err
	}
	mount, err := cgroup.FindMount(r.cfg.Attach.CgroupPath)
	r.mode = r.cfg.Attach.Mode
	switch {
	case err == nil && r.mode == modeAuto:
		r.mode = modeCgroup
	case err != nil && r.mode == modeAuto:
		r.mode = modeTC
	case err != nil && r.mode == modeCgroup:
		return fmt.Errorf("attach.mode: %s is not possible here: %w", modeCgroup, err)
	}
	r.kernel = preflight.KernelRelease()
	r.started = time.Now()
	r.engine, err = engine.New(engine.Options{
		RingBufferSize: r.cfg.RingBufferSize,
		FlowTableSize:  r.cfg.FlowTableSize,
		Events:         r.cfg.Events.Enabled,
		FirstPackets:   r.cfg.Events.FirstPackets,
		Sampling:       r.cfg.Events.Sampling,
		Tunnels:        r.cfg.Tunnels,
		DNSPorts:       r.cfg.DNS.ports(),
		SelfTraffic:    r.cfg.SelfTraffic,
		Interfaces:     r.mode == modeTC,
		CgroupPath:     mount.Path,
	})
	if err != nil {
		return err
	}
	if err := r.engine.OwnersError(); err != nil {
		r.unavailable["process names"] = err.Error()
		r.set.Logger.Warn("Flows have no process names, and the collector's own traffic is counted too", zap.Error(err))
	}
	if r.mode == modeCgroup {
		err = r.engine.AttachCgroup(mount.Path)
	} else {
		r.devices, err = r.engine.WatchInterfaces("", r.cfg.Attach.Interfaces.wanted, func(err error) {
			r.set.Logger.Warn("An interface is not watched", zap.Error(err))
		})
	}
	if err != nil {
		return err
	}
	r.reported.at = r.started
	r.openProbeStats()
	r.drops = newDropCounter(r.openDrops(), r.started)
	if r.traces != nil {
		r.spans = newSpans(r.cfg, nil)
		if r.devices != nil {
			r.spans.isHost = func(addr netip.Addr) bool { return r.devices.Devices().IsLocal(addr) }
		}
	}
	rec := recorder{}
	if r.devices != nil {
		r.merger = newMerger()
		rec.interfaces = r.merger.interfaces
	}
	if r.cfg.DNS.Enabled {
		r.lookups = newLookupCounter(r.cfg.DNS.Timeout)
		r.namer = newNamer(r.lookups.watcher, r.mode == modeTC, int(r.cfg.FlowTableSize))
	}
	r.tracker = newTracker(r.cfg, rec, r.emitFlow)
	r.newcomers.flows = r.tracker.flows
	if r.devices != nil {
		r.newcomers.onItsWay = passingTime
	}
	r.set.Logger.Info("Watching packets", zap.String("attach_mode", r.mode), zap.Uint32("attach_points", r.attachPoints()))
	return nil
}

// openDrops returns nil where drops are not wanted or not to be had: no reason to watch nothing else.
func (r *networkReceiver) openDrops() *engine.Drops {
	if !r.cfg.Drops.Enabled {
		return nil
	}
	drops, err := engine.NewDrops()
	if err != nil {
		r.unavailable["drops"] = err.Error()
		r.set.Logger.Warn("Dropped packets are not counted", zap.Error(err))
		return nil
	}
	return drops
}

// reported is what the status before this one said.
type reported struct {
	at             time.Time
	packets, bytes uint64
}

func (r *networkReceiver) openProbeStats() {
	if !r.cfg.ProbeStats {
		return
	}
	var err error
	if r.probeStats, err = bpfstats.Enable(); err != nil {
		r.unavailable["probe cost"] = err.Error()
		r.set.Logger.Warn("What the probes cost is not measured", zap.Error(err))
	}
}

// interfaceOf returns the interface that saw a packet.
func (r *networkReceiver) interfaceOf(k *network.NetworkFlowKey) []string {
	return []string{r.devices.Devices().Get(uint32(k.Scope)).Name}
}

// Shutdown takes the programs off, reports what they had counted until then, and unloads them.
func (r *networkReceiver) Shutdown(context.Context) error {
	if r.cancel == nil {
		return nil
	}
	err := r.engine.Detach()
	if r.devices != nil {
		err = errors.Join(err, r.devices.Close())
	}
	// Nothing is added any more: what is in the ring buffer is read to its end before the last interval is closed.
	err = errors.Join(err, r.engine.Flush())
	r.cancel()
	r.wg.Wait()
	r.report(true)
	r.flushEvents()
	return errors.Join(err, r.close())
}

func (r *networkReceiver) close() error {
	var errs []error
	if r.probeStats != nil {
		errs = append(errs, r.probeStats.Close())
	}
	if r.drops != nil {
		errs = append(errs, r.drops.close())
	}
	if r.engine != nil {
		errs = append(errs, r.engine.Close())
	}
	return errors.Join(errs...)
}

// run closes an interval when its time has come, or when the flow table is nearly full.
func (r *networkReceiver) run(ctx context.Context) {
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
			if r.lookups != nil {
				r.lookups.expire(r.addLookup)
			}
			r.flushEvents()
			continue
		case <-intervals.C:
		case <-r.pressure:
		}
		r.report(false)
		// The next interval is a whole one, however late this one ended: a packet on its way between two interfaces may
		// cross the end of one interval, never of two.
		intervals.Reset(r.cfg.Interval)
	}
}

// report closes an interval, perhaps the last: it flips and empties the flow table and sends records, status and metrics.
func (r *networkReceiver) report(last bool) {
	if err := r.drain(last); err != nil {
		componentstatus.ReportStatus(r.host, componentstatus.NewRecoverableErrorEvent(fmt.Errorf("%s: %w", r.set.ID, err)))
		return
	}
	now := time.Now()
	if err := r.drops.collect(now, r.emitDrop); err != nil {
		componentstatus.ReportStatus(r.host, componentstatus.NewRecoverableErrorEvent(fmt.Errorf("%s: %w", r.set.ID, err)))
	}
	status := r.status(now)
	r.backpressure.Interval(status.RingBufferUtilization, status.LostEvents, status.LostPackets)
	r.flows.addStatus(&status)
	r.flushFlows()
	r.sendSpans(now)
	r.sendMetrics(now, &status)
}

func (r *networkReceiver) drain(last bool) error {
	r.newcomers.begin()
	defer r.newcomers.end(r.addNew)
	flipped := kernelclock.Now()
	if err := r.engine.Flip(); err != nil {
		return err
	}
	var err error
	if r.kernelLoss, err = r.engine.Losses(); err != nil {
		return err
	}
	r.mu.Lock()
	lost := r.kernelLoss.Packets + r.lostPackets
	overflow := r.overflow
	r.overflow = newOverflow()
	r.mu.Unlock()

	r.tracker.begin(r.tracker.recorder.clock.Read(), lost-r.lostBefore)
	r.lostBefore = lost
	observe := r.observe
	if r.merger != nil {
		r.merger.begin(r.devices.Devices(), flipped)
		observe = r.merger.observe
	}
	r.tableFlows, err = r.engine.Drain(func(k *network.NetworkFlowKey, f *network.NetworkFlow) {
		if more, ok := overflow.take(k); ok {
			*f = merge(*f, more)
		}
		observe(k, f)
	})
	for k, f := range overflow.all() {
		observe(k, f)
	}
	if r.merger != nil {
		r.merger.end(last, r.observe)
		r.devices.Forget()
	}
	r.tracker.end()
	return err
}

func (r *networkReceiver) observe(k *network.NetworkFlowKey, f *network.NetworkFlow) {
	r.packets += f.Packets
	r.bytes += f.Bytes
	r.tracker.observe(k, f)
}

func (r *networkReceiver) emitFlow(rec flow.Record) {
	if r.namer != nil {
		r.namer.name(&rec, r.tracker.recorder.clock)
	}
	if r.spans != nil {
		r.spans.add(&rec)
	}
	r.flows.addFlow(&rec)
	if r.flows.Records >= maxBatch {
		r.flushFlows()
	}
}

func (r *networkReceiver) emitDrop(d *flow.Drop) {
	r.flows.addDrop(d)
	if r.flows.Records >= maxBatch {
		r.flushFlows()
	}
}

func (r *networkReceiver) flushFlows() {
	full := r.flows
	if full.Records == 0 {
		return
	}
	r.flows = newBatch(r.set.BuildInfo.Version)
	r.consume(full)
}

// consume hands a batch to the pipeline. What the pipeline refuses is lost, and counted.
func (r *networkReceiver) consume(b *batch) {
	if r.logs == nil {
		return
	}
	ctx := r.obs.StartLogsOp(context.Background())
	err := r.logs.ConsumeLogs(ctx, b.Logs)
	r.obs.EndLogsOp(ctx, metadata.Type.String(), b.Records, err)
	if err != nil {
		r.mu.Lock()
		r.lostPackets += b.packets
		r.lostBytes += b.bytes
		r.mu.Unlock()
	}
}

func (r *networkReceiver) sendMetrics(now time.Time, s *flow.NetworkStatus) {
	if r.metrics == nil {
		return
	}
	ts := pcommon.NewTimestampFromTime(now)
	recordSeries(r.tracker, r.mb, ts)
	r.drops.record(r.mb, ts)
	if r.lookups != nil {
		r.lookups.record(r.mb, now)
	}
	r.mb.RecordOrb8NetworkLostPacketsDataPoint(ts, int64(s.LostPackets))
	r.mb.RecordOrb8NetworkLostIoDataPoint(ts, int64(s.LostBytes))
	r.mb.RecordOrb8NetworkUnparsedPacketsDataPoint(ts, int64(s.UnparsedPackets))
	r.mb.RecordOrb8RingBufferDropsDataPoint(ts, int64(s.LostEvents))
	r.mb.RecordOrb8RingBufferUtilizationDataPoint(ts, s.RingBufferUtilization)
	r.mb.RecordOrb8NetworkFlowTableEntriesDataPoint(ts, int64(s.FlowTableEntries))
	r.mb.RecordOrb8NetworkFlowTableLimitDataPoint(ts, int64(s.FlowTableSize))
	r.mb.RecordOrb8NetworkFlowsDataPoint(ts, int64(s.LiveFlows))
	md := r.mb.Emit()
	points := md.DataPointCount()
	ctx := r.obs.StartMetricsOp(context.Background())
	err := r.metrics.ConsumeMetrics(ctx, md)
	r.obs.EndMetricsOp(ctx, metadata.Type.String(), points, err)
}

func (r *networkReceiver) status(now time.Time) flow.NetworkStatus {
	r.mu.Lock()
	lostPackets, lostBytes := r.lostPackets, r.lostBytes
	r.mu.Unlock()
	seconds := max(now.Sub(r.reported.at).Seconds(), time.Millisecond.Seconds())
	packetRate, byteRate := float64(r.packets-r.reported.packets)/seconds, float64(r.bytes-r.reported.bytes)/seconds
	r.reported = reported{now, r.packets, r.bytes}
	return flow.NetworkStatus{
		PacketsPerSecond:      packetRate,
		BytesPerSecond:        byteRate,
		Probes:                bpfstats.Costs(append(r.engine.Programs(), r.drops.programs()...)...),
		Version:               r.set.BuildInfo.Version,
		Kernel:                r.kernel,
		Time:                  now,
		Started:               r.started,
		AttachMode:            r.mode,
		AttachPoints:          r.attachPoints(),
		Interval:              r.cfg.Interval,
		Packets:               r.packets,
		Bytes:                 r.bytes,
		LostPackets:           r.kernelLoss.Packets + lostPackets,
		LostBytes:             r.kernelLoss.Bytes + lostBytes,
		LostEvents:            r.kernelLoss.Events,
		UnparsedPackets:       r.kernelLoss.Unparsed,
		LiveFlows:             uint64(r.tracker.live),
		RingBufferBytes:       uint64(r.cfg.RingBufferSize),
		RingBufferUtilization: r.engine.RingBufferUtilization(),
		FlowTableSize:         uint64(r.cfg.FlowTableSize),
		FlowTableEntries:      uint64(r.tableFlows),
		Drops:                 r.drops.totals,
		Unavailable:           r.unavailable,
	}
}

// attachPoints counts the hooks: two for a cgroup, two for every interface.
func (r *networkReceiver) attachPoints() uint32 {
	if r.devices != nil {
		return uint32(2 * r.devices.Len())
	}
	return 2
}
