//go:build !linux

package gpureceiver

import (
	"context"
	"errors"
	"runtime"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver"
)

type gpuReceiver struct {
	logs    consumer.Logs
	scraped bool
}

func newGPUReceiver(receiver.Settings, *Config) (*gpuReceiver, error) {
	return nil, errors.New("gpu: GPUs are watched on Linux; this collector was built for " + runtime.GOOS)
}

func (*gpuReceiver) Start(context.Context, component.Host) error { return nil }

func (*gpuReceiver) Shutdown(context.Context) error { return nil }

func (*gpuReceiver) scrape(context.Context) (pmetric.Metrics, error) {
	return pmetric.NewMetrics(), nil
}
