package orb8storeexporter

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
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

func TestDefaultConfig(t *testing.T) {
	cfg, err := load(t, "orb8_store")
	require.NoError(t, err)
	assert.Equal(t, component.MustNewID("orb8_storage"), cfg.Storage)
	assert.False(t, cfg.Queue.HasValue(), "no queue unless it is asked for")
}

func TestConfigWithQueue(t *testing.T) {
	cfg, err := load(t, "orb8_store/queue")
	require.NoError(t, err)
	assert.Equal(t, component.MustNewIDWithName("orb8_storage", "second"), cfg.Storage)
	require.True(t, cfg.Queue.HasValue())
	assert.EqualValues(t, 10, cfg.Queue.Get().QueueSize)
}

func TestEmptyStorage(t *testing.T) {
	_, err := load(t, "orb8_store/empty")
	assert.ErrorContains(t, err, "storage")
	assert.EqualError(t, (&Config{}).Validate(), "storage: must not be empty; name an orb8_storage extension")
}
