//go:build linux

package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

const (
	containerdSocket = "/run/containerd/containerd.sock"
	pauseImage       = "orb8.test/pause:1"
)

// The configurations of the node's daemons. What they keep is in /var/lib and /run, which are the node's own.
var (
	containerdConfig = template.Must(template.New("containerd").Parse(`version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "` + containerdSocket + `"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + pauseImage + `"
  # In a virtual machine without CAP_SYS_RESOURCE nobody may lower it.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{{.Debian}}/usr/sbin/runc"
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "{{.Dir}}/cni"
    bin_dir = "{{.Debian}}/usr/lib/cni"
`))

	cniConfig = template.Must(template.New("cni").Parse(`{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": [[{"subnet": "` + PodRange + `"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
`))

	kubeletConfig = template.Must(template.New("kubelet").Parse(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: {{.PKI}}/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: {{.PKI}}/kubelet.crt
tlsPrivateKeyFile: {{.PKI}}/kubelet.key
containerRuntimeEndpoint: unix://` + containerdSocket + `
volumePluginDir: /var/lib/kubelet/volume-plugins
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
enforceNodeAllocatable: [none]
clusterDomain: cluster.local
clusterDNS: [` + dnsServiceIP + `]
resolvConf: /etc/resolv.conf
# The disk is the machine's, whose fill level is no business of the cluster's.
imageGCHighThresholdPercent: 100
evictionHard: {imagefs.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", memory.available: 50Mi}
nodeStatusUpdateFrequency: 5s
syncFrequency: 10s
# As many as there are addresses for. Faster than the default of 50 requests a second: tests make pods by the dozen.
maxPods: 50
kubeAPIQPS: 200
kubeAPIBurst: 400
`))

	kubeProxyConfig = template.Must(template.New("kube-proxy").Parse(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {kubeconfig: {{.PKI}}/kube-proxy.kubeconfig}
clusterCIDR: 10.244.0.0/16
hostnameOverride: ` + NodeName + `
# These are settings of the machine.
conntrack: {maxPerCore: 0, min: 0}
oomScoreAdj: 0
`))
)

// render writes a configuration and returns its path.
func (c *Cluster) render(name string, t *template.Template) (string, error) {
	root, err := c.cache.debianRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	var text strings.Builder
	if err := t.Execute(&text, struct{ Dir, Debian, PKI string }{c.dir, root, string(c.pki)}); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(text.String()), 0o644)
}

// startContainerd starts containerd with the images that pods of tests are made of.
func (c *Cluster) startContainerd(ctx context.Context) error {
	if _, err := c.render("cni/10-bridge.conflist", cniConfig); err != nil {
		return err
	}
	config, err := c.render("containerd.toml", containerdConfig)
	if err != nil {
		return err
	}
	root, err := c.cache.debianRoot()
	if err != nil {
		return err
	}
	if err := c.startDaemon(ctx, "containerd", filepath.Join(root, "usr/bin/containerd"), "--config="+config); err != nil {
		return err
	}
	err = c.await(ctx, "containerd", func(ctx context.Context) error { return c.ctr(ctx, "version") })
	if err != nil {
		return err
	}
	return c.importWorkload(ctx)
}

// ctr runs containerd's own client.
func (c *Cluster) ctr(ctx context.Context, args ...string) error {
	root, err := c.cache.debianRoot()
	if err != nil {
		return err
	}
	args = append([]string{"--address=" + containerdSocket, "--namespace=k8s.io"}, args...)
	cmd, err := c.command(ctx, filepath.Join(root, "usr/bin/ctr"), args...)
	if err != nil {
		return err
	}
	_, err = output(cmd)
	return err
}

// Import makes the images of a file known to the node: an OCI image layout or a Docker archive, as a tar.
func (c *Cluster) Import(ctx context.Context, file string) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	if err := c.ctr(ctx, "images", "import", file); err != nil {
		return fmt.Errorf("cannot import the images of %s: %w", file, err)
	}
	return nil
}

// startNode starts kubelet and kube-proxy.
func (c *Cluster) startNode(ctx context.Context) error {
	kubelet, err := c.render("kubelet.yaml", kubeletConfig)
	if err != nil {
		return err
	}
	proxy, err := c.render("kube-proxy.yaml", kubeProxyConfig)
	if err != nil {
		return err
	}
	if err := c.startKubernetes(ctx, "kubelet", "--config="+kubelet, "--kubeconfig="+c.pki.kubeconfig("kubelet"),
		"--node-ip="+NodeIP, "--hostname-override="+NodeName, "--root-dir=/var/lib/kubelet"); err != nil {
		return err
	}
	return c.startKubernetes(ctx, "kube-proxy", "--config="+proxy)
}
