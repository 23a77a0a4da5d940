package ebpfnetworkreceiver

import (
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"

	"github.com/orb8/orb8/internal/sharedcomponent"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/metadata"
)

// NewFactory creates the factory of the ebpf_network receiver.
func NewFactory() receiver.Factory {
	f := &factory{}
	return receiver.NewFactory(metadata.Type, createDefaultConfig,
		receiver.WithLogs(f.createLogs, metadata.LogsStability),
		receiver.WithMetrics(f.createMetrics, metadata.MetricsStability),
		receiver.WithTraces(f.createTraces, metadata.TracesStability))
}

// factory gives the logs, the metrics and the traces pipelines of one configuration the same receiver, so that the programs are
// loaded, and every packet counted, once.
type factory struct {
	receivers sharedcomponent.Components[*networkReceiver]
}

func (f *factory) createLogs(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Logs) (receiver.Logs, error) {
	r, err := f.shared(set, cfg)
	if err != nil {
		return nil, err
	}
	r.Inner.logs = next
	return r, nil
}

func (f *factory) createMetrics(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Metrics) (receiver.Metrics, error) {
	r, err := f.shared(set, cfg)
	if err != nil {
		return nil, err
	}
	r.Inner.metrics = next
	return r, nil
}

func (f *factory) createTraces(_ context.Context, set receiver.Settings, cfg component.Config, next consumer.Traces) (receiver.Traces, error) {
	r, err := f.shared(set, cfg)
	if err != nil {
		return nil, err
	}
	r.Inner.traces = next
	return r, nil
}

func (f *factory) shared(set receiver.Settings, cfg component.Config) (*sharedcomponent.Component[*networkReceiver], error) {
	return f.receivers.Get(cfg, func() (*networkReceiver, error) { return newNetworkReceiver(set, cfg.(*Config)) })
}
