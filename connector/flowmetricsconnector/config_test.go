package flowmetricsconnector

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/confmaptest"
)

func load(t *testing.T, id string) (*Config, error) {
	t.Helper()
	conf, err := confmaptest.LoadConf(filepath.Join("testdata", "config.yaml"))
	require.NoError(t, err)
	sub, err := conf.Sub(id)
	require.NoError(t, err)
	cfg := createDefaultConfig().(*Config)
	if err := sub.Unmarshal(cfg); err != nil {
		return nil, err
	}
	return cfg, confmap.Validate(cfg)
}

func TestConfig(t *testing.T) {
	for id, want := range map[string]*Config{
		"flow_metrics": {
			Dimensions: []string{"source", "destination", "direction", "transport"},
			MaxSeries:  10_000, Expiry: 10 * time.Minute, Interval: 10 * time.Second,
		},
		"flow_metrics/all": {
			Dimensions: []string{"source", "direction"},
			MaxSeries:  500, Expiry: time.Hour, Interval: time.Minute,
		},
	} {
		t.Run(id, func(t *testing.T) {
			got, err := load(t, id)
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
	_, err := load(t, "flow_metrics/unknown_key")
	assert.ErrorContains(t, err, "max_serie")
}

func TestConfigErrorsNameTheKeyAndWhatIsAllowed(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no dimension": {
			func(c *Config) { c.Dimensions = nil },
			"dimensions: is empty; use one or more of source, destination, direction, transport",
		},
		"unknown dimension": {
			func(c *Config) { c.Dimensions = []string{"source", "port"} },
			`dimensions: "port" is not one; use source, destination, direction, transport`,
		},
		"dimension twice": {
			func(c *Config) { c.Dimensions = []string{"source", "source"} },
			`dimensions: "source" is there twice; name it once`,
		},
		"no series": {
			func(c *Config) { c.MaxSeries = 0 },
			"max_series: 0 is out of range; use 1 to 100000",
		},
		"too many series": {
			func(c *Config) { c.MaxSeries = 100_001 },
			"max_series: 100001 is out of range; use 1 to 100000",
		},
		"interval too short": {
			func(c *Config) { c.Interval = time.Millisecond },
			"interval: 1ms is out of range; use 100ms to 1h",
		},
		"interval too long": {
			func(c *Config) { c.Interval = 2 * time.Hour },
			"interval: 2h0m0s is out of range; use 100ms to 1h",
		},
		"expiry before the first report": {
			func(c *Config) { c.Expiry = 9 * time.Second },
			"expiry: 9s is less than interval (10s); use that or more, so that every series is reported",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := createDefaultConfig().(*Config)
			test.change(cfg)
			assert.EqualError(t, cfg.Validate(), test.want)
		})
	}
}

func TestConfigTakesTheBounds(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"least": func(c *Config) { c.MaxSeries, c.Interval, c.Expiry = 1, 100*time.Millisecond, 100*time.Millisecond },
		"most":  func(c *Config) { c.MaxSeries, c.Interval, c.Expiry = 100_000, time.Hour, 24*time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := createDefaultConfig().(*Config)
			change(cfg)
			assert.NoError(t, cfg.Validate())
		})
	}
}
