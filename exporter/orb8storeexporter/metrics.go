package orb8storeexporter

import (
	"context"
	"errors"

	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.uber.org/zap"

	"github.com/orb8/orb8/internal/gpu"
)

// consumeMetrics writes the samples of GPUs that are among the data points. As consume, it fails only when the store does.
func (e *storeExporter) consumeMetrics(ctx context.Context, metrics pmetric.Metrics) error {
	b, _ := e.metricBatches.Get().(*metricBatch)
	if b == nil {
		b = &metricBatch{}
	}
	*b = metricBatch{write: e.writer.WriteGPU, samples: b.samples[:0]}
	defer e.metricBatches.Put(b)
	err := b.metrics(ctx, metrics)
	if b.ignored > 0 {
		e.telemetry.StoreIgnoredDataPoints.Add(ctx, b.ignored)
	}
	if b.malformed > 0 {
		e.telemetry.StoreMalformedDataPoints.Add(ctx, b.malformed)
		e.settings.Logger.Debug("Dropped malformed data points", zap.Int64("count", b.malformed), zap.NamedError("first", b.first))
	}
	return err
}

// metricBatch is the decoding of one batch of metrics.
type metricBatch struct {
	write   func(context.Context, []gpu.Sample) error
	samples []gpu.Sample

	ignored, malformed int64
	// first is what is wrong with the first malformed data point.
	first error
}

func (b *metricBatch) metrics(ctx context.Context, metrics pmetric.Metrics) error {
	for _, resource := range metrics.ResourceMetrics().All() {
		reader := gpu.NewReader(resource.Resource())
		for _, scope := range resource.ScopeMetrics().All() {
			for _, metric := range scope.Metrics().All() {
				if err := b.metric(ctx, reader, metric); err != nil {
					return err
				}
			}
		}
	}
	return write(ctx, &b.samples, b.write)
}

func (b *metricBatch) metric(ctx context.Context, reader *gpu.Reader, metric pmetric.Metric) error {
	for sample, err := range reader.Read(metric) {
		switch {
		case errors.Is(err, gpu.ErrForeign):
			b.ignored++
			continue
		case err != nil:
			b.malformed++
			if b.first == nil {
				b.first = err
			}
			continue
		}
		if b.samples = append(b.samples, sample); len(b.samples) == maxBatch {
			if err := write(ctx, &b.samples, b.write); err != nil {
				return err
			}
		}
	}
	return nil
}
