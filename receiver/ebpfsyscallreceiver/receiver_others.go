//go:build !linux

package ebpfsyscallreceiver

import (
	"context"
	"errors"
	"runtime"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
)

type syscallReceiver struct {
	logs    consumer.Logs
	metrics consumer.Metrics
}

func newSyscallReceiver(receiver.Settings, *Config) (*syscallReceiver, error) {
	return nil, errors.New("ebpf_syscall: eBPF is a part of Linux; this collector was built for " + runtime.GOOS)
}

func (*syscallReceiver) Start(context.Context, component.Host) error { return nil }

func (*syscallReceiver) Shutdown(context.Context) error { return nil }
