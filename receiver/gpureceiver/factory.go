package gpureceiver

import (
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/scraper"
	"go.opentelemetry.io/collector/scraper/scraperhelper"

	"github.com/orb8/orb8/internal/sharedcomponent"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/metadata"
)

// NewFactory creates the factory of the gpu receiver.
func NewFactory() receiver.Factory {
	f := &factory{}
	return receiver.NewFactory(metadata.Type, createDefaultConfig,
		receiver.WithLogs(f.createLogs, metadata.LogsStability),
		receiver.WithMetrics(f.createMetrics, metadata.MetricsStability))
}

// factory gives the logs and the metrics pipelines of one configuration the same receiver, so that the driver is opened once.
type factory struct {
	receivers sharedcomponent.Components[*gpuReceiver]
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
	r.Inner.scraped = true
	s, err := scraper.NewMetrics(r.Inner.scrape, scraper.WithStart(r.Start), scraper.WithShutdown(r.Shutdown))
	if err != nil {
		return nil, err
	}
	return scraperhelper.NewMetricsController(&cfg.(*Config).ControllerConfig, set, next, scraperhelper.AddMetricsScraper(metadata.Type, s))
}

func (f *factory) shared(set receiver.Settings, cfg component.Config) (*sharedcomponent.Component[*gpuReceiver], error) {
	return f.receivers.Get(cfg, func() (*gpuReceiver, error) { return newGPUReceiver(set, cfg.(*Config)) })
}
