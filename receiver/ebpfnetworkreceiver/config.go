package ebpfnetworkreceiver

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"go.opentelemetry.io/collector/component"

	"github.com/orb8/orb8/internal/ebpfconfig"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/metadata"
)

// The values of attach.mode.
const (
	modeAuto   = "auto"
	modeCgroup = "cgroup"
	modeTC     = "tc"
)

const (
	maxFlowTableSize = 10_000_000
	maxDNSPorts      = 4
	minDNSTimeout    = 100 * time.Millisecond
	maxDNSTimeout    = time.Minute
)

// Config is what the user says about the ebpf_network receiver.
type Config struct {
	Attach AttachConfig `mapstructure:"attach"`
	// RingBufferSize is the size of the event ring buffer in bytes: a power of two from 4096 to 33554432.
	RingBufferSize uint32 `mapstructure:"ring_buffer_size"`
	// FlowTableSize is the number of flows that one interval can hold in the kernel, 1 to 10000000.
	FlowTableSize uint32 `mapstructure:"flow_table_size"`
	// Interval is the time between two records of a flow that is alive.
	Interval time.Duration `mapstructure:"interval"`
	// IdleTimeout ends a flow that has had no packet for so long.
	IdleTimeout time.Duration `mapstructure:"idle_timeout"`
	// Events are log records of what happens, when it happens.
	Events EventsConfig `mapstructure:"events"`
	// Tunnels counts the packets inside VXLAN, Geneve, GRE and IP in IP rather than those outside. Mode tc only: a socket
	// sees its own packets anyway.
	Tunnels bool `mapstructure:"tunnels"`
	// SelfTraffic includes the collector's own sockets.
	SelfTraffic bool `mapstructure:"self_traffic"`
	// ProbeStats has the kernel measure what BPF programs cost, all those of the host.
	ProbeStats bool `mapstructure:"probe_stats"`
	// Drops counts what the kernel drops, by reason.
	Drops DropsConfig `mapstructure:"drops"`
	// DNS makes lookups of DNS packets, and names flows by them.
	DNS DNSConfig `mapstructure:"dns"`

	MetricsBuilderConfig metadata.MetricsBuilderConfig `mapstructure:",squash"`
}

// EventsConfig says what becomes an event. Counters do not depend on it.
type EventsConfig struct {
	// Enabled turns on an event for every new flow, SYN, FIN and RST. These are never sampled.
	Enabled bool `mapstructure:"enabled"`
	// FirstPackets makes the first so many packets of a flow in an interval events too.
	FirstPackets uint32 `mapstructure:"first_packets"`
	// Sampling makes one in so many of the other packets an event; 0: none. While more than 80 % of the ring buffer is
	// unread, it is one in ten times as many.
	Sampling uint32 `mapstructure:"sampling"`
}

// AttachConfig says where packets are watched.
type AttachConfig struct {
	// Mode is cgroup (at the sockets of a cgroup v2 hierarchy), tc (at interfaces), or auto: cgroup where there is a
	// cgroup v2 hierarchy, tc where not.
	Mode string `mapstructure:"mode"`
	// CgroupPath is the root of the cgroup v2 hierarchy; when it is empty, it is looked up in the mounts.
	CgroupPath string `mapstructure:"cgroup_path"`
	// Interfaces selects the interfaces of mode tc.
	Interfaces InterfacesConfig `mapstructure:"interfaces"`
}

// InterfacesConfig selects interfaces by name patterns as of path.Match. An interface is watched when it matches any
// of Include and none of Exclude.
type InterfacesConfig struct {
	Include []string `mapstructure:"include"`
	Exclude []string `mapstructure:"exclude"`
}

// DropsConfig says whether dropped packets are counted.
type DropsConfig struct {
	Enabled bool `mapstructure:"enabled"`
}

// DNSConfig says what is taken for DNS.
type DNSConfig struct {
	Enabled bool `mapstructure:"enabled"`
	// Ports are those of DNS servers, UDP and TCP: 1 to 4 of them.
	Ports []uint16 `mapstructure:"ports"`
	// Timeout is how long a query waits for its response.
	Timeout time.Duration `mapstructure:"timeout"`
}

func createDefaultConfig() component.Config {
	return &Config{
		Attach: AttachConfig{
			Mode: modeAuto,
			Interfaces: InterfacesConfig{
				Include: []string{"eth*", "en*", "cni0", "docker0", "br-*", "veth*"},
			},
		},
		RingBufferSize:       1 << 20,
		FlowTableSize:        100_000,
		Interval:             5 * time.Second,
		IdleTimeout:          time.Minute,
		Events:               EventsConfig{Enabled: true},
		Drops:                DropsConfig{Enabled: true},
		DNS:                  DNSConfig{Enabled: true, Ports: []uint16{53}, Timeout: 10 * time.Second},
		MetricsBuilderConfig: metadata.NewDefaultMetricsBuilderConfig(),
	}
}

// Validate names the key that is wrong, its value and what is allowed.
func (c *Config) Validate() error {
	errs := []error{ebpfconfig.CheckRingBufferSize(c.RingBufferSize), ebpfconfig.CheckInterval(c.Interval)}
	if n := c.FlowTableSize; n < 1 || n > maxFlowTableSize {
		errs = append(errs, fmt.Errorf("flow_table_size: %d is not allowed; use 1 to %d (flows)", n, maxFlowTableSize))
	}
	if c.IdleTimeout < c.Interval {
		errs = append(errs, fmt.Errorf("idle_timeout: %s is shorter than interval (%s); use %s or more", c.IdleTimeout,
			c.Interval, c.Interval))
	}
	if c.Tunnels && c.Attach.Mode == modeCgroup {
		errs = append(errs, fmt.Errorf("tunnels: true is of no use with attach.mode %s; use attach.mode %s", modeCgroup, modeTC))
	}
	return errors.Join(append(errs, c.Attach.validate(), c.DNS.validate())...)
}

// ports is what the programs take for DNS: 0 is none.
func (c *DNSConfig) ports() (ports [maxDNSPorts]uint16) {
	if c.Enabled {
		copy(ports[:], c.Ports)
	}
	return ports
}

func (c *DNSConfig) validate() error {
	if !c.Enabled {
		return nil
	}
	var errs []error
	if n := len(c.Ports); n < 1 || n > maxDNSPorts {
		errs = append(errs, fmt.Errorf("dns.ports: %d ports are not allowed; use 1 to %d, or dns.enabled: false", n, maxDNSPorts))
	}
	for i, port := range c.Ports {
		if port == 0 || slices.Contains(c.Ports[:i], port) {
			errs = append(errs, fmt.Errorf("dns.ports: %d is not allowed; use ports from 1 to 65535, each once", port))
		}
	}
	if c.Timeout < minDNSTimeout || c.Timeout > maxDNSTimeout {
		errs = append(errs, fmt.Errorf("dns.timeout: %s is not allowed; use %s to %s", c.Timeout, minDNSTimeout, maxDNSTimeout))
	}
	return errors.Join(errs...)
}

func (c *AttachConfig) validate() error {
	var errs []error
	switch c.Mode {
	case modeAuto, modeCgroup:
	case modeTC:
		if len(c.Interfaces.Include) == 0 {
			errs = append(errs, errors.New("attach.interfaces.include: is empty, so nothing would be watched; "+
				`name interfaces, or use "*" for all`))
		}
	default:
		errs = append(errs, fmt.Errorf("attach.mode: %q is not allowed; use %s, %s or %s", c.Mode, modeAuto, modeCgroup, modeTC))
	}
	if c.CgroupPath != "" && !path.IsAbs(c.CgroupPath) {
		errs = append(errs, fmt.Errorf("attach.cgroup_path: %q is not an absolute path; use one such as /sys/fs/cgroup, "+
			"or leave it empty to have it found", c.CgroupPath))
	}
	for key, patterns := range map[string][]string{"include": c.Interfaces.Include, "exclude": c.Interfaces.Exclude} {
		for _, p := range patterns {
			if _, err := path.Match(p, ""); err != nil {
				errs = append(errs, fmt.Errorf("attach.interfaces.%s: %q is not a pattern; use names with *, ? and [a-z], "+
					`such as "veth*"`, key, p))
			}
		}
	}
	return errors.Join(errs...)
}

// wanted tells whether an interface is selected. The patterns have been validated.
func (c *InterfacesConfig) wanted(name string) bool {
	matches := func(patterns []string) bool {
		for _, p := range patterns {
			if ok, _ := path.Match(p, name); ok {
				return true
			}
		}
		return false
	}
	return matches(c.Include) && !matches(c.Exclude)
}
