package podenrichmentprocessor

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configtls"

	"github.com/orb8/orb8/internal/kubernetes"
)

// Values of kubernetes::scope and kubernetes::pods_from.
const (
	scopeNode    = "node"
	scopeCluster = "cluster"
	fromAPI      = "api"
	fromKubelet  = "kubelet"
)

// maxWait bounds kubernetes::wait::timeout: data is not to be held for longer than anybody waits for it.
const maxWait = time.Minute

// Config is what the user says about the pod_enrichment processor.
type Config struct {
	// CgroupPath is the root of the cgroup v2 hierarchy; when it is empty, it is looked up in the mounts.
	CgroupPath string `mapstructure:"cgroup_path"`
	// NodeName is the name of this node; when it is empty, the environment variable NODE_NAME is, or else the host name.
	NodeName string `mapstructure:"node_name"`
	// Gateway says that the data is other nodes': no cgroup is looked up, and nothing gets this node's name.
	Gateway bool `mapstructure:"gateway"`
	// Kubernetes is where names of pods come from. Without it no Kubernetes API is asked.
	Kubernetes configoptional.Optional[KubernetesConfig] `mapstructure:"kubernetes"`
}

// KubernetesConfig is where names of pods come from.
type KubernetesConfig struct {
	// AuthType is serviceAccount, kubeConfig or none.
	AuthType kubernetes.AuthType `mapstructure:"auth_type"`
	// Context is one of the kubeconfig's; empty is its current one.
	Context string `mapstructure:"context"`
	// Scope is node (this node's pods alone) or cluster (all pods, Services, EndpointSlices and nodes).
	Scope string `mapstructure:"scope"`
	// PodsFrom is api, or kubelet: this node's pods are then asked of its kubelet.
	PodsFrom string `mapstructure:"pods_from"`
	// KubeletEndpoint is the kubelet's URL; when it is empty, it is https at the node's name, port 10250.
	KubeletEndpoint string `mapstructure:"kubelet_endpoint"`
	// KubeletTLS is how to know the kubelet. Its certificate is often one that it signed itself.
	KubeletTLS configtls.ClientConfig `mapstructure:"kubelet_tls"`
	// Labels adds the labels of pods to log records, which is what orb8_query selects by.
	Labels bool `mapstructure:"labels"`
	// Wait is for how long records whose pod is not known yet are held.
	Wait WaitConfig `mapstructure:"wait"`
	// KeepDeleted is for how long a pod that has been deleted is still known.
	KeepDeleted time.Duration `mapstructure:"keep_deleted"`
}

// WaitConfig bounds how long and how many records are held.
type WaitConfig struct {
	// Timeout 0 holds none.
	Timeout time.Duration `mapstructure:"timeout"`
	// MaxRecords are log records, data points and spans.
	MaxRecords int `mapstructure:"max_records"`
}

func createDefaultConfig() component.Config {
	return &Config{Kubernetes: configoptional.Default(KubernetesConfig{
		AuthType:    kubernetes.AuthServiceAccount,
		Scope:       scopeNode,
		PodsFrom:    fromAPI,
		KubeletTLS:  configtls.NewDefaultClientConfig(),
		Wait:        WaitConfig{Timeout: 5 * time.Second, MaxRecords: 20000},
		KeepDeleted: 5 * time.Minute,
	})}
}

// Validate names the key that is wrong, its value and what is allowed.
func (c *Config) Validate() error {
	if c.CgroupPath != "" && !filepath.IsAbs(c.CgroupPath) {
		return fmt.Errorf("cgroup_path: %q is not absolute; use the path of a cgroup v2 mount such as /sys/fs/cgroup, "+
			"or leave it empty to have one found", c.CgroupPath)
	}
	if k := c.Kubernetes.Get(); c.Gateway && k != nil && k.Scope != scopeCluster {
		return fmt.Errorf("gateway: data of all nodes needs kubernetes::scope %s, not %q", scopeCluster, k.Scope)
	}
	return nil
}

// Validate names the key that is wrong, its value and what is allowed.
func (c *KubernetesConfig) Validate() error {
	auths := []kubernetes.AuthType{kubernetes.AuthServiceAccount, kubernetes.AuthKubeConfig, kubernetes.AuthNone}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !slices.Contains(auths, c.AuthType) {
		fail("auth_type: %q is not known; use serviceAccount, kubeConfig or none", c.AuthType)
	}
	if c.Context != "" && c.AuthType != kubernetes.AuthKubeConfig {
		fail("context: %q needs auth_type kubeConfig", c.Context)
	}
	if c.Scope != scopeNode && c.Scope != scopeCluster {
		fail("scope: %q is not known; use node or cluster", c.Scope)
	}
	if c.PodsFrom != fromAPI && c.PodsFrom != fromKubelet {
		fail("pods_from: %q is not known; use api or kubelet", c.PodsFrom)
	}
	if c.PodsFrom == fromKubelet && c.Scope == scopeCluster {
		fail("pods_from: a kubelet knows the pods of its node alone; use scope node, or pods_from api")
	}
	if u, err := url.Parse(c.KubeletEndpoint); c.KubeletEndpoint != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
		fail("kubelet_endpoint: %q is no URL; use one such as https://node-1:10250", c.KubeletEndpoint)
	}
	if c.Wait.Timeout < 0 || c.Wait.Timeout > maxWait {
		fail("wait::timeout: %s is out of range; use 0 to %s", c.Wait.Timeout, maxWait)
	}
	if c.Wait.MaxRecords < 0 {
		fail("wait::max_records: %d is negative", c.Wait.MaxRecords)
	}
	if c.KeepDeleted < 0 {
		fail("keep_deleted: %s is negative", c.KeepDeleted)
	}
	return errors.Join(errs...)
}
