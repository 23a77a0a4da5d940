package ebpfnetworkreceiver

import (
	"context"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"

	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/metadata"
)

// NewFactory creates the factory of the ebpf_network receiver.
func NewFactory() receiver.Factory {
	f := &factory{receivers: map[component.Config]*sharedReceiver{}}
	return receiver.NewFactory(metadata.Type, createDefaultConfig,
		receiver.WithLogs(f.createLogs, metadata.LogsStability),
		receiver.WithMetrics(f.createMetrics, metadata.MetricsStability),
		receiver.WithTraces(f.createTraces, metadata.TracesStability))
}

// factory gives the logs, the metrics and the traces pipelines of one configuration the same receiver, so that the programs are
// loaded, and every packet counted, once.
type factory struct {
	mu        sync.Mutex
	receivers map[component.Config]*sharedReceiver
}

func (f *factory) createLogs(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Logs) (receiver.Logs, error) {
	r, err := f.shared(set, cfg)
	if err != nil {
		return nil, err
	}
	r.receiver.logs = next
	return r, nil
}

func (f *factory) createMetrics(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Metrics) (receiver.Metrics, error) {
	r, err := f.shared(set, cfg)
	if err != nil {
		return nil, err
	}
	r.receiver.metrics = next
	return r, nil
}

func (f *factory) createTraces(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Traces) (receiver.Traces, error) {
	r, err := f.shared(set, cfg)
	if err != nil {
		return nil, err
	}
	r.receiver.traces = next
	return r, nil
}

func (f *factory) shared(set receiver.Settings, cfg component.Config) (*sharedReceiver, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, ok := f.receivers[cfg]; ok {
		return r, nil
	}
	nr, err := newNetworkReceiver(set, cfg.(*Config))
	if err != nil {
		return nil, err
	}
	r := &sharedReceiver{receiver: nr, forget: func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.receivers, cfg)
	}}
	f.receivers[cfg] = r
	return r, nil
}

// sharedReceiver starts its receiver at the first Start and stops it at the first Shutdown: the pipelines of a
// Collector start and stop together.
type sharedReceiver struct {
	receiver *networkReceiver
	forget   func()

	start, stop       sync.Once
	startErr, stopErr error
}

func (s *sharedReceiver) Start(_ context.Context, host component.Host) error {
	s.start.Do(func() { s.startErr = s.receiver.start(host) })
	return s.startErr
}

func (s *sharedReceiver) Shutdown(ctx context.Context) error {
	s.stop.Do(func() {
		s.forget()
		s.stopErr = s.receiver.shutdown(ctx)
	})
	return s.stopErr
}
