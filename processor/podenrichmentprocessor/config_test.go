package podenrichmentprocessor

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/confmaptest"

	"github.com/orb8/orb8/processor/podenrichmentprocessor/internal/metadata"
)

func TestConfig(t *testing.T) {
	conf, err := confmaptest.LoadConf(filepath.Join("testdata", "config.yaml"))
	require.NoError(t, err)
	for _, tt := range []struct {
		name string
		want Config
		err  string
	}{
		{name: ""},
		{name: "all", want: Config{CgroupPath: "/host/sys/fs/cgroup", NodeName: "node-1"}},
		{
			name: "relative",
			want: Config{CgroupPath: "sys/fs/cgroup"},
			err: `cgroup_path: "sys/fs/cgroup" is not absolute; use the path of a cgroup v2 mount such as /sys/fs/cgroup, ` +
				`or leave it empty to have one found`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sub, err := conf.Sub(component.NewIDWithName(metadata.Type, tt.name).String())
			require.NoError(t, err)
			cfg := createDefaultConfig()
			require.NoError(t, sub.Unmarshal(cfg))
			assert.Equal(t, &tt.want, cfg)
			if tt.err == "" {
				assert.NoError(t, confmap.Validate(cfg))
			} else {
				assert.EqualError(t, confmap.Validate(cfg), tt.err)
			}
		})
	}
}
