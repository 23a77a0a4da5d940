//go:build !linux

package ebpfnetworkreceiver

import (
	"context"
	"errors"
	"runtime"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
)

type networkReceiver struct {
	logs    consumer.Logs
	metrics consumer.Metrics
	traces  consumer.Traces
}

func newNetworkReceiver(receiver.Settings, *Config) (*networkReceiver, error) {
	return nil, errors.New("ebpf_network: eBPF is a part of Linux; this collector was built for " + runtime.GOOS)
}

func (*networkReceiver) Start(context.Context, component.Host) error { return nil }

func (*networkReceiver) Shutdown(context.Context) error { return nil }
