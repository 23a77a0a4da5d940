package orb8storageextension

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/confmaptest"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/metadata"
)

func TestConfig(t *testing.T) {
	tests := []struct {
		id   string
		want *Config
		// err is what the message must hold.
		err []string
	}{
		{id: "", want: changed(func(c *Config) {
			c.Embedded = EmbeddedConfig{
				Retention: time.Hour, MaxBytes: 67108864, Head: HeadConfig{MaxBytes: 16777216, MaxAge: 5 * time.Minute}, FsyncInterval: time.Second,
				MaxQueryRecords: 500_000,
			}
		})},
		{id: "all", want: changed(func(c *Config) {
			c.Embedded = EmbeddedConfig{
				Directory: "/var/lib/orb8/store", Retention: 30 * time.Minute, MaxBytes: 8388608,
				Head: HeadConfig{MaxBytes: 1048576, MaxAge: time.Second}, MaxQueryRecords: 1000,
			}
		})},
		{id: "victorialogs", want: changed(func(c *Config) {
			server := defaultEngineConfig()
			server.HTTP.Endpoint, server.HTTP.Timeout, server.HTTP.Compression = "https://logs.example:9428", time.Second, "zstd"
			server.HTTP.TLS.InsecureSkipVerify = true
			server.HTTP.Headers.Set("AccountID", "12")
			server.Retention, server.MaxQueryRecords = 168*time.Hour, 0
			c.VictoriaLogs = configoptional.Some(server)
		})},
		{id: "loki", want: changed(func(c *Config) {
			server := LokiConfig{Engine: defaultEngineConfig(), QueryLines: 1000}
			server.Engine.HTTP.Endpoint = "http://loki:3100"
			server.Engine.HTTP.Headers.Set("X-Scope-OrgID", "orb8")
			c.Loki = configoptional.Some(server)
		})},
		{id: "nowhere", err: []string{
			`victorialogs: endpoint: "" is no address; use http:// or https:// and a host`, "retention: 1s is too short", "max_query_records: -1 is negative",
		}},
		{id: "lines", err: []string{`loki: query_lines: 1 is too small; use 2 or more`, `endpoint: "loki:3100" is no address`}},
		{id: "short", err: []string{"embedded: retention: 59s is too short; use 1m0s or more"}},
		{id: "small", err: []string{"embedded: max_bytes: 1000 is too small; use 4194304 or more"}},
		{id: "negative", err: []string{"retention: -1h0m0s is too short", "max_bytes: -1 is too small", "fsync_interval: -1s is negative", "max_query_records: -1 is negative"}},
		{id: "head", err: []string{"head: max_bytes: 1000 is too small; use 1048576 or more", "max_age: 10ms is too short; use 1s or more"}},
	}
	conf, err := confmaptest.LoadConf(filepath.Join("testdata", "config.yaml"))
	require.NoError(t, err)
	for _, tt := range tests {
		t.Run(tt.id, func(t *testing.T) {
			sub, err := conf.Sub(component.NewIDWithName(metadata.Type, tt.id).String())
			require.NoError(t, err)
			cfg := createDefaultConfig()
			require.NoError(t, sub.Unmarshal(cfg))
			err = confmap.Validate(cfg)
			if tt.err == nil {
				require.NoError(t, err)
				assert.Equal(t, tt.want, cfg)
				return
			}
			for _, part := range tt.err {
				assert.ErrorContains(t, err, part)
			}
		})
	}
}

func changed(change func(*Config)) *Config {
	c := createDefaultConfig().(*Config)
	change(c)
	return c
}

func TestTwoBackends(t *testing.T) {
	conf := confmap.NewFromStringMap(map[string]any{"embedded": map[string]any{}, "loki": map[string]any{"endpoint": "http://loki:3100"}})
	assert.ErrorContains(t, conf.Unmarshal(createDefaultConfig()), "embedded and loki are there: use one of embedded, victorialogs and loki")
}

// A configuration that is merged over one with an embedded store takes that out.
func TestAnotherBackendInstead(t *testing.T) {
	conf := confmap.NewFromStringMap(map[string]any{"embedded": map[string]any{"directory": "/var/lib/orb8/store"}})
	require.NoError(t, conf.Merge(confmap.NewFromStringMap(map[string]any{"embedded": nil, "loki": map[string]any{"endpoint": "http://loki:3100"}})))
	config := createDefaultConfig().(*Config)
	require.NoError(t, conf.Unmarshal(config))
	require.NoError(t, confmap.Validate(config))
	assert.True(t, config.Loki.HasValue())
	assert.Equal(t, createDefaultConfig().(*Config).Embedded, config.Embedded)
}

func TestUnknownKey(t *testing.T) {
	conf := confmap.NewFromStringMap(map[string]any{"elasticsearch": map[string]any{}})
	assert.ErrorContains(t, conf.Unmarshal(createDefaultConfig()), "elasticsearch")
}
