package syscallanomalyprocessor

import (
	"context"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/collector/processor/processorhelper"

	"github.com/orb8/orb8/processor/syscallanomalyprocessor/internal/metadata"
)

// NewFactory creates the factory of the syscall_anomaly processor.
func NewFactory() processor.Factory {
	f := &factory{detectors: map[component.Config]*detector{}}
	return processor.NewFactory(metadata.Type, createDefaultConfig, processor.WithLogs(f.createLogs, metadata.LogsStability))
}

// factory gives the processors of one configuration the same detector: what a workload does is in one profile, and a storage
// extension opens its file once.
type factory struct {
	mu        sync.Mutex
	detectors map[component.Config]*detector
}

func (f *factory) createLogs(ctx context.Context, set processor.Settings, cfg component.Config, next consumer.Logs) (processor.Logs, error) {
	d, err := f.shared(set, cfg)
	if err != nil {
		return nil, err
	}
	return processorhelper.NewLogs(ctx, set, cfg, next, d.logs,
		processorhelper.WithCapabilities(consumer.Capabilities{MutatesData: true}),
		processorhelper.WithStart(d.start),
		processorhelper.WithShutdown(func(ctx context.Context) error {
			f.mu.Lock()
			delete(f.detectors, cfg)
			f.mu.Unlock()
			return d.shutdown(ctx)
		}))
}

func (f *factory) shared(set processor.Settings, cfg component.Config) (*detector, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d, ok := f.detectors[cfg]; ok {
		return d, nil
	}
	d, err := newDetector(set, cfg.(*Config))
	if err != nil {
		return nil, err
	}
	f.detectors[cfg] = d
	return d, nil
}
