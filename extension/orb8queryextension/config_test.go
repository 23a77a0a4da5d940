package orb8queryextension

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/confmaptest"

	"github.com/orb8/orb8/extension/orb8queryextension/internal/metadata"
)

func load(t *testing.T, name string) (*Config, error) {
	t.Helper()
	conf, err := confmaptest.LoadConf(filepath.Join("testdata", "config.yaml"))
	require.NoError(t, err)
	sub, err := conf.Sub(component.NewIDWithName(metadata.Type, name).String())
	require.NoError(t, err)
	cfg := createDefaultConfig().(*Config)
	if err := sub.Unmarshal(cfg); err != nil {
		return nil, err
	}
	return cfg, confmap.Validate(cfg)
}

func TestDefaultConfig(t *testing.T) {
	cfg, err := load(t, "")
	require.NoError(t, err)
	assert.Equal(t, "127.0.0.1:9090", cfg.HTTP.NetAddr.Endpoint, "only this host")
	assert.False(t, cfg.HTTP.TLS.HasValue())
	assert.False(t, cfg.HTTP.CORS.HasValue(), "no web page of another origin")
	assert.EqualValues(t, 64<<10, cfg.HTTP.MaxRequestBodySize)
	assert.Greater(t, cfg.HTTP.WriteTimeout, cfg.QueryTimeout, "an answer that takes all its time can still be written")
	assert.Equal(t, component.MustNewID("orb8_storage"), cfg.Storage)
	assert.Equal(t, 100_000, cfg.MaxRows)
	assert.Equal(t, 500_000, cfg.MaxGroups)
	assert.Equal(t, 8, cfg.MaxQueries)
	assert.Equal(t, 64, cfg.MaxQueuedQueries)
	assert.Equal(t, 64, cfg.MaxStreams)
	assert.Equal(t, 16, cfg.MaxStreamsPerClient)
	assert.Equal(t, 1024, cfg.MaxConnections)
	assert.Equal(t, 10*time.Second, cfg.HTTP.ReadHeaderTimeout)
	assert.Equal(t, 30*time.Second, cfg.HTTP.ReadTimeout)
	assert.Equal(t, 30*time.Second, cfg.QueryTimeout)
	assert.True(t, cfg.UI.Enabled)
}

func TestConfig(t *testing.T) {
	cfg, err := load(t, "all")
	require.NoError(t, err)
	assert.Equal(t, "0.0.0.0:9443", cfg.HTTP.NetAddr.Endpoint)
	require.True(t, cfg.HTTP.TLS.HasValue())
	assert.Equal(t, "server.crt", cfg.HTTP.TLS.Get().CertFile)
	assert.EqualValues(t, 1000, cfg.HTTP.MaxRequestBodySize)
	assert.Equal(t, component.MustNewIDWithName("orb8_storage", "second"), cfg.Storage)
	assert.Equal(t, 10, cfg.MaxRows)
	assert.Equal(t, 20, cfg.MaxGroups)
	assert.Equal(t, 3, cfg.MaxQueries)
	assert.Equal(t, 0, cfg.MaxQueuedQueries)
	assert.Equal(t, 2, cfg.MaxStreams)
	assert.Equal(t, 1, cfg.MaxStreamsPerClient)
	assert.Equal(t, 7, cfg.MaxConnections)
	assert.Equal(t, 5*time.Second, cfg.QueryTimeout)
	assert.False(t, cfg.UI.Enabled)
}

func TestInvalidConfig(t *testing.T) {
	for name, want := range map[string]string{
		"rows":     "max_rows: 0 is too small; use 1 or more",
		"groups":   "max_groups: 0 is too small; use 1 or more",
		"queries":  "max_queries: 0 is too small; use 1 or more",
		"queue":    "max_queued_queries: -1 is negative; use 0 (none waits) or more",
		"clients":  "max_streams_per_client: 0 is too small; use 1 or more",
		"sockets":  "max_connections: 0 is too small; use 1 or more",
		"streams":  "max_streams: -1 is too small; use 1 or more",
		"timeout":  "query_timeout: 0s is too short; use more than 0s",
		"body":     "max_request_body_size: 0 is too small; use 1 or more",
		"endpoint": "endpoint: must not be empty; use HOST:PORT",
		"storage":  "id must not be empty",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, name)
			assert.ErrorContains(t, err, want)
		})
	}
	cfg := createDefaultConfig().(*Config)
	cfg.Storage = component.ID{}
	assert.EqualError(t, cfg.Validate(), "storage: must not be empty; name an orb8_storage extension")
}
