//go:build linux

package deploy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/cluster"
	"github.com/orb8/orb8/testbed/internal/collector"
)

const (
	agent   = "daemonset/orb8-agent"
	gateway = "deployment/orb8-gateway"
	// gatewayIP is the Service's, as the cluster of the test bed has no DNS.
	gatewayIP = "10.96.8.8"
)

// workload is a pod that calls a Service five times a second, and the pod behind it.
const workload = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: server, image: ` + cluster.WorkloadImage + `, args: [serve, "8080"]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, clusterIP: 10.96.100.100, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  containers: [{name: caller, image: ` + cluster.WorkloadImage + `, args: [call, -every=200ms, -for=1h, "10.96.100.100:80"]}]
`

// What `make image` made runs as the manifests have it, and answers.
func TestOnACluster(t *testing.T) {
	image := filepath.Join(collector.Root(), "bin", "orb8-"+runtime.GOARCH+".tar")
	_, err := os.Stat(image)
	testutil.Require(t, "k8s", err == nil, "there is no image to run; run `make image`")
	c := cluster.Start(t)
	require.NoError(t, c.Import(t.Context(), image))
	require.NoError(t, c.Apply(t.Context(), workload))
	for _, tt := range []struct {
		name string
		test func(*testing.T, *cluster.Cluster)
	}{
		{"trace without agents", testTrace}, {"base", testBase}, {"gateway away", testGatewayAway}, {"tls", testTLS}, {"minimal", testMinimal},
		{"gpu", testGPU}, {"persistent", testPersistent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					logPods(t, c)
				}
			})
			tt.test(t, c)
		})
	}
}

func testBase(t *testing.T, c *cluster.Cluster) {
	deploy(t, c, "base")
	for _, from := range []string{agent, gateway} {
		awaitWorkload(t, c, from, time.Time{})
		var status struct{ Nodes []struct{ Node string } }
		askJSON(t, c, &status, from, "status", "-o", "json")
		require.Len(t, status.Nodes, 1, from)
		assert.Equal(t, cluster.NodeName, status.Nodes[0].Node, from)
	}
	collector.Await(t, "the client's system calls at the gateway", func() bool {
		var calls []struct{ Container, Pod, Syscall string }
		askJSON(t, c, &calls, gateway, "syscalls", "-o", "json", "--limit", "0")
		for _, row := range calls {
			if row.Pod == "client" && row.Container == "caller" && row.Syscall == "connect" {
				return true
			}
		}
		return false
	}, func() any { return ask(t, c, gateway, "syscalls") })

	// The CLI beside the cluster finds its way by itself.
	for to, args := range map[string][]string{
		"svc/default/web": {},
		// An agent knows no Services.
		":80": {"--agent", "node/" + cluster.NodeName},
	} {
		rows := beside(t, c, append([]string{"flows", "-o", "jsonl", "--all", "--from", "default/client", "--to", to}, args...)...)
		assert.Contains(t, rows, `"container":"caller"`, args)
		assert.NotContains(t, rows, `"source":{"address":"10.96.100.100"`, "what goes the other way")
		assert.Contains(t, beside(t, c, append([]string{"status"}, args...)...), " by kubectl\n", args)
	}
	var sums []struct {
		Source string `json:"source.workload"`
		Bytes  uint64
	}
	text := beside(t, c, "aggregate", "--by", "source.workload", "--from", "deploy/web", "-l", "app=web", "--not", "--port", "53", "-o", "json")
	require.NoError(t, json.Unmarshal([]byte(text), &sums), text)
	require.Len(t, sums, 1)
	assert.Equal(t, "default/web", sums[0].Source)
	assert.NotZero(t, sums[0].Bytes)
	assert.Contains(t, beside(t, c, "__complete", "flows", "--pod", "default/cl"), "default/client\n")

	for component, metrics := range map[string][]string{
		"agent":   {"orb8_network_flow_io_bytes_total{", `k8s_node_name="` + cluster.NodeName + `"`},
		"gateway": {"orb8_workload_flow_io_bytes_total{"},
	} {
		var page string
		collector.Await(t, fmt.Sprintf("metrics %q of the %s", metrics, component), func() bool {
			page = metricsOf(t, c, component)
			return !slices.ContainsFunc(metrics, func(m string) bool { return !strings.Contains(page, m) })
		}, func() any { return page })
	}
}

// What agents cannot deliver waits for the gateway to come back.
func testGatewayAway(t *testing.T, c *cluster.Cluster) {
	kubectlIn(t, c, "scale", gateway, "--replicas=0")
	kubectlIn(t, c, "wait", "pod", "--for=delete", "-l", "app.kubernetes.io/component=gateway", "--timeout=60s")
	away := time.Now()
	awaitWorkload(t, c, agent, away)
	back := time.Now()
	kubectlIn(t, c, "scale", gateway, "--replicas=1")
	kubectlIn(t, c, "rollout", "status", gateway, "--timeout=120s")
	ready := time.Now()
	// gRPC connects again after a pause that grows with the outage, and so do the exporter's retries.
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(flows(t, c, gateway), func(f collector.Flow) bool { return f.Time.After(away) && f.Time.Before(back) })
	}, 2*time.Minute, 500*time.Millisecond, "flows from %s to %s", away, back)
	t.Logf("away for %s, delivered %s later", ready.Sub(away), time.Since(ready))
}

func testTLS(t *testing.T, c *cluster.Cluster) {
	authority := newAuthority(t)
	for _, component := range []string{"agent", "gateway"} {
		dir := authority.issue(t, component, "orb8-gateway."+namespace+".svc", gatewayIP)
		kubectlIn(t, c, "create", "secret", "generic", "orb8-"+component+"-tls", "--from-file="+dir)
	}
	deploy(t, c, "overlays/tls")
	awaitWorkload(t, c, gateway, time.Now())

	// Without a certificate nobody gets in.
	self, err := os.Executable()
	require.NoError(t, err)
	client, err := c.Command(t.Context(), self)
	require.NoError(t, err)
	client.Env = append(os.Environ(), dialVariable+"="+gatewayIP+":4317")
	out, err := client.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "certificate required")
}

func testMinimal(t *testing.T, c *cluster.Cluster) {
	kubectlIn(t, c, "delete", "daemonset,deployment,service", "--all")
	kubectlIn(t, c, "wait", "pod", "--for=delete", "--all", "--timeout=60s")
	deploy(t, c, "overlays/minimal")
	awaitWorkload(t, c, agent, time.Now())
	assert.Equal(t, "daemonset.apps/orb8-agent\n", kubectlIn(t, c, "get", "daemonset,deployment", "-o", "name"))
}

// A node without GPUs is watched all the same, and each source says once what it lacks there.
func testGPU(t *testing.T, c *cluster.Cluster) {
	deploy(t, c, "overlays/gpu")
	awaitWorkload(t, c, agent, time.Now())
	awaitWorkload(t, c, gateway, time.Now())
	const absent = "GPUs are not watched by a source that this host does not have"
	var log string
	collector.Await(t, "what each source lacks", func() bool {
		log = kubectlIn(t, c, "logs", agent)
		return strings.Count(log, absent) >= 4
	}, func() any { return log })
	for _, source := range []string{"nvml", "dcgm", "cuda", "pod_resources"} {
		var said []string
		for line := range strings.Lines(log) {
			if strings.Contains(line, absent) && strings.Contains(line, `"source": "`+source+`"`) {
				said = append(said, line)
			}
		}
		assert.Len(t, said, 1, source)
	}
}

// What a gateway has stored is there for the next one that has its volume.
func testPersistent(t *testing.T, c *cluster.Cluster) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777)) // a volume of this kind is nobody's
	require.NoError(t, c.Apply(t.Context(), fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: orb8-gateway}
spec:
  capacity: {storage: 20Gi}
  accessModes: [ReadWriteOnce]
  claimRef: {namespace: %s, name: orb8-gateway}
  hostPath: {path: %s, type: Directory}
`, namespace, dir)))
	deploy(t, c, "overlays/persistent")
	awaitWorkload(t, c, gateway, time.Time{})
	before := flows(t, c, gateway)
	kubectlIn(t, c, "delete", "pod", podOf(t, c, "gateway"))
	kubectlIn(t, c, "rollout", "status", gateway, "--timeout=120s")
	awaitWorkload(t, c, gateway, time.Now())
	after := flows(t, c, gateway)
	for _, f := range before {
		assert.True(t, slices.ContainsFunc(after, func(g collector.Flow) bool { return g.ConnectionID == f.ConnectionID && g.Time.Equal(f.Time) }), "%v", f)
	}
	// The volume goes with the test.
	kubectlIn(t, c, "delete", gateway, "--wait")
	kubectlIn(t, c, "wait", "pod", "--for=delete", "-l", "app.kubernetes.io/component=gateway", "--timeout=60s")
}

// deploy applies a variant, and waits until all of it is ready.
func deploy(t *testing.T, c *cluster.Cluster, variant string) {
	t.Helper()
	var rollouts []string
	var manifests bytes.Buffer
	for _, o := range objects(t, render(t, c.ControlPlane, variant)) {
		switch o := o.(type) {
		case *corev1.Service:
			o.Spec.ClusterIP = gatewayIP
		case *appsv1.DaemonSet:
			env := &o.Spec.Template.Spec.Containers[0].Env
			*env = append(*env, corev1.EnvVar{Name: "ORB8_GATEWAY_ENDPOINT", Value: gatewayIP + ":4317"})
			rollouts = append(rollouts, "daemonset/"+o.Name)
		case *appsv1.Deployment:
			rollouts = append(rollouts, "deployment/"+o.Name)
		}
		writeManifest(t, &manifests, o)
	}
	kubectl(t, c.ControlPlane, manifests.Bytes(), "apply", "--server-side", "--force-conflicts", "-f", "-")
	for _, r := range rollouts {
		kubectlIn(t, c, "rollout", "status", r, "--timeout=120s")
	}
}

func writeManifest(t *testing.T, to *bytes.Buffer, o k8sruntime.Object) {
	t.Helper()
	text, err := json.Marshal(o)
	require.NoError(t, err)
	to.WriteString("---\n")
	to.Write(append(text, '\n'))
}

// awaitWorkload waits until both ends of what the client and the web server say to each other are there, counted after a time,
// each with names, and that of the server also with the client's.
func awaitWorkload(t *testing.T, c *cluster.Cluster, from string, after time.Time) {
	t.Helper()
	var rows []collector.Flow
	collector.Await(t, "flows of client and server at "+from, func() bool {
		rows = flows(t, c, from)
		var client, server bool
		for _, f := range rows {
			if !f.Time.After(after) {
				continue
			}
			end, peer := f.Source, f.Destination
			if f.Direction == "ingress" {
				end, peer = peer, end
			}
			client = client || end.Pod == "client" && end.Namespace == "default" && end.Container == "caller"
			server = server || strings.HasPrefix(end.Pod, "web-") && end.Namespace == "default" && end.Container == "server" &&
				peer.Pod == "client" && peer.Namespace == "default"
		}
		return client && server
	}, func() any { return fmt.Sprintf("%d flows", len(rows)) })
}

// flows are those of the workload, its Service's and its pod's ports.
func flows(t *testing.T, c *cluster.Cluster, from string) (rows []collector.Flow) {
	t.Helper()
	askJSON(t, c, &rows, from, "flows", "-o", "json", "--limit", "0", "--port", "80,8080")
	return rows
}

// ask runs the orb8 CLI in a pod.
func ask(t *testing.T, c *cluster.Cluster, from string, args ...string) string {
	t.Helper()
	return kubectlIn(t, c, append([]string{"exec", from, "--", "orb8"}, args...)...)
}

// beside runs the orb8 CLI of this machine, with nothing but a kubeconfig to find the collector by.
func beside(t *testing.T, c *cluster.Cluster, args ...string) string {
	t.Helper()
	cmd, err := c.Kubectl(t.Context())
	require.NoError(t, err)
	i := slices.IndexFunc(cmd.Args, func(arg string) bool { return filepath.Base(arg) == "kubectl" })
	require.GreaterOrEqual(t, i, 0, cmd.Args)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "PATH="+filepath.Dir(cmd.Args[i])+":"+os.Getenv("PATH"), "ORB8_AGENT=")
	cmd.Args = append(append(cmd.Args[:i:i], collector.Binary(t, "orb8")), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "%s\n%s", args, stderr.String())
	return stdout.String()
}

func askJSON(t *testing.T, c *cluster.Cluster, v any, from string, args ...string) {
	t.Helper()
	text := ask(t, c, from, args...)
	require.NoError(t, json.Unmarshal([]byte(text), v), text)
}

func kubectlIn(t *testing.T, c *cluster.Cluster, args ...string) string {
	t.Helper()
	return kubectl(t, c.ControlPlane, nil, append([]string{"-n", namespace}, args...)...)
}

func podOf(t *testing.T, c *cluster.Cluster, component string) string {
	t.Helper()
	return kubectlIn(t, c, "get", "pod", "-l", "app.kubernetes.io/component="+component, "--field-selector=status.phase=Running",
		"-o", "jsonpath={.items[0].metadata.name}")
}

func metricsOf(t *testing.T, c *cluster.Cluster, component string) string {
	t.Helper()
	return kubectl(t, c.ControlPlane, nil, "get", "--raw", fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:9091/proxy/metrics", namespace, podOf(t, c, component)))
}

func logPods(t *testing.T, c *cluster.Cluster) {
	ctx := context.WithoutCancel(t.Context()) // which has ended
	for _, args := range [][]string{{"describe", "pods"}, {"logs", agent, "--tail=50"}, {"logs", gateway, "--tail=50"}} {
		cmd, err := c.Kubectl(ctx, append([]string{"-n", namespace}, args...)...)
		if err != nil {
			t.Log(err)
			continue
		}
		out, err := cmd.CombinedOutput()
		t.Logf("kubectl %v: %v\n%s", args, err, out)
	}
}
