package ebpfsyscallreceiver

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.opentelemetry.io/collector/component"

	"github.com/orb8/orb8/internal/ebpfconfig"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/metadata"
)

// maxSampling is the largest factor that the kernel side has room for.
const maxSampling = 1<<24 - 1

// Config is what the user says about the ebpf_syscall receiver.
type Config struct {
	// Interval is the time between two reports of counts and metrics.
	Interval time.Duration `mapstructure:"interval"`
	// RingBufferSize is the size of the event ring buffer in bytes: a power of two from 4096 to 33554432.
	RingBufferSize uint32 `mapstructure:"ring_buffer_size"`
	// Events are log records of single calls, as they are made.
	Events EventsConfig `mapstructure:"events"`
	// Latency measures how long calls take and which error they return.
	Latency bool `mapstructure:"latency"`
	// ProbeStats has the kernel measure what BPF programs cost, all those of the host.
	ProbeStats bool `mapstructure:"probe_stats"`
	// SelfEvents makes events of the collector's own calls too. They are counted in any case.
	SelfEvents bool `mapstructure:"self_events"`

	MetricsBuilderConfig metadata.MetricsBuilderConfig `mapstructure:",squash"`
}

// EventsConfig says which calls become events. Counts do not depend on it. Every call that it does not name is one.
type EventsConfig struct {
	Enabled bool `mapstructure:"enabled"`
	// Hot are the calls of which one in HotSampling is an event; 0: none.
	Hot         []string `mapstructure:"hot"`
	HotSampling uint32   `mapstructure:"hot_sampling"`
	// Sampling is one in so many for single calls, whether they are hot or not; 0: none.
	Sampling map[string]uint32 `mapstructure:"sampling"`
	// Always are the calls whose events are never thinned out, however full the ring buffer is.
	Always []string `mapstructure:"always"`
}

func createDefaultConfig() component.Config {
	return &Config{
		Interval:             5 * time.Second,
		RingBufferSize:       512 << 10,
		Events:               EventsConfig{Enabled: true, Hot: defaultHot(), HotSampling: 100, Always: defaultAlways()},
		MetricsBuilderConfig: metadata.NewDefaultMetricsBuilderConfig(),
	}
}

// Validate names the key that is wrong, its value and what is allowed.
func (c *Config) Validate() error {
	errs := []error{ebpfconfig.CheckRingBufferSize(c.RingBufferSize), ebpfconfig.CheckInterval(c.Interval)}
	return errors.Join(append(errs, c.Events.validate())...)
}

func (c *EventsConfig) validate() error {
	var errs []error
	known := func(key string, names []string) {
		for _, name := range names {
			if !syscalls.Known(name) {
				errs = append(errs, fmt.Errorf("%s: %q is no system call; use a name such as openat", key, name))
			}
		}
	}
	sampled := slices.Sorted(maps.Keys(c.Sampling))
	known("events.hot", c.Hot)
	known("events.sampling", sampled)
	known("events.always", c.Always)
	if c.HotSampling > maxSampling {
		errs = append(errs, fmt.Errorf("events.hot_sampling: %d is too much; use 0 (none) to %d", c.HotSampling, maxSampling))
	}
	for _, name := range sampled {
		if n := c.Sampling[name]; n > maxSampling {
			errs = append(errs, fmt.Errorf("events.sampling: %s: %d is too much; use 0 (none) to %d", name, n, maxSampling))
		}
	}
	for _, name := range c.Always {
		if n := c.sampling(name); n != 1 {
			errs = append(errs, fmt.Errorf("events.always: %s is sampled by events.hot or events.sampling, one in %d; "+
				"leave it out of one of them", name, n))
		}
	}
	return errors.Join(errs...)
}

// sampling returns of how many calls of a name one is an event.
func (c *EventsConfig) sampling(name string) uint32 {
	if n, ok := c.Sampling[name]; ok {
		return n
	}
	if slices.Contains(c.Hot, name) {
		return c.HotSampling
	}
	return 1
}
