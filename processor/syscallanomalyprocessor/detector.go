package syscallanomalyprocessor

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/processor/syscallanomalyprocessor/internal/metadata"
)

// detector is what the processors of one configuration share. It starts with the first of them and stops with the last, so that
// all that they see is in the profiles that are saved.
type detector struct {
	cfg       *Config
	set       processor.Settings
	telemetry *metadata.TelemetryBuilder
	counters  *counters
	now       func() time.Time
	rules     *ruleSet
	store     store

	// life is for start and shutdown: metrics are registered then, and their callbacks wait for mu.
	life sync.Mutex
	// users is how many processors have started and not stopped.
	users   int
	stop    context.CancelFunc
	stopped chan struct{}

	// mu is for all below.
	mu         sync.Mutex
	naming     naming
	profiles   *profiles
	containers *containers
	// said is what was logged once: by rule, or "" for a full table of profiles.
	said map[string]bool
}

func newDetector(set processor.Settings, cfg *Config) (*detector, error) {
	rules, err := cfg.Rules.load()
	if err != nil {
		return nil, err
	}
	telemetry, err := metadata.NewTelemetryBuilder(set.TelemetrySettings)
	if err != nil {
		return nil, err
	}
	d := &detector{
		cfg:       cfg,
		set:       set,
		telemetry: telemetry,
		counters:  newCounters(telemetry),
		now:       time.Now,
		rules:     rules,
		store:     store{logger: set.Logger},
		naming:    naming{sets: cfg.Workload},
		profiles:  newProfiles(cfg.MaxProfiles),
		said:      map[string]bool{},
	}
	d.containers, err = newContainers()
	return d, err
}

func (d *detector) start(ctx context.Context, host component.Host) error {
	d.life.Lock()
	defer d.life.Unlock()
	if d.users++; d.users > 1 {
		return nil
	}
	if err := d.open(ctx, host); err != nil {
		d.users--
		return err
	}
	ctx, d.stop = context.WithCancel(context.WithoutCancel(ctx))
	d.stopped = make(chan struct{})
	go d.keep(ctx)
	return nil
}

func (d *detector) open(ctx context.Context, host component.Host) error {
	if d.cfg.Storage == nil {
		d.set.Logger.Info("Profiles of system calls are kept in memory and learned anew after a restart; give storage a storage extension to keep them")
	} else {
		if err := d.store.open(ctx, host, *d.cfg.Storage, d.set.ID); err != nil {
			return err
		}
		d.mu.Lock()
		d.store.load(ctx, d.profiles)
		d.mu.Unlock()
	}
	if err := d.telemetry.RegisterProcessorSyscallAnomalyProfilesCallback(d.observe(func() int64 { return int64(len(d.profiles.byKey)) })); err != nil {
		return err
	}
	return d.telemetry.RegisterProcessorSyscallAnomalyLearningProfilesCallback(d.observe(func() int64 { return d.profiles.learning() }))
}

func (d *detector) observe(value func() int64) metric.Int64Callback {
	return func(_ context.Context, o metric.Int64Observer) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		o.Observe(value())
		return nil
	}
}

// keep expires and saves profiles until the detector stops.
func (d *detector) keep(ctx context.Context) {
	defer close(d.stopped)
	tick := time.NewTicker(d.cfg.SaveInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			d.sweep(ctx)
		}
	}
}

func (d *detector) sweep(ctx context.Context) {
	d.mu.Lock()
	expired := d.profiles.expire(d.now().Add(-d.cfg.Expiry))
	d.mu.Unlock()
	if expired > 0 {
		d.counters.evicted(ctx, causeExpired, expired)
	}
	d.store.save(ctx, d, false)
}

func (d *detector) shutdown(ctx context.Context) error {
	d.life.Lock()
	defer d.life.Unlock()
	last := d.users == 1
	d.users = max(0, d.users-1)
	if !last {
		return nil
	}
	d.stop()
	<-d.stopped
	d.telemetry.Shutdown()
	d.store.save(ctx, d, true)
	return d.store.close(ctx)
}

// logs examines the records of system calls and appends what is out of the ordinary to their resource.
func (d *detector) logs(ctx context.Context, ld plog.Logs) (plog.Logs, error) {
	var b *batch
	for _, rl := range ld.ResourceLogs().All() {
		for _, sl := range rl.ScopeLogs().All() {
			for _, lr := range sl.LogRecords().All() {
				switch lr.EventName() {
				case syscalls.EventNameCounts, syscalls.EventNameEvent:
				default:
					continue
				}
				if b == nil {
					d.mu.Lock()
					b = &batch{d: d, now: d.now()}
				}
				if b.resource != rl {
					b.enter(ctx, rl)
				}
				b.examine(ctx, sl, lr)
			}
		}
		if b != nil {
			b.leave(rl)
		}
	}
	if b != nil {
		d.mu.Unlock()
	}
	return ld, nil
}

// once logs a warning the first time.
func (d *detector) once(about, message string, fields ...zap.Field) {
	if !d.said[about] {
		d.said[about] = true
		d.set.Logger.Warn(message, fields...)
	}
}
