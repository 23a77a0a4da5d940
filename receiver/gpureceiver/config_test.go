package gpureceiver

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
	for name, change := range map[string]func(*Config){
		"gpu": func(*Config) {},
		"gpu/all": func(c *Config) {
			c.CollectionInterval, c.Timeout = 30*time.Second, 2*time.Second
			c.NVML = NVMLConfig{Mode: ModeOn, LibraryPaths: []string{"/opt/nvidia/libnvidia-ml.so.1"}, Hold: HoldAlways}
			c.DCGM.Mode, c.DCGM.Endpoint = ModeOff, "https://dcgm.example:9400/metrics"
			c.CUDA.Mode = ModeOff
			c.PodResources.Mode, c.PodResources.Socket = ModeOn, "/run/kubelet.sock"
			c.Events = EventsConfig{IgnoredXIDs: []uint64{13, 31}}
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
			assert.Equal(t, name == "gpu", got.MetricsBuilderConfig.Metrics.HwEnergy.Enabled)
			want.MetricsBuilderConfig = got.MetricsBuilderConfig
			assert.Equal(t, want, got)
		})
	}
}

func TestValidateNamesKeyValueAndWayOut(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"collection_interval: 100ms is too short; use 1s or more":        func(c *Config) { c.CollectionInterval = 100 * time.Millisecond },
		`nvml.mode: "yes" is not allowed; use auto, on or off`:           func(c *Config) { c.NVML.Mode = "yes" },
		`dcgm.mode: "" is not allowed; use auto, on or off`:              func(c *Config) { c.DCGM.Mode = "" },
		`cuda.mode: "true" is not allowed; use auto, on or off`:          func(c *Config) { c.CUDA.Mode = "true" },
		`pod_resources.mode: "AUTO" is not allowed; use auto, on or off`: func(c *Config) { c.PodResources.Mode = "AUTO" },
		`nvml.hold: "idle" is not allowed; use busy, always or never`:    func(c *Config) { c.NVML.Hold = "idle" },
		"nvml.library_paths: it is empty; leave it out for the usual places, or set nvml.mode: off": func(c *Config) {
			c.NVML.LibraryPaths = nil
		},
		"nvml.library_paths: an entry is empty; use paths such as /usr/lib64/libnvidia-ml.so.1": func(c *Config) {
			c.NVML.LibraryPaths = []string{"libnvidia-ml.so.1", ""}
		},
		`dcgm.endpoint: "localhost:9400" is no address of a page; use one such as http://127.0.0.1:9400/metrics`: func(c *Config) {
			c.DCGM.Endpoint = "localhost:9400"
		},
		`pod_resources.socket: "kubelet.sock" is no absolute path; use one such as /var/lib/kubelet/pod-resources/kubelet.sock`: func(c *Config) {
			c.PodResources.Socket = "kubelet.sock"
		},
		`cuda.single_stepped: "always" is not allowed; use skip, sample or count`: func(c *Config) { c.CUDA.SingleStepped = "always" },
	} {
		t.Run(want, func(t *testing.T) {
			cfg := createDefaultConfig().(*Config)
			change(cfg)
			assert.EqualError(t, cfg.Validate(), want)
		})
	}
}

func TestValidateLeavesWhatIsOff(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	require.NoError(t, cfg.Validate())
	cfg.NVML = NVMLConfig{Mode: ModeOff}
	cfg.DCGM = DCGMConfig{Mode: ModeOff}
	cfg.CUDA = CUDAConfig{Mode: ModeOff}
	cfg.PodResources = PodResourcesConfig{Mode: ModeOff}
	assert.NoError(t, cfg.Validate())
}

func TestValidateKubernetes(t *testing.T) {
	assert.NoError(t, (&KubernetesConfig{AuthType: "kubeConfig", Context: "other"}).Validate())
	assert.EqualError(t, (&KubernetesConfig{AuthType: "token"}).Validate(), `auth_type: "token" is not known; use serviceAccount, kubeConfig or none`)
	assert.EqualError(t, (&KubernetesConfig{AuthType: "none", Context: "other"}).Validate(), `context: "other" needs auth_type kubeConfig`)
}
