package podenrichmentprocessor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/processor/processorhelper"
	"go.opentelemetry.io/collector/processor/processortest"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8s "k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/processor/podenrichmentprocessor/internal/metadata"
	"github.com/orb8/orb8/testbed/cluster"
)

// soon is how long what happens at once may take on a loaded machine.
const soon = time.Minute

// noServer is the kubeconfig of a cluster that nobody answers for.
const noServer = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: c, context: {cluster: c}}]
current-context: c
`

// agent is an enricher that asks Kubernetes, with cgroups that are directories of the test's.
type agent struct {
	*node
	host    *statusHost
	logs    *queue[plog.Logs]
	metrics *queue[pmetric.Metrics]
	traces  *queue[ptrace.Traces]
	sink    *consumertest.LogsSink
	// warnings are what was logged.
	warnings *observer.ObservedLogs
}

// newAgent starts an agent on node-1 with the kubeconfig.
func newAgent(t testing.TB, kubeconfig string, change func(*Config, *KubernetesConfig), next consumer.Logs) *agent {
	t.Helper()
	t.Setenv("KUBECONFIG", kubeconfig)
	a := &agent{
		node: &node{telemetry: componenttest.NewTelemetry(), root: t.TempDir()}, host: &statusHost{}, sink: &consumertest.LogsSink{},
	}
	t.Cleanup(func() { assert.NoError(t, a.telemetry.Shutdown(context.Background())) })
	set := processortest.NewNopSettings(metadata.Type)
	set.TelemetrySettings = a.telemetry.NewTelemetrySettings()
	core, warnings := observer.New(zap.WarnLevel)
	set.Logger, a.warnings = zap.New(core), warnings
	cfg := createDefaultConfig().(*Config)
	cfg.NodeName = "node-1"
	k := *cfg.Kubernetes.GetOrInsertDefault()
	k.AuthType = "kubeConfig"
	k.Wait.Timeout = soon
	if change != nil {
		change(cfg, &k)
	}
	cfg.Kubernetes = configoptional.Some(k)
	require.NoError(t, cfg.Validate())
	var err error
	a.enricher, err = newEnricher(set, cfg)
	require.NoError(t, err)
	a.findMount = func(string) (cgroup.Mount, error) { return cgroup.Mount{Path: a.root}, nil }
	if next == nil {
		next = a.sink
	}
	a.logs = a.pods.logsQueue(next)
	a.metrics = a.pods.metricsQueue(consumertest.NewNop())
	a.traces = a.pods.tracesQueue(consumertest.NewNop())
	t.Cleanup(func() { assert.NoError(t, a.shutdown()) })
	require.NoError(t, a.start(t.Context(), a.host))
	return a
}

// consume does what processorhelper does.
func (a *agent) consume(t testing.TB, ld plog.Logs) {
	t.Helper()
	ld, err := a.enricher.logs(t.Context(), ld, a.logs)
	if err == nil {
		require.NoError(t, a.sink.ConsumeLogs(t.Context(), ld))
		return
	}
	require.ErrorIs(t, err, processorhelper.ErrSkipProcessingData)
}

// cgroupOf makes the cgroup of a container and returns its id.
func (a *agent) cgroupOf(t testing.TB, podUID, containerID string) int64 {
	t.Helper()
	path := "/kubepods/burstable/pod" + podUID + "/" + containerID
	require.NoError(t, os.MkdirAll(filepath.Join(a.root, path), 0o755))
	id := a.id(t, path)
	require.Eventually(t, func() bool {
		_, known := a.resolver.Resolve(uint64(id))
		return known
	}, soon, time.Millisecond)
	return id
}

// record is a flow's last second, seen at its source unless that is ingress.
func record(direction, source, destination string, port int64) map[string]any {
	return map[string]any{
		flow.AttrDirection: direction, flow.AttrSourceAddress: source, flow.AttrSourcePort: int64(40000), flow.AttrDestinationAddress: destination,
		flow.AttrDestinationPort: port, flow.AttrTransport: "tcp", flow.AttrFlowStart: time.Now().Add(-time.Second).UnixNano(),
	}
}

// oneRecord is the record of a resource that has the cgroup.
func oneRecord(t testing.TB, cgroupID int64, attrs map[string]any) plog.Logs {
	t.Helper()
	ld := plog.NewLogs()
	rl := ld.ResourceLogs().AppendEmpty()
	if cgroupID != 0 {
		rl.Resource().Attributes().PutInt(flow.AttrCgroupID, cgroupID)
	}
	require.NoError(t, rl.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty().Attributes().FromRaw(attrs))
	return ld
}

// received waits for the batch with the number and returns the attributes of its first resource and record.
func (a *agent) received(t testing.TB, number int) (resource, record map[string]any) {
	t.Helper()
	require.Eventually(t, func() bool { return len(a.sink.AllLogs()) > number }, 2*soon, time.Millisecond)
	rl := a.sink.AllLogs()[number].ResourceLogs().At(0)
	return rl.Resource().Attributes().AsRaw(), rl.ScopeLogs().At(0).LogRecords().At(0).Attributes().AsRaw()
}

// number returns the value of a metric without attributes, or with those alone.
func (a *agent) number(t testing.TB, name string, attributes ...string) (sum int64) {
	t.Helper()
	m, err := a.telemetry.GetMetric("otelcol_processor_pod_enrichment_" + name)
	if err != nil {
		return 0 // nothing was counted yet
	}
	var points []metricdata.DataPoint[int64]
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		points = data.DataPoints
	case metricdata.Gauge[int64]:
		points = data.DataPoints
	}
	for _, p := range points {
		value, ok := p.Attributes.Value("cause")
		if !ok {
			value, _ = p.Attributes.Value("reason")
		}
		if len(attributes) == 0 || value.AsString() == attributes[0] {
			sum += p.Value
		}
	}
	return sum
}

func subset(t *testing.T, want, got map[string]any) {
	t.Helper()
	for name, value := range want {
		assert.Equal(t, value, got[name], name)
	}
}

func containerOf(digit string) string { return strings.Repeat(digit, 64) }

// makePod makes a pod whose container has not begun.
func makePod(t *testing.T, client k8s.Interface, name, node, ip string, owner *metav1.OwnerReference, labels map[string]string) *corev1.Pod {
	t.Helper()
	pods := client.CoreV1().Pods("default")
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: corev1.PodSpec{NodeName: node, HostNetwork: ip == "", Containers: []corev1.Container{{
			Name: "main", Image: "image:1", Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
		}}},
	}
	if owner != nil {
		p.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	p, err := pods.Create(t.Context(), p, metav1.CreateOptions{})
	require.NoError(t, err)
	started := metav1.NewTime(time.Now().Add(-time.Minute))
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &started}
	if ip != "" {
		p.Status.PodIP, p.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
	}
	p, err = pods.UpdateStatus(t.Context(), p, metav1.UpdateOptions{})
	require.NoError(t, err)
	return p
}

// begin starts the pod's container.
func begin(t *testing.T, client k8s.Interface, p *corev1.Pod, containerID string) {
	t.Helper()
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://" + containerID}}
	_, err := client.CoreV1().Pods("default").UpdateStatus(t.Context(), p, metav1.UpdateOptions{})
	require.NoError(t, err)
}

func controller(kind, name string) *metav1.OwnerReference {
	return &metav1.OwnerReference{APIVersion: "apps/v1", Kind: kind, Name: name, UID: "00000000-0000-0000-0000-000000000001", Controller: ptr.To(true)}
}

func TestPods(t *testing.T) {
	plane := cluster.StartControlPlane(t, cluster.ControlPlaneOptions{})
	client, err := plane.Client()
	require.NoError(t, err)
	for name, ip := range map[string]string{"node-1": "192.0.2.1", "node-2": "192.0.2.2"} {
		n, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"topology.kubernetes.io/zone": "zone-of-" + name}},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}}
		_, err = client.CoreV1().Nodes().UpdateStatus(t.Context(), n, metav1.UpdateOptions{})
		require.NoError(t, err)
	}
	service, err := client.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	web := makePod(t, client, "web-7c9-x", "node-1", "10.244.1.5", controller("ReplicaSet", "web-7c9"), map[string]string{"pod-template-hash": "7c9", "app": "web", "tier": "front"})
	begin(t, client, web, containerOf("a"))
	db := makePod(t, client, "db-0", "node-2", "10.244.2.5", controller("StatefulSet", "db"), nil)
	begin(t, client, db, containerOf("b"))
	proxy := makePod(t, client, "proxy", "node-1", "", controller("DaemonSet", "proxy"), nil)
	begin(t, client, proxy, containerOf("c"))
	webAttrs := func(prefix string) map[string]any {
		out := map[string]any{}
		for name, value := range map[string]any{
			"k8s.pod.name": "web-7c9-x", "k8s.namespace.name": "default", "k8s.replicaset.name": "web-7c9", "k8s.deployment.name": "web",
			"k8s.node.name": "node-1", "cloud.availability_zone": "zone-of-node-1", "k8s.container.name": "main",
			"container.image.name": "image", "k8s.pod.uid": string(web.UID),
		} {
			out[prefix+name] = value
		}
		return out
	}

	t.Run("named without a cgroup", func(t *testing.T) {
		a := newAgent(t, plane.Kubeconfig(), nil, nil)
		begun := makePod(t, client, "train-0", "node-1", "10.244.1.60", nil, nil)
		by := func(names map[string]any) plog.Logs {
			ld := oneRecord(t, 0, nil)
			require.NoError(t, ld.ResourceLogs().At(0).Resource().Attributes().FromRaw(names))
			return ld
		}
		allocated := map[string]any{"k8s.namespace.name": "default", "k8s.pod.name": "train-0", "k8s.container.name": "main"}
		a.consume(t, by(allocated))
		assert.Empty(t, a.sink.AllLogs(), "the kubelet gives a device before the container begins")
		begin(t, client, begun, containerOf("6"))
		named, _ := a.received(t, 0)
		id := a.cgroupOf(t, string(begun.UID), containerOf("6"))
		a.consume(t, oneRecord(t, id, nil))
		measured, _ := a.received(t, 1)
		for _, of := range []string{"orb8.cgroup.id", "orb8.cgroup.path", "container.runtime.name", "orb8.k8s.pod.qos_class"} {
			delete(measured, of)
		}
		assert.Equal(t, measured, named, "both are one container")
		assert.Equal(t, containerOf("6"), named["container.id"])

		a.consume(t, by(map[string]any{"k8s.namespace.name": "default", "k8s.pod.name": "train-0"}))
		partly, _ := a.received(t, 2)
		assert.NotContains(t, partly, "k8s.pod.uid", "it is no container")
	})

	t.Run("node", func(t *testing.T) {
		a := newAgent(t, plane.Kubeconfig(), nil, nil)
		webID := a.cgroupOf(t, string(web.UID), containerOf("a"))
		a.consume(t, oneRecord(t, webID, record("egress", "10.244.1.5", "10.244.2.5", 5432)))
		resource, rec := a.received(t, 0)
		subset(t, webAttrs(""), resource)
		assert.NotContains(t, resource, flow.AttrLabels, "nobody asked for them")
		assert.NotContains(t, rec, "destination.k8s.pod.name", "a pod of another node")
		assert.NotContains(t, rec, "source.k8s.pod.name", "the resource has it")

		proxyID := a.cgroupOf(t, string(proxy.UID), containerOf("c"))
		a.consume(t, oneRecord(t, proxyID, record("ingress", "10.244.1.5", "192.0.2.1", 10256)))
		resource, rec = a.received(t, 1)
		subset(t, map[string]any{"k8s.pod.name": "proxy", "k8s.daemonset.name": "proxy"}, resource)
		subset(t, webAttrs("source."), rec)
		assert.NotContains(t, rec, "destination.k8s.node.name")

		// The kernel's own replies are the root cgroup's; two containers of a pod talk over loopback.
		a.consume(t, oneRecord(t, a.id(t, "/"), record("egress", "10.244.1.5", "192.0.2.1", 0)))
		_, rec = a.received(t, 2)
		subset(t, webAttrs("source."), rec)
		assert.Equal(t, "node-1", rec["destination.k8s.node.name"])
		a.consume(t, oneRecord(t, webID, record("egress", "127.0.0.1", "127.0.0.1", 8080)))
		_, rec = a.received(t, 3)
		subset(t, webAttrs("destination."), rec)
		a.consume(t, oneRecord(t, proxyID, record("egress", "127.0.0.1", "127.0.0.1", 8080)))
		_, rec = a.received(t, 4)
		assert.Equal(t, "node-1", rec["destination.k8s.node.name"])
		assert.NotContains(t, rec, "destination.k8s.pod.name")

		// A container that the API does not tell of yet: its record waits, another's passes.
		late := makePod(t, client, "late", "node-1", "10.244.1.9", controller("Job", "late"), nil)
		lateID := a.cgroupOf(t, string(late.UID), containerOf("d"))
		a.consume(t, oneRecord(t, lateID, record("egress", "10.244.1.9", "192.0.2.9", 443)))
		a.consume(t, oneRecord(t, webID, record("egress", "10.244.1.5", "192.0.2.9", 443)))
		resource, rec = a.received(t, 5)
		assert.Equal(t, "web-7c9-x", resource["k8s.pod.name"])
		assert.NotContains(t, rec, "destination.k8s.pod.name")
		require.Eventually(t, func() bool { return a.number(t, "waiting") == 1 }, soon, time.Millisecond)
		begin(t, client, late, containerOf("d"))
		resource, _ = a.received(t, 6)
		subset(t, map[string]any{"k8s.pod.name": "late", "k8s.job.name": "late", "k8s.container.name": "main"}, resource)
		assert.Zero(t, a.number(t, "waiting"))

		// A pod that has died is still known.
		require.NoError(t, client.CoreV1().Pods("default").Delete(t.Context(), "late", metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))}))
		require.NoError(t, os.RemoveAll(filepath.Join(a.root, "kubepods/burstable/pod"+string(late.UID))))
		a.consume(t, oneRecord(t, lateID, record("egress", "10.244.1.9", "10.244.1.5", 8080)))
		resource, rec = a.received(t, 7)
		assert.Equal(t, "late", resource["k8s.pod.name"])
		subset(t, webAttrs("destination."), rec)
		assert.Zero(t, a.number(t, "unnamed"))
		assert.Zero(t, a.number(t, "let_go"))

		td := ptrace.NewTraces()
		td.ResourceSpans().AppendEmpty().Resource().Attributes().PutInt(flow.AttrCgroupID, webID)
		td, err := a.enricher.traces(t.Context(), td, a.traces)
		require.NoError(t, err)
		span := td.ResourceSpans().At(0).Resource().Attributes().AsRaw()
		subset(t, webAttrs(""), span)
		assert.Equal(t, "web", span["service.name"])
		md := pmetric.NewMetrics()
		md.ResourceMetrics().AppendEmpty().Resource().Attributes().PutInt(flow.AttrCgroupID, webID)
		md, err = a.enricher.metrics(t.Context(), md, a.metrics)
		require.NoError(t, err)
		subset(t, webAttrs(""), md.ResourceMetrics().At(0).Resource().Attributes().AsRaw())
	})

	t.Run("labels", func(t *testing.T) {
		a := newAgent(t, plane.Kubeconfig(), func(cfg *Config, k *KubernetesConfig) {
			cfg.Gateway, k.Scope, k.Labels = true, scopeCluster, true
		}, nil)
		// An agent has named its own pod, and the gateway knows the labels all the same.
		in := oneRecord(t, 4711, record("ingress", "10.244.1.5", "10.244.2.5", 5432))
		attrs := in.ResourceLogs().At(0).Resource().Attributes()
		for name, value := range map[string]string{
			"k8s.pod.uid": string(db.UID), "k8s.pod.name": "db-0", "container.id": containerOf("b"), "k8s.container.name": "main",
		} {
			attrs.PutStr(name, value)
		}
		require.Eventually(t, a.pods.cache.Ready, soon, time.Millisecond)
		a.consume(t, in)
		resource, rec := a.received(t, 0)
		// The API server itself labels pods with the zone of their node.
		const zone = "topology.kubernetes.io/zone=zone-of-node-"
		assert.Equal(t, zone+"2", resource["orb8.k8s.pod.labels"])
		assert.Equal(t, "app=web,tier=front,"+zone+"1", rec["source.orb8.k8s.pod.labels"])

		in = oneRecord(t, 4711, record("egress", "10.244.1.5", "10.244.2.5", 5432))
		in.ResourceLogs().At(0).Resource().Attributes().PutStr("k8s.pod.uid", string(web.UID))
		a.consume(t, in)
		resource, rec = a.received(t, 1)
		assert.Equal(t, "app=web,tier=front,"+zone+"1", resource["orb8.k8s.pod.labels"])
		assert.NotContains(t, rec, "source.orb8.k8s.pod.labels", "the resource has them")
		assert.Equal(t, zone+"2", rec["destination.orb8.k8s.pod.labels"])

		md := pmetric.NewMetrics()
		md.ResourceMetrics().AppendEmpty().Resource().Attributes().PutStr("k8s.pod.uid", string(web.UID))
		md, err := a.enricher.metrics(t.Context(), md, a.metrics)
		require.NoError(t, err)
		assert.NotContains(t, md.ResourceMetrics().At(0).Resource().Attributes().AsRaw(), flow.AttrLabels, "a series for each label")
	})

	t.Run("gateway", func(t *testing.T) {
		a := newAgent(t, plane.Kubeconfig(), func(cfg *Config, k *KubernetesConfig) { cfg.Gateway, k.Scope = true, scopeCluster }, nil)
		// As an agent sends it: it knows its own pods.
		in := oneRecord(t, 4711, record("egress", "10.244.1.5", service.Spec.ClusterIP, 80))
		attrs := in.ResourceLogs().At(0).Resource().Attributes()
		attrs.PutStr("k8s.node.name", "node-1")
		attrs.PutStr("k8s.pod.uid", string(web.UID))
		attrs.PutStr("container.id", containerOf("a"))
		a.consume(t, in)
		resource, rec := a.received(t, 0)
		subset(t, webAttrs(""), resource)
		subset(t, map[string]any{"destination.k8s.service.name": "web", "destination.k8s.namespace.name": "default"}, rec)
		assert.NotContains(t, rec, "destination.k8s.pod.name")

		a.consume(t, oneRecord(t, 0, record("transit", "10.244.1.5", "10.244.2.5", 5432)))
		resource, rec = a.received(t, 1)
		assert.NotContains(t, resource, "k8s.node.name", "nothing here is the gateway's own")
		subset(t, webAttrs("source."), rec)
		subset(t, map[string]any{
			"destination.k8s.pod.name": "db-0", "destination.k8s.statefulset.name": "db", "destination.k8s.node.name": "node-2",
			"destination.cloud.availability_zone": "zone-of-node-2",
		}, rec)
		a.consume(t, oneRecord(t, 0, record("transit", "10.244.2.5", "192.0.2.2", 22)))
		_, rec = a.received(t, 2)
		assert.Equal(t, "node-2", rec["destination.k8s.node.name"])
		assert.NotContains(t, rec, "destination.k8s.pod.name")
		assert.Zero(t, a.number(t, "lookups"))
	})
}

// What a gateway was sent stays together, and is not acknowledged while it waits: the sender has it yet.
func TestGatewayWaitsInPlace(t *testing.T) {
	plane := cluster.StartControlPlane(t, cluster.ControlPlaneOptions{})
	client, err := plane.Client()
	require.NoError(t, err)
	a := newAgent(t, plane.Kubeconfig(), func(cfg *Config, k *KubernetesConfig) { cfg.Gateway, k.Scope = true, scopeCluster }, nil)
	require.Eventually(t, a.pods.cache.Ready, soon, time.Millisecond)
	in := func(uid string) plog.Logs {
		ld := oneRecord(t, 0, record("egress", "10.244.1.9", "192.0.2.1", 80))
		ld.ResourceLogs().At(0).Resource().Attributes().PutStr("k8s.pod.uid", uid)
		oneRecord(t, 0, record("transit", "192.0.2.3", "192.0.2.4", 80)).ResourceLogs().MoveAndAppendTo(ld.ResourceLogs())
		return ld
	}

	// It comes to be known while it waits.
	web := makePod(t, client, "web", "node-1", "10.244.1.9", nil, nil)
	out, err := a.enricher.logs(t.Context(), in(string(web.UID)), a.logs)
	require.NoError(t, err)
	assert.Equal(t, 2, out.ResourceLogs().Len())
	assert.Equal(t, "web", out.ResourceLogs().At(0).Resource().Attributes().AsRaw()["k8s.pod.name"])
	assert.Zero(t, a.number(t, "let_go"))
	assert.Zero(t, a.number(t, "waiting"))

	// The sender gives up.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = a.enricher.logs(ctx, in(podUID), a.logs)
	require.ErrorIs(t, err, context.Canceled)
	assert.Zero(t, a.number(t, "waiting"))

	// It never is, and whoever sent it has half of their patience left.
	const patience = 600 * time.Millisecond
	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err = a.enricher.logs(ctx, in(podUID), a.logs)
	require.NoError(t, err)
	require.NoError(t, ctx.Err())
	assert.Equal(t, 2, out.LogRecordCount())
	assert.NotContains(t, out.ResourceLogs().At(0).Resource().Attributes().AsRaw(), "k8s.pod.name")
	assert.Equal(t, int64(2), a.number(t, "let_go", "timeout"))
	assert.Empty(t, a.sink.AllLogs(), "nothing goes another way")
}

// While the API server is away pods that are known are named, by their cgroup or by what they are seen to use; an address
// that has moved in the meantime is not named wrongly. When it is back all is as before.
func TestOutage(t *testing.T) {
	plane := cluster.StartControlPlane(t, cluster.ControlPlaneOptions{})
	client, err := plane.Client()
	require.NoError(t, err)
	web := makePod(t, client, "web", "node-1", "10.244.1.5", nil, nil)
	begin(t, client, web, containerOf("a"))
	db := makePod(t, client, "db", "node-1", "10.244.1.6", nil, nil)
	begin(t, client, db, containerOf("b"))
	moved := makePod(t, client, "moved", "node-1", "10.244.1.7", nil, nil)
	begin(t, client, moved, containerOf("c"))
	a := newAgent(t, plane.Kubeconfig(), func(_ *Config, k *KubernetesConfig) { k.Wait.Timeout = 2 * time.Second }, nil)
	ids := map[string]int64{}
	for name, p := range map[string]*corev1.Pod{"a": web, "b": db, "c": moved} {
		ids[name] = a.cgroupOf(t, string(p.UID), containerOf(name))
	}
	require.Eventually(t, func() bool {
		return a.pods.cache.Ready() && a.pods.cache.Sizes()["pod"] == 3 && a.pods.cache.Stale().IsZero()
	}, soon, time.Millisecond)
	require.NoError(t, plane.StopAPIServer())
	require.Eventually(t, func() bool { return a.warnings.FilterMessageSnippet("does not answer").Len() == 1 }, soon, time.Millisecond)

	// Both ends of a flow in one batch confirm each other.
	both := oneRecord(t, ids["a"], record("egress", "10.244.1.5", "10.244.1.6", 80))
	oneRecord(t, ids["b"], record("ingress", "10.244.1.5", "10.244.1.6", 80)).ResourceLogs().MoveAndAppendTo(both.ResourceLogs())
	a.consume(t, both)
	resource, rec := a.received(t, 0)
	assert.Equal(t, "web", resource["k8s.pod.name"])
	assert.Equal(t, "db", rec["destination.k8s.pod.name"])
	assert.Equal(t, "web", a.sink.AllLogs()[0].ResourceLogs().At(1).ScopeLogs().At(0).LogRecords().At(0).Attributes().AsRaw()["source.k8s.pod.name"])
	assert.Zero(t, a.number(t, "let_go"))

	// The database was made anew, with the address of a pod that is gone: it says so itself.
	a.consume(t, oneRecord(t, ids["b"], record("egress", "10.244.1.7", "192.0.2.9", 443)))
	resource, _ = a.received(t, 1)
	assert.Equal(t, "db", resource["k8s.pod.name"])
	a.consume(t, oneRecord(t, ids["a"], record("egress", "10.244.1.5", "10.244.1.7", 80)))
	_, rec = a.received(t, 2)
	assert.Equal(t, "db", rec["destination.k8s.pod.name"])
	// A pod that nobody knows has an address that was another's: it stays without a name.
	stranger := a.cgroupOf(t, podUID, containerOf("d"))
	a.consume(t, oneRecord(t, stranger, record("egress", "10.244.1.6", "192.0.2.9", 443)))
	a.consume(t, oneRecord(t, ids["a"], record("egress", "10.244.1.5", "10.244.1.6", 80)))
	require.Eventually(t, func() bool { return a.sink.LogRecordCount() == 6 }, soon, time.Millisecond)
	for _, ld := range a.sink.AllLogs()[3:] {
		for _, rl := range ld.ResourceLogs().All() {
			assert.NotContains(t, rl.ScopeLogs().At(0).LogRecords().At(0).Attributes().AsRaw(), "destination.k8s.pod.name")
			uid, _ := rl.Resource().Attributes().Get("k8s.pod.uid")
			_, named := rl.Resource().Attributes().Get("k8s.pod.name")
			assert.Equal(t, uid.Str() != podUID, named)
		}
	}
	assert.Equal(t, int64(3), a.number(t, "let_go", "timeout"))

	require.NoError(t, plane.StartAPIServer(t.Context()))
	require.Eventually(t, func() bool { return a.pods.cache.Stale().IsZero() }, 3*soon, 10*time.Millisecond)
	require.Len(t, a.host.reported(), 2)
	assert.Equal(t, componentstatus.StatusOK, a.host.reported()[1].Status())
}

// A collector that starts while the API is away starts, and lets records go with what their cgroups tell.
func TestColdStartWithoutAPI(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(kubeconfig, []byte(noServer), 0o600))
	a := newAgent(t, kubeconfig, func(_ *Config, k *KubernetesConfig) { k.Wait.Timeout = time.Second }, nil)
	id := a.cgroupOf(t, podUID, containerOf("a"))
	began := time.Now()
	a.consume(t, oneRecord(t, id, record("egress", "10.244.1.5", "10.244.1.6", 80)))
	assert.Equal(t, int64(1), a.number(t, "waiting"))
	resource, _ := a.received(t, 0)
	assert.GreaterOrEqual(t, time.Since(began), time.Second)
	assert.Equal(t, podUID, resource["k8s.pod.uid"])
	assert.Equal(t, int64(1), a.number(t, "let_go", "timeout"))
	assert.Equal(t, int64(2), a.number(t, "unnamed", "unknown"))

	require.Eventually(t, func() bool {
		outage, err := a.telemetry.GetMetric("otelcol_processor_pod_enrichment_outage")
		return err == nil && outage.Data.(metricdata.Gauge[float64]).DataPoints[0].Value > 5.5
	}, soon, 10*time.Millisecond)
	require.NoError(t, a.shutdown())
	require.Len(t, a.host.reported(), 1)
	assert.Equal(t, componentstatus.StatusRecoverableError, a.host.reported()[0].Status())
	assert.ErrorContains(t, a.host.reported()[0].Err(), "connection refused")
}

// What waits at the end goes on, and what comes after it does not wait.
func TestShutdownLetsGo(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(kubeconfig, []byte(noServer), 0o600))
	a := newAgent(t, kubeconfig, func(_ *Config, k *KubernetesConfig) { k.Wait.MaxRecords = 2 }, nil)
	id := a.cgroupOf(t, podUID, containerOf("a"))
	for range 3 {
		a.consume(t, oneRecord(t, id, record("egress", "10.244.1.5", "192.0.2.1", 80)))
	}
	assert.Equal(t, int64(1), a.number(t, "let_go", "full"))
	require.Len(t, a.sink.AllLogs(), 1, "there was no room for the third")
	assert.Equal(t, int64(2), a.number(t, "waiting"))
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("k8s.pod.uid", "another")
	rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty().SetEmptyGauge().DataPoints().AppendEmpty()
	md, err := a.enricher.metrics(t.Context(), md, a.metrics)
	require.NoError(t, err, "there is no room for metrics either")
	assert.Equal(t, 1, md.DataPointCount())
	letGo := a.number(t, "let_go")

	a.pods.shutdown()
	require.Len(t, a.sink.AllLogs(), 2)
	assert.Equal(t, 2, a.sink.AllLogs()[1].LogRecordCount())
	assert.Equal(t, letGo, a.number(t, "let_go"), "they need not wait for a pod that was waited for in vain")
	a.consume(t, oneRecord(t, id, record("egress", "10.244.1.5", "10.244.1.7", 80)))
	assert.Len(t, a.sink.AllLogs(), 3)
}

func TestRefusedAfterWaiting(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(kubeconfig, []byte(noServer), 0o600))
	a := newAgent(t, kubeconfig, func(_ *Config, k *KubernetesConfig) { k.Wait.Timeout = 100 * time.Millisecond },
		consumertest.NewErr(assert.AnError))
	a.consume(t, oneRecord(t, a.cgroupOf(t, podUID, containerOf("a")), record("egress", "10.244.1.5", "192.0.2.1", 80)))
	require.Eventually(t, func() bool { return a.number(t, "refused") == 1 }, soon, time.Millisecond)
	assert.Empty(t, a.sink.AllLogs())
}

func TestStartNeedsAKubeconfig(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	cfg := createDefaultConfig().(*Config)
	cfg.Kubernetes.GetOrInsertDefault().AuthType = "kubeConfig"
	e := newTestEnricher(t, cfg)
	assert.ErrorContains(t, e.start(t.Context(), &statusHost{}), "kubernetes: auth_type kubeConfig: ")
	cfg = createDefaultConfig().(*Config)
	cfg.Kubernetes.GetOrInsertDefault()
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	e = newTestEnricher(t, cfg)
	assert.ErrorContains(t, e.start(t.Context(), &statusHost{}), "outside of a pod use kubeConfig")
}
