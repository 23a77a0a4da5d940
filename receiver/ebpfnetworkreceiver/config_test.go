package ebpfnetworkreceiver

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/confmaptest"
)

func TestLoadConfig(t *testing.T) {
	conf, err := confmaptest.LoadConf(filepath.Join("testdata", "config.yaml"))
	require.NoError(t, err)

	want := createDefaultConfig().(*Config)
	for name, change := range map[string]func(*Config){
		"ebpf_network": func(*Config) {},
		"ebpf_network/cgroup": func(c *Config) {
			c.Attach.Mode = "cgroup"
			c.Attach.CgroupPath = "/sys/fs/cgroup/unified"
		},
		"ebpf_network/tc": func(c *Config) {
			c.Attach.Mode = "tc"
			c.Attach.Interfaces = InterfacesConfig{Include: []string{"eth0", "veth*"}, Exclude: []string{"vethx*"}}
			c.RingBufferSize = 8 << 20
			c.FlowTableSize = 1000
			c.Interval = time.Second
			c.IdleTimeout = 30 * time.Second
			c.Events = EventsConfig{FirstPackets: 3, Sampling: 100}
			c.Tunnels = true
			c.SelfTraffic, c.ProbeStats = true, true
			c.Drops.Enabled = false
			c.DNS = DNSConfig{Enabled: true, Ports: []uint16{53, 5353}, Timeout: 3 * time.Second}
		},
	} {
		t.Run(name, func(t *testing.T) {
			sub, err := conf.Sub(name)
			require.NoError(t, err)
			got := createDefaultConfig()
			require.NoError(t, sub.Unmarshal(got))
			require.NoError(t, confmap.Validate(got))
			want := *want
			change(&want)
			assert.Equal(t, &want, got)
		})
	}
}

func TestValidateNamesKeyValueAndWayOut(t *testing.T) {
	tests := map[string]struct {
		change func(*Config)
		want   string
	}{
		"ring buffer not a power of two": {
			func(c *Config) { c.RingBufferSize = 1000 },
			"ring_buffer_size: 1000 is not allowed; use a power of two from 4096 to 33554432 (bytes)",
		},
		"ring buffer too small": {
			func(c *Config) { c.RingBufferSize = 2048 },
			"ring_buffer_size: 2048 is not allowed; use a power of two from 4096 to 33554432 (bytes)",
		},
		"ring buffer too large": {
			func(c *Config) { c.RingBufferSize = 64 << 20 },
			"ring_buffer_size: 67108864 is not allowed; use a power of two from 4096 to 33554432 (bytes)",
		},
		"no flow table": {
			func(c *Config) { c.FlowTableSize = 0 },
			"flow_table_size: 0 is not allowed; use 1 to 10000000 (flows)",
		},
		"interval too short": {
			func(c *Config) { c.Interval = time.Millisecond },
			"interval: 1ms is too short; use 100ms or more",
		},
		"idle before an interval is over": {
			func(c *Config) { c.IdleTimeout = time.Second },
			"idle_timeout: 1s is shorter than interval (5s); use 5s or more",
		},
		"tunnels at sockets": {
			func(c *Config) { c.Tunnels, c.Attach.Mode = true, "cgroup" },
			"tunnels: true is of no use with attach.mode cgroup; use attach.mode tc",
		},
		"unknown mode": {
			func(c *Config) { c.Attach.Mode = "sideways" },
			`attach.mode: "sideways" is not allowed; use auto, cgroup or tc`,
		},
		"relative cgroup path": {
			func(c *Config) { c.Attach.CgroupPath = "kubepods" },
			`attach.cgroup_path: "kubepods" is not an absolute path; use one such as /sys/fs/cgroup, or leave it empty to have it found`,
		},
		"nothing to watch": {
			func(c *Config) { c.Attach.Mode, c.Attach.Interfaces.Include = "tc", nil },
			`attach.interfaces.include: is empty, so nothing would be watched; name interfaces, or use "*" for all`,
		},
		"no port of DNS": {
			func(c *Config) { c.DNS.Ports = nil },
			"dns.ports: 0 ports are not allowed; use 1 to 4, or dns.enabled: false",
		},
		"too many ports of DNS": {
			func(c *Config) { c.DNS.Ports = []uint16{1, 2, 3, 4, 5} },
			"dns.ports: 5 ports are not allowed; use 1 to 4, or dns.enabled: false",
		},
		"no such port": {
			func(c *Config) { c.DNS.Ports = []uint16{53, 0} },
			"dns.ports: 0 is not allowed; use ports from 1 to 65535, each once",
		},
		"a port twice": {
			func(c *Config) { c.DNS.Ports = []uint16{53, 5353, 53} },
			"dns.ports: 53 is not allowed; use ports from 1 to 65535, each once",
		},
		"no time for DNS": {
			func(c *Config) { c.DNS.Timeout = 0 },
			"dns.timeout: 0s is not allowed; use 100ms to 1m0s",
		},
		"too much time for DNS": {
			func(c *Config) { c.DNS.Timeout = time.Hour },
			"dns.timeout: 1h0m0s is not allowed; use 100ms to 1m0s",
		},
		"bad pattern": {
			func(c *Config) { c.Attach.Interfaces.Exclude = []string{"veth["} },
			`attach.interfaces.exclude: "veth[" is not a pattern; use names with *, ? and [a-z], such as "veth*"`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := createDefaultConfig().(*Config)
			tt.change(cfg)
			assert.EqualError(t, cfg.Validate(), tt.want)
		})
	}
}

func TestValidateReportsEveryMistakeAtOnce(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.RingBufferSize, cfg.Attach.Mode = 3, "x"
	err := cfg.Validate()
	assert.ErrorContains(t, err, "ring_buffer_size")
	assert.ErrorContains(t, err, "attach.mode")
}

func TestDNSPorts(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	assert.Equal(t, [maxDNSPorts]uint16{53}, cfg.DNS.ports())
	cfg.DNS.Ports = []uint16{53, 5353}
	assert.Equal(t, [maxDNSPorts]uint16{53, 5353}, cfg.DNS.ports())
	cfg.DNS = DNSConfig{Ports: []uint16{0}}
	assert.NoError(t, cfg.Validate(), "what is off may be anything")
	assert.Zero(t, cfg.DNS.ports())
}

func TestWantedInterfaces(t *testing.T) {
	defaults := createDefaultConfig().(*Config).Attach.Interfaces
	tests := []struct {
		name   string
		config InterfacesConfig
		want   bool
	}{
		{"eth0", defaults, true},
		{"enp3s0", defaults, true},
		{"ens5", defaults, true},
		{"cni0", defaults, true},
		{"docker0", defaults, true},
		{"br-4f2a", defaults, true},
		{"veth12ab", defaults, true},
		{"lo", defaults, false},
		{"wlan0", defaults, false},
		{"cni0.1", defaults, false},
		{"veth1", InterfacesConfig{Include: []string{"veth*"}, Exclude: []string{"veth1"}}, false},
		{"veth2", InterfacesConfig{Include: []string{"veth*"}, Exclude: []string{"veth1"}}, true},
		{"lo", InterfacesConfig{Include: []string{"*"}}, true},
		{"eth0", InterfacesConfig{}, false},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.want, tt.config.wanted(tt.name), "%s in %+v", tt.name, tt.config)
	}
}

func FuzzWanted(f *testing.F) {
	f.Add("veth*", "veth0")
	f.Add("[a-", "b")
	f.Add("*", "")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		cfg := createDefaultConfig().(*Config)
		cfg.Attach.Interfaces.Include = []string{pattern}
		if cfg.Validate() != nil {
			return
		}
		cfg.Attach.Interfaces.Exclude = []string{pattern}
		assert.False(t, cfg.Attach.Interfaces.wanted(name), "excluded and wanted")
	})
}
