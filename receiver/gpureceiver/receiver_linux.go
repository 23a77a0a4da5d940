package gpureceiver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receiverhelper"
	"go.opentelemetry.io/collector/scraper/scrapererror"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/preflight"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/metadata"
)

// source is one way to learn what GPUs do. It is called by one goroutine at a time.
type source interface {
	// scrape records what the source sees now. An error tells that all or some of it is missing, and what; what was recorded counts.
	// It is an absence where the host does not have what the source is of.
	scrape(ctx context.Context, to *recorder) error
	close() error
}

// absence is the error of a source that is not on this host: no failure, unless the configuration wants it to be there.
type absence struct{ error }

func (a absence) Unwrap() error { return a.error }

// sourceState is a source and what it said last.
type sourceState struct {
	source
	name string
	mode Mode
	// said is the text of its last error; empty where there was none. asked tells that it was scraped at all.
	said   string
	absent bool
	asked  bool
	// became is what the status says of it, and took the time of its part of the last scrape.
	became string
	took   time.Duration
}

// gpuReceiver asks its sources once an interval, one after the other. What two of them see, it takes from the first.
type gpuReceiver struct {
	cfg  *Config
	set  receiver.Settings
	logs consumer.Logs
	// scraped tells that a metrics pipeline asks for scrapes. Else run does, for the events.
	scraped bool
	kernel  string
	// tellStatus takes the status of each scrape; nil without a logs pipeline.
	tellStatus func(context.Context, gpu.Status)

	obs       *receiverhelper.ObsReport
	telemetry *metadata.TelemetryBuilder
	mb        *metadata.MetricsBuilder
	events    *eventLog
	host      component.Host
	cancel    context.CancelFunc
	wg        sync.WaitGroup

	// mu guards what follows: scrapes of the pipeline, and the end.
	mu      sync.Mutex
	sources []*sourceState
	// off are the sources that nobody wants.
	off []string
	// started is when this receiver's own counters began.
	started  time.Time
	quarrels quarrels
	// scrapes were made, and a source failed in failedScrapes of them.
	scrapes, failedScrapes uint64
	// reported is the last component status, once there is one.
	reported *string

	lostEvents atomic.Uint64
}

func newGPUReceiver(set receiver.Settings, cfg *Config) (*gpuReceiver, error) {
	obs, err := receiverhelper.NewObsReport(receiverhelper.ObsReportSettings{ReceiverID: set.ID, Transport: "gpu", ReceiverCreateSettings: set})
	if err != nil {
		return nil, fmt.Errorf("cannot create the receiver's own telemetry: %w", err)
	}
	telemetry, err := metadata.NewTelemetryBuilder(set.TelemetrySettings)
	if err != nil {
		return nil, fmt.Errorf("cannot create the receiver's own telemetry: %w", err)
	}
	r := &gpuReceiver{cfg: cfg, set: set, obs: obs, telemetry: telemetry, mb: metadata.NewMetricsBuilder(cfg.MetricsBuilderConfig, set)}
	r.events = newEventLog(&cfg.Events, set.BuildInfo.Version)
	r.addSources()
	return r, nil
}

// Start never fails for what a host lacks: GPUs and drivers come and go while the collector runs.
func (r *gpuReceiver) Start(_ context.Context, host component.Host) error {
	r.host = host
	r.started = time.Now()
	r.kernel = preflight.KernelRelease()
	if r.logs != nil {
		r.tellStatus = r.sendStatus
	}
	if r.logs != nil && r.cfg.Events.Enabled {
		r.events.send = r.sendEvents
	}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	if !r.scraped {
		r.wg.Add(1)
		go r.run(ctx)
	}
	return nil
}

// Shutdown closes the sources.
func (r *gpuReceiver) Shutdown(context.Context) error {
	if r.cancel != nil {
		r.cancel()
	}
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, s := range r.sources {
		if err := s.close(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	r.sources = nil
	r.telemetry.Shutdown()
	return errors.Join(errs...)
}

// run scrapes where only events are wanted: some of them are found by comparing scrapes.
func (r *gpuReceiver) run(ctx context.Context) {
	defer r.wg.Done()
	scrapes := time.NewTicker(r.cfg.CollectionInterval)
	defer scrapes.Stop()
	for {
		// What is missing is in the status and in the log.
		_, _ = r.scrape(ctx)
		select {
		case <-ctx.Done():
			return
		case <-scrapes.C:
		}
	}
}

// scrape asks all sources. What one of them lacks is told once, in the log and in the component's status, and never ends the scrape.
func (r *gpuReceiver) scrape(ctx context.Context) (pmetric.Metrics, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	to := newRecorder(time.Now())
	var failures []error
	for _, s := range r.sources {
		begin := time.Now()
		before := len(to.observations)
		err := s.scrape(ctx, to)
		s.took = time.Since(begin)
		r.measure(ctx, s, err)
		if r.tell(s, err) {
			failures = append(failures, fmt.Errorf("%s: %w", s.name, err))
		}
		s.became = s.state(err, len(to.observations) > before)
	}
	to.attribute()
	for _, c := range r.quarrels.update(to.conflicts(), to.at) {
		r.quarrel(ctx, &c)
	}
	// Before the counts of errors, which devices have that no source sees any more.
	devices := maps.Clone(to.known)
	r.events.interval(to)
	r.report(failures)
	r.scrapes++
	if len(failures) > 0 {
		r.failedScrapes++
	}
	if r.tellStatus != nil {
		r.tellStatus(ctx, r.status(to.at, devices))
	}
	md := to.emit(r.mb, r.started)
	if len(failures) > 0 {
		// Scrapes that are not whole are counted as such; the log has the reason already.
		return md, scrapererror.NewPartialScrapeError(errors.Join(failures...), len(failures))
	}
	return md, nil
}

func (r *gpuReceiver) measure(ctx context.Context, s *sourceState, err error) {
	name := attribute.String("orb8.gpu.source", s.name)
	state, up := "up", int64(1)
	if err != nil {
		state, up = "down", 0
	}
	r.telemetry.GpuSourceDuration.Record(ctx, s.took.Seconds(), metric.WithAttributes(name, attribute.String("orb8.gpu.source.state", state)))
	r.telemetry.GpuSourceUp.Record(ctx, up, metric.WithAttributes(name))
}

// tell writes what a source says into the log when it says something new, and returns whether it is a failure: what is not there is
// none, where it need not be.
func (r *gpuReceiver) tell(s *sourceState, err error) (failed bool) {
	said, absent := "", false
	if err != nil {
		said = err.Error()
		var a absence
		absent = errors.As(err, &a) && s.mode == ModeAuto
	}
	news := !s.asked || said != s.said
	s.asked, s.said, s.absent = true, said, absent
	name := zap.String("source", s.name)
	switch {
	case !news:
	case err == nil:
		r.set.Logger.Info("GPUs are watched", name)
	case absent:
		r.set.Logger.Info("GPUs are not watched by a source that this host does not have", name, zap.Error(err))
	default:
		r.set.Logger.Warn("GPUs are not watched as the configuration wants it", name, zap.Error(err))
	}
	return err != nil && !absent
}

// attrAbsent is the attribute of the component's status that names the sources that are not there, and why.
const attrAbsent = "orb8.gpu.source.absent"

// report tells the component's status when it changes: an error where a source fails, else OK and what is absent.
func (r *gpuReceiver) report(failures []error) {
	var absent []string
	for _, s := range r.sources {
		if s.absent {
			absent = append(absent, s.name+": "+s.said)
		}
	}
	var event *componentstatus.Event
	now := strings.Join(absent, "; ")
	if err := errors.Join(failures...); err != nil {
		now = "error: " + err.Error()
		event = componentstatus.NewRecoverableErrorEvent(fmt.Errorf("%s: %w", r.set.ID, err))
	} else {
		attributes := pcommon.NewMap()
		if now != "" {
			attributes.PutStr(attrAbsent, now)
		}
		event = componentstatus.NewEvent(componentstatus.StatusOK, componentstatus.WithAttributes(attributes))
	}
	if r.reported != nil && *r.reported == now {
		return
	}
	r.reported = &now
	componentstatus.ReportStatus(r.host, event)
}
