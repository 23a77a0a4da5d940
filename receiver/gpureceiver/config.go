package gpureceiver

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/scraper/scraperhelper"

	"github.com/orb8/orb8/internal/kubernetes"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/metadata"
)

// minInterval is the shortest time between scrapes: the driver itself renews utilization several times a second at most.
const minInterval = time.Second

// Mode says whether a source is used.
type Mode string

// Modes of sources. ModeAuto uses a source where it is there; ModeOn holds it for an error where it is not.
const (
	ModeAuto Mode = "auto"
	ModeOn   Mode = "on"
	ModeOff  Mode = "off"
)

// Hold says when NVML stays open between scrapes. While it does, it holds the devices: the driver cannot be unloaded, nor a GPU be
// given to a virtual machine.
type Hold string

const (
	// HoldBusy is while processes use a GPU, which hold it anyway.
	HoldBusy Hold = "busy"
	// HoldAlways sees the errors of GPUs that nobody uses too.
	HoldAlways Hold = "always"
	// HoldNever opens it for each scrape. There are no XID events then.
	HoldNever Hold = "never"
)

// Config is what the user says about the gpu receiver.
type Config struct {
	scraperhelper.ControllerConfig `mapstructure:",squash"`

	NVML         NVMLConfig         `mapstructure:"nvml"`
	DCGM         DCGMConfig         `mapstructure:"dcgm"`
	CUDA         CUDAConfig         `mapstructure:"cuda"`
	PodResources PodResourcesConfig `mapstructure:"pod_resources"`
	Events       EventsConfig       `mapstructure:"events"`

	MetricsBuilderConfig metadata.MetricsBuilderConfig `mapstructure:",squash"`
}

// NVMLConfig is of NVIDIA's management library, which comes with the driver.
type NVMLConfig struct {
	Mode Mode `mapstructure:"mode"`
	// LibraryPaths are where libnvidia-ml.so.1 may be, the first that loads is taken: files, or a name for the system's own search.
	LibraryPaths []string `mapstructure:"library_paths"`
	Hold         Hold     `mapstructure:"hold"`
}

// DCGMConfig is of dcgm-exporter.
type DCGMConfig struct {
	Mode Mode `mapstructure:"mode"`
	// ClientConfig has the endpoint, which is the page of metrics.
	confighttp.ClientConfig `mapstructure:",squash"`
}

// CUDAConfig is of probes on the CUDA library of programs.
type CUDAConfig struct {
	Mode Mode `mapstructure:"mode"`
	// SingleStepped says what to do with functions of which a probe costs 10 µs a call, as they begin with an instruction that the
	// kernel cannot emulate.
	SingleStepped SingleStepped `mapstructure:"single_stepped"`
}

// SingleStepped is what becomes of functions that the kernel has to single-step.
type SingleStepped string

const (
	// SteppedSkip does not count them.
	SteppedSkip SingleStepped = "skip"
	// SteppedSample counts them for a second in ten, and takes that ten times: an estimate.
	SteppedSample SingleStepped = "sample"
	// SteppedCount counts them whatever it costs.
	SteppedCount SingleStepped = "count"
)

// PodResourcesConfig is of the kubelet's answer to which container has which device.
type PodResourcesConfig struct {
	Mode Mode `mapstructure:"mode"`
	// Socket is the kubelet's.
	Socket string `mapstructure:"socket"`
	// Kubernetes is asked which GPU a claim (DRA) is of, and how GPUs are shared. Without it claims have no GPU.
	Kubernetes configoptional.Optional[KubernetesConfig] `mapstructure:"kubernetes"`
}

// KubernetesConfig is of the API server, as pod_enrichment has it.
type KubernetesConfig struct {
	AuthType kubernetes.AuthType `mapstructure:"auth_type"`
	Context  string              `mapstructure:"context"`
	// NodeName is this node's; empty: $NODE_NAME, or else the host name.
	NodeName string `mapstructure:"node_name"`
}

// Validate names the key that is wrong, its value and what is allowed.
func (c *KubernetesConfig) Validate() error {
	switch c.AuthType {
	case kubernetes.AuthServiceAccount, kubernetes.AuthKubeConfig, kubernetes.AuthNone:
	default:
		return fmt.Errorf("auth_type: %q is not known; use serviceAccount, kubeConfig or none", c.AuthType)
	}
	if c.Context != "" && c.AuthType != kubernetes.AuthKubeConfig {
		return fmt.Errorf("context: %q needs auth_type kubeConfig", c.Context)
	}
	return nil
}

// EventsConfig is of log records of errors.
type EventsConfig struct {
	Enabled bool `mapstructure:"enabled"`
	// IgnoredXIDs are codes that are counted and make no event.
	IgnoredXIDs []uint64 `mapstructure:"ignored_xids"`
}

// defaultLibraryPaths are where containers find the driver's library: what NVIDIA's container toolkit mounts and the host's own
// installation are in the system's search, a driver container and Google's nodes are not.
func defaultLibraryPaths() []string {
	return []string{
		"libnvidia-ml.so.1",
		"/run/nvidia/driver/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
		"/run/nvidia/driver/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
		"/run/nvidia/driver/usr/lib64/libnvidia-ml.so.1",
		"/home/kubernetes/bin/nvidia/lib64/libnvidia-ml.so.1",
		"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
		"/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.1",
		"/usr/lib64/libnvidia-ml.so.1",
		"/usr/local/nvidia/lib64/libnvidia-ml.so.1",
		"/usr/lib/wsl/lib/libnvidia-ml.so.1",
	}
}

func createDefaultConfig() component.Config {
	controller := scraperhelper.NewDefaultControllerConfig()
	controller.CollectionInterval = 10 * time.Second
	controller.Timeout = 5 * time.Second
	return &Config{
		ControllerConfig: controller,
		NVML:             NVMLConfig{Mode: ModeAuto, LibraryPaths: defaultLibraryPaths(), Hold: HoldBusy},
		DCGM:             DCGMConfig{Mode: ModeAuto, ClientConfig: dcgmClient()},
		CUDA:             CUDAConfig{Mode: ModeAuto, SingleStepped: SteppedSkip},
		PodResources: PodResourcesConfig{
			Mode: ModeAuto, Socket: "/var/lib/kubelet/pod-resources/kubelet.sock",
			Kubernetes: configoptional.Default(KubernetesConfig{AuthType: kubernetes.AuthServiceAccount}),
		},
		Events:               EventsConfig{Enabled: true},
		MetricsBuilderConfig: metadata.NewDefaultMetricsBuilderConfig(),
	}
}

// dcgmClient asks the exporter on this host. It answers from memory.
func dcgmClient() confighttp.ClientConfig {
	c := confighttp.NewDefaultClientConfig()
	c.Endpoint = "http://127.0.0.1:9400/metrics"
	c.Timeout = 3 * time.Second
	return c
}

// Validate names the key that is wrong, its value and what is allowed. Collector's own keys have their own Validate.
func (c *Config) Validate() error {
	var errs []error
	if c.CollectionInterval < minInterval {
		errs = append(errs, fmt.Errorf("collection_interval: %s is too short; use %s or more", c.CollectionInterval, minInterval))
	}
	for key, mode := range map[string]Mode{
		"nvml.mode": c.NVML.Mode, "dcgm.mode": c.DCGM.Mode, "cuda.mode": c.CUDA.Mode, "pod_resources.mode": c.PodResources.Mode,
	} {
		if mode != ModeAuto && mode != ModeOn && mode != ModeOff {
			errs = append(errs, fmt.Errorf("%s: %q is not allowed; use auto, on or off", key, mode))
		}
	}
	if c.NVML.Mode != ModeOff {
		errs = append(errs, c.NVML.validate())
	}
	if s := c.CUDA.SingleStepped; c.CUDA.Mode != ModeOff && s != SteppedSkip && s != SteppedSample && s != SteppedCount {
		errs = append(errs, fmt.Errorf("cuda.single_stepped: %q is not allowed; use skip, sample or count", s))
	}
	if u, err := url.Parse(c.DCGM.Endpoint); c.DCGM.Mode != ModeOff && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		errs = append(errs, fmt.Errorf("dcgm.endpoint: %q is no address of a page; use one such as http://127.0.0.1:9400/metrics", c.DCGM.Endpoint))
	}
	if c.PodResources.Mode != ModeOff && !filepath.IsAbs(c.PodResources.Socket) {
		errs = append(errs, fmt.Errorf("pod_resources.socket: %q is no absolute path; use one such as /var/lib/kubelet/pod-resources/kubelet.sock",
			c.PodResources.Socket))
	}
	return errors.Join(errs...)
}

func (c *NVMLConfig) validate() error {
	var errs []error
	if len(c.LibraryPaths) == 0 {
		errs = append(errs, errors.New("nvml.library_paths: it is empty; leave it out for the usual places, or set nvml.mode: off"))
	}
	if slices.Contains(c.LibraryPaths, "") {
		errs = append(errs, errors.New("nvml.library_paths: an entry is empty; use paths such as /usr/lib64/libnvidia-ml.so.1"))
	}
	if c.Hold != HoldBusy && c.Hold != HoldAlways && c.Hold != HoldNever {
		errs = append(errs, fmt.Errorf("nvml.hold: %q is not allowed; use busy, always or never", c.Hold))
	}
	return errors.Join(errs...)
}
