package podenrichmentprocessor

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configtls"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/confmaptest"

	"github.com/orb8/orb8/processor/podenrichmentprocessor/internal/metadata"
)

func TestConfig(t *testing.T) {
	conf, err := confmaptest.LoadConf(filepath.Join("testdata", "config.yaml"))
	require.NoError(t, err)
	defaults := KubernetesConfig{
		AuthType: "serviceAccount", Scope: "node", PodsFrom: "api", KubeletTLS: configtls.NewDefaultClientConfig(),
		Wait: WaitConfig{Timeout: 5 * time.Second, MaxRecords: 20000}, KeepDeleted: 5 * time.Minute,
	}
	kubernetes := func(change func(*KubernetesConfig)) configoptional.Optional[KubernetesConfig] {
		k := defaults
		change(&k)
		return configoptional.Some(k)
	}
	none := configoptional.Default(defaults)
	for _, tt := range []struct {
		name string
		want Config
		err  string
	}{
		{name: "", want: Config{Kubernetes: none}},
		{name: "all", want: Config{
			CgroupPath: "/host/sys/fs/cgroup", NodeName: "node-1",
			Kubernetes: kubernetes(func(k *KubernetesConfig) {
				*k = KubernetesConfig{
					AuthType: "kubeConfig", Context: "test", Scope: "node", PodsFrom: "kubelet", KubeletEndpoint: "https://node-1:10250",
					KubeletTLS: k.KubeletTLS, Wait: WaitConfig{Timeout: 2 * time.Second, MaxRecords: 100}, KeepDeleted: time.Minute,
					Labels: true,
				}
				k.KubeletTLS.InsecureSkipVerify = true
			}),
		}},
		{name: "agent", want: Config{Kubernetes: configoptional.Some(defaults)}},
		{name: "gateway", want: Config{Gateway: true, Kubernetes: kubernetes(func(k *KubernetesConfig) { k.Scope = "cluster" })}},
		{
			name: "relative",
			want: Config{CgroupPath: "sys/fs/cgroup", Kubernetes: none},
			err: `cgroup_path: "sys/fs/cgroup" is not absolute; use the path of a cgroup v2 mount such as /sys/fs/cgroup, ` +
				`or leave it empty to have one found`,
		},
		{
			name: "blind gateway", want: Config{Gateway: true, Kubernetes: configoptional.Some(defaults)},
			err: `gateway: data of all nodes needs kubernetes::scope cluster, not "node"`,
		},
		{
			name: "wrong",
			want: Config{Kubernetes: kubernetes(func(k *KubernetesConfig) {
				*k = KubernetesConfig{
					AuthType: "tls", Context: "test", Scope: "rack", PodsFrom: "docker", KubeletEndpoint: "node-1:10250",
					KubeletTLS: k.KubeletTLS, Wait: WaitConfig{Timeout: time.Hour, MaxRecords: -1}, KeepDeleted: -time.Second,
				}
			})},
			err: `kubernetes: auth_type: "tls" is not known; use serviceAccount, kubeConfig or none
context: "test" needs auth_type kubeConfig
scope: "rack" is not known; use node or cluster
pods_from: "docker" is not known; use api or kubelet
kubelet_endpoint: "node-1:10250" is no URL; use one such as https://node-1:10250
wait::timeout: 1h0m0s is out of range; use 0 to 1m0s
wait::max_records: -1 is negative
keep_deleted: -1s is negative`,
		},
		{
			name: "kubelet of a cluster",
			want: Config{Kubernetes: kubernetes(func(k *KubernetesConfig) { k.Scope, k.PodsFrom = "cluster", "kubelet" })},
			err:  "kubernetes: pods_from: a kubelet knows the pods of its node alone; use scope node, or pods_from api",
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
