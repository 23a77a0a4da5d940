package flowmetricsconnector

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/orb8/orb8/connector/flowmetricsconnector/internal/metadata"
	"github.com/orb8/orb8/internal/flow"
)

type flowMetrics struct {
	cfg       *Config
	set       connector.Settings
	next      consumer.Metrics
	telemetry *metadata.TelemetryBuilder
	// now is time.Now.
	now func() time.Time

	mu    sync.Mutex
	table *table
	// warned tells that the log has a line about folding.
	warned bool

	// stop and done are nil until Start.
	stop context.CancelFunc
	done chan struct{}
}

func newFlowMetrics(set connector.Settings, cfg *Config, next consumer.Metrics) (*flowMetrics, error) {
	telemetry, err := metadata.NewTelemetryBuilder(set.TelemetrySettings)
	if err != nil {
		return nil, fmt.Errorf("cannot create the metrics of the connector: %w", err)
	}
	return &flowMetrics{
		cfg: cfg, set: set, next: next, telemetry: telemetry, now: time.Now, table: newTable(cfg, time.Now()),
	}, nil
}

// Start begins to report the series.
func (c *flowMetrics) Start(context.Context, component.Host) error {
	if err := c.observe(); err != nil {
		return err
	}
	var ctx context.Context
	ctx, c.stop = context.WithCancel(context.Background())
	c.done = make(chan struct{})
	go c.run(ctx)
	return nil
}

func (c *flowMetrics) observe() error {
	err := c.telemetry.RegisterFlowMetricsSeriesCallback(func(_ context.Context, o metric.Int64Observer) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		o.Observe(int64(len(c.table.series)))
		return nil
	})
	if err != nil {
		return err
	}
	return c.telemetry.RegisterFlowMetricsFoldedKeysCallback(func(_ context.Context, o metric.Int64Observer) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		o.Observe(c.table.foldedKeys())
		return nil
	})
}

// Shutdown reports the series a last time, so that what came since the last report is not lost.
func (c *flowMetrics) Shutdown(ctx context.Context) error {
	c.telemetry.Shutdown()
	if c.stop == nil {
		return nil
	}
	c.stop()
	<-c.done
	return c.report(ctx)
}

func (c *flowMetrics) run(ctx context.Context) {
	defer close(c.done)
	ticker := time.NewTicker(c.cfg.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			// What is refused comes again with the next report, as the sums are cumulative.
			if err := c.report(ctx); err != nil && ctx.Err() == nil {
				c.set.Logger.Warn("A report of the workload metrics was refused", zap.Error(err))
			}
		}
	}
}

func (c *flowMetrics) report(ctx context.Context) error {
	md := pmetric.NewMetrics()
	scope := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty()
	scope.Scope().SetName(metadata.ScopeName)
	scope.Scope().SetVersion(c.set.BuildInfo.Version)
	c.mu.Lock()
	c.table.report(scope.Metrics(), c.now())
	c.mu.Unlock()
	if scope.Metrics().Len() == 0 {
		return nil
	}
	return c.next.ConsumeMetrics(ctx, md)
}

// Capabilities says that the records are only read.
func (c *flowMetrics) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

// ConsumeLogs adds flow records to the series of their workloads. It takes other log records without a word, and never
// fails: a malformed flow record is counted and must not keep the others out.
func (c *flowMetrics) ConsumeLogs(ctx context.Context, ld plog.Logs) error {
	c.mu.Lock()
	malformed := c.add(ld)
	full := c.table.folded != nil && !c.warned
	c.warned = c.warned || full
	c.mu.Unlock()
	if malformed > 0 {
		c.telemetry.FlowMetricsMalformedRecords.Add(ctx, malformed)
	}
	if full {
		c.set.Logger.Warn("There are more workload pairs than max_series; new ones are summed up as \"other\". "+
			"Raise max_series, or use fewer dimensions; orb8_flow_metrics_folded_keys tells how many there are",
			zap.Int("max_series", c.cfg.MaxSeries))
	}
	return nil
}

// add returns how many flow records were malformed.
func (c *flowMetrics) add(ld plog.Logs) (malformed int64) {
	now := c.now()
	for _, rl := range ld.ResourceLogs().All() {
		var local naming
		for name, v := range rl.Resource().Attributes().All() {
			local.note(name, v)
		}
		for _, sl := range rl.ScopeLogs().All() {
			for _, lr := range sl.LogRecords().All() {
				if lr.EventName() != flow.EventNameFlow {
					continue
				}
				if k, n, ok := read(&local, lr); ok {
					c.table.add(k, &n, now)
				} else {
					malformed++
				}
			}
		}
	}
	return malformed
}
