package ebpfsyscallreceiver

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/confmaptest"

	"github.com/orb8/orb8/internal/syscalls"
)

func TestLoadConfig(t *testing.T) {
	conf, err := confmaptest.LoadConf(filepath.Join("testdata", "config.yaml"))
	require.NoError(t, err)
	for name, change := range map[string]func(*Config){
		"ebpf_syscall": func(*Config) {},
		"ebpf_syscall/all": func(c *Config) {
			c.Interval = time.Second
			c.RingBufferSize = 8 << 20
			c.Events = EventsConfig{
				Hot: []string{"read", "write"}, HotSampling: 1000, Sampling: map[string]uint32{"openat": 10, "getppid": 0},
				Always: []string{"ptrace"},
			}
			c.Latency, c.SelfEvents, c.ProbeStats = true, true, true
		},
	} {
		t.Run(name, func(t *testing.T) {
			sub, err := conf.Sub(name)
			require.NoError(t, err)
			got := createDefaultConfig().(*Config)
			require.NoError(t, sub.Unmarshal(got))
			require.NoError(t, confmap.Validate(got))
			want := createDefaultConfig().(*Config)
			change(want)
			assert.Equal(t, name == "ebpf_syscall", got.MetricsBuilderConfig.Metrics.Orb8SyscallCgroups.Enabled)
			want.MetricsBuilderConfig = got.MetricsBuilderConfig
			assert.Equal(t, want, got)
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
		"interval too short": {
			func(c *Config) { c.Interval = time.Millisecond },
			"interval: 1ms is too short; use 100ms or more",
		},
		"unknown hot call": {
			func(c *Config) { c.Events.Hot = []string{"read", "raed"} },
			`events.hot: "raed" is no system call; use a name such as openat`,
		},
		"unknown sampled call": {
			func(c *Config) { c.Events.Sampling = map[string]uint32{"opnat": 1} },
			`events.sampling: "opnat" is no system call; use a name such as openat`,
		},
		"unknown call to tell always": {
			func(c *Config) { c.Events.Always = []string{""} },
			`events.always: "" is no system call; use a name such as openat`,
		},
		"sampled too sparsely": {
			func(c *Config) { c.Events.HotSampling = 1 << 24 },
			"events.hot_sampling: 16777216 is too much; use 0 (none) to 16777215",
		},
		"one call sampled too sparsely": {
			func(c *Config) { c.Events.Sampling = map[string]uint32{"openat": 1 << 31} },
			"events.sampling: openat: 2147483648 is too much; use 0 (none) to 16777215",
		},
		"always and hot": {
			func(c *Config) { c.Events.Hot = []string{"execve"} },
			"events.always: execve is sampled by events.hot or events.sampling, one in 100; leave it out of one of them",
		},
		"always and sampled": {
			func(c *Config) { c.Events.Sampling = map[string]uint32{"bpf": 0} },
			"events.always: bpf is sampled by events.hot or events.sampling, one in 0; leave it out of one of them",
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
	cfg.RingBufferSize, cfg.Events.Hot = 3, []string{"x", "y"}
	err := cfg.Validate()
	assert.ErrorContains(t, err, "ring_buffer_size")
	assert.ErrorContains(t, err, `"x"`)
	assert.ErrorContains(t, err, `"y"`)
}

func TestTheDefaultsAreSane(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	require.NoError(t, cfg.Validate())
	for _, names := range [][]string{cfg.Events.Hot, cfg.Events.Always} {
		sorted := slices.Sorted(slices.Values(names))
		assert.Equal(t, len(names), len(slices.Compact(sorted)), "each once")
	}
	for name, want := range map[string]uint32{"read": 100, "futex": 100, "openat": 1, "connect": 1, "kill": 1, "execve": 1, "5000": 1} {
		assert.Equal(t, want, cfg.Events.sampling(name), name)
	}
	cfg.Events.Sampling = map[string]uint32{"read": 1, "openat": 7}
	assert.EqualValues(t, 1, cfg.Events.sampling("read"), "a single call's word counts more than the list's")
	assert.EqualValues(t, 7, cfg.Events.sampling("openat"))
}

func FuzzSampling(f *testing.F) {
	f.Add("read", uint32(0))
	f.Add("no such call", uint32(3))
	f.Add("execve", uint32(1))
	f.Fuzz(func(t *testing.T, name string, n uint32) {
		cfg := createDefaultConfig().(*Config)
		cfg.Events.Sampling = map[string]uint32{name: n}
		if cfg.Validate() == nil {
			assert.True(t, syscalls.Known(name))
			assert.Equal(t, n, cfg.Events.sampling(name))
			assert.LessOrEqual(t, n, uint32(maxSampling))
		}
	})
}
