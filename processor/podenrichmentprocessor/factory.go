package podenrichmentprocessor

import (
	"context"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/processorhelper"

	"github.com/orb8/orb8/processor/podenrichmentprocessor/internal/metadata"
)

// NewFactory creates the factory of the pod_enrichment processor.
func NewFactory() processor.Factory {
	f := &factory{enrichers: map[component.Config]*enricher{}}
	return processor.NewFactory(metadata.Type, createDefaultConfig,
		processor.WithLogs(f.createLogs, metadata.LogsStability),
		processor.WithMetrics(f.createMetrics, metadata.MetricsStability),
		processor.WithTraces(f.createTraces, metadata.TracesStability))
}

// factory gives the processors of one configuration the same enricher, so that the cgroups are followed once and not
// once a pipeline.
type factory struct {
	mu        sync.Mutex
	enrichers map[component.Config]*enricher
}

func (f *factory) createLogs(ctx context.Context, set processor.Settings, cfg component.Config, next consumer.Logs) (processor.Logs, error) {
	e, err := f.shared(set, cfg)
	if err != nil {
		return nil, err
	}
	q := e.pods.logsQueue(next)
	return processorhelper.NewLogs(ctx, set, cfg, next, func(ctx context.Context, data plog.Logs) (plog.Logs, error) {
		return e.logs(ctx, data, q)
	}, f.options(e)...)
}

func (f *factory) createMetrics(ctx context.Context, set processor.Settings, cfg component.Config, next consumer.Metrics) (processor.Metrics, error) {
	e, err := f.shared(set, cfg)
	if err != nil {
		return nil, err
	}
	q := e.pods.metricsQueue(next)
	return processorhelper.NewMetrics(ctx, set, cfg, next, func(ctx context.Context, data pmetric.Metrics) (pmetric.Metrics, error) {
		return e.metrics(ctx, data, q)
	}, f.options(e)...)
}

func (f *factory) createTraces(ctx context.Context, set processor.Settings, cfg component.Config, next consumer.Traces) (processor.Traces, error) {
	e, err := f.shared(set, cfg)
	if err != nil {
		return nil, err
	}
	q := e.pods.tracesQueue(next)
	return processorhelper.NewTraces(ctx, set, cfg, next, func(ctx context.Context, data ptrace.Traces) (ptrace.Traces, error) {
		return e.traces(ctx, data, q)
	}, f.options(e)...)
}

func (f *factory) options(e *enricher) []processorhelper.Option {
	return []processorhelper.Option{
		processorhelper.WithCapabilities(consumer.Capabilities{MutatesData: true}),
		processorhelper.WithStart(e.start),
		processorhelper.WithShutdown(func(context.Context) error {
			f.mu.Lock()
			delete(f.enrichers, e.cfg)
			f.mu.Unlock()
			return e.shutdown()
		}),
	}
}

func (f *factory) shared(set processor.Settings, cfg component.Config) (*enricher, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e, ok := f.enrichers[cfg]; ok {
		return e, nil
	}
	e, err := newEnricher(set, cfg.(*Config))
	if err != nil {
		return nil, err
	}
	f.enrichers[cfg] = e
	return e, nil
}
