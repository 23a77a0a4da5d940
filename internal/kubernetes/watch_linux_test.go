package kubernetes

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8s "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/orb8/orb8/testbed/cluster"
)

// soon is how long what happens at once may take on a loaded machine.
const soon = time.Minute

// follower is a cache and the watcher that fills it.
type follower struct {
	*Cache
	mu       sync.Mutex
	health   []string
	restarts map[string]int
}

// follow runs a watcher until the end of the test, or until stop is called.
func follow(t *testing.T, client k8s.Interface, scope Scope) (f *follower, stop func()) {
	t.Helper()
	f = &follower{Cache: NewCache(scope.Node == "", time.Hour, func() {}), restarts: map[string]int{}}
	w := NewWatcher(f.Cache, func(err error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.health = append(f.health, fmt.Sprint(err))
	}, func(objects string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.restarts[objects]++
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx, client, scope)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("the watcher does not stop")
		}
	})
	t.Cleanup(stop)
	return f, stop
}

func (f *follower) told() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.health...)
}

func (f *follower) podCount() int { return f.Sizes()["pod"] }

// makePod makes a pod that runs on the node with the address, as a kubelet would report it.
func makePod(t *testing.T, client k8s.Interface, name, node, ip string) *corev1.Pod {
	t.Helper()
	pods := client.CoreV1().Pods("default")
	p, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main", Image: "image:1"}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	now := metav1.Now()
	p.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, StartTime: &now, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
		ContainerStatuses: []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://" + idA}},
	}
	p, err = pods.UpdateStatus(t.Context(), p, metav1.UpdateOptions{})
	require.NoError(t, err)
	return p
}

func TestWatch(t *testing.T) {
	plane := cluster.StartControlPlane(t, cluster.ControlPlaneOptions{})
	client, err := plane.Client()
	require.NoError(t, err)
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-1", Labels: map[string]string{labelZone: "zone-a"}},
		Spec:       corev1.NodeSpec{PodCIDR: "10.244.1.0/24", PodCIDRs: []string{"10.244.1.0/24"}},
	}
	node, err = client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	require.NoError(t, err)
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}, {Type: corev1.NodeHostName, Address: "node-1"}}
	_, err = client.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
	require.NoError(t, err)
	service, err := client.CoreV1().Services("default").Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = client.DiscoveryV1().EndpointSlices("default").Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.244.1.5"}}},
		Ports:       []discoveryv1.EndpointPort{{Port: ptr.To(int32(8080)), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	first := makePod(t, client, "first", "node-1", "10.244.1.5")
	makePod(t, client, "elsewhere", "node-2", "10.244.2.5")

	ofNode, stopNode := follow(t, client, Scope{Node: "node-1"})
	ofCluster, stopCluster := follow(t, client, Scope{})
	require.Eventually(t, func() bool { return ofNode.podCount() == 1 && ofCluster.podCount() == 2 }, soon, 10*time.Millisecond)
	require.Eventually(t, func() bool { return ofCluster.Sizes()["endpoint"] == 1 && ofCluster.Stale().IsZero() }, soon, 10*time.Millisecond)

	p, ok := ofNode.Pod(string(first.UID))
	require.True(t, ok)
	assert.Equal(t, "first", p.Name)
	n, ok := ofNode.Node("node-1")
	require.True(t, ok)
	assert.Equal(t, "zone-a", n.Zone)
	answer := ofCluster.Address(netip.MustParseAddr("10.244.1.5"), Port{8080, 6}, time.Now(), time.Now())
	require.NotNil(t, answer.Pod, "%+v %v", answer, ofCluster.told())
	assert.Equal(t, "first", answer.Pod.Name)
	assert.Equal(t, "web", answer.Service.Name)
	answer = ofCluster.Address(netip.MustParseAddr(service.Spec.ClusterIP), Port{80, 6}, time.Now(), time.Now())
	assert.Equal(t, "web", answer.Service.Name)
	answer = ofCluster.Address(netip.MustParseAddr("192.0.2.1"), Port{22, 6}, time.Now(), time.Now())
	assert.Equal(t, "node-1", answer.Node.Name)

	// What comes and goes is followed.
	makePod(t, client, "second", "node-1", "10.244.1.6")
	require.NoError(t, client.CoreV1().Pods("default").Delete(t.Context(), "first", metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))}))
	require.NoError(t, client.CoreV1().Services("default").Delete(t.Context(), "web", metav1.DeleteOptions{}))
	require.Eventually(t, func() bool { return ofCluster.podCount() == 3 && ofNode.podCount() == 2 }, soon, 10*time.Millisecond)
	require.Eventually(t, func() bool {
		a := ofNode.Address(netip.MustParseAddr("10.244.1.5"), Port{}, time.Now().Add(time.Hour), time.Now().Add(time.Hour))
		return a.State == Tentative || a.State == Awaited // its pod is gone
	}, soon, 10*time.Millisecond)
	require.Eventually(t, func() bool { return ofCluster.Sizes()["service"] == 1 }, soon, 10*time.Millisecond, "that of the API server")
	_, ok = ofNode.Pod(string(first.UID))
	assert.True(t, ok, "deleted pods are kept")
	stopNode()
	stopCluster()
	assert.Empty(t, ofNode.told())
	assert.Empty(t, ofCluster.told())
	assert.ElementsMatch(t, []string{"nodes", "pods"}, slices.Collect(maps.Keys(ofNode.restarts)))
	assert.ElementsMatch(t, []string{"nodes", "pods", "services", "endpointslices"}, slices.Collect(maps.Keys(ofCluster.restarts)))
}

func TestOutage(t *testing.T) {
	plane := cluster.StartControlPlane(t, cluster.ControlPlaneOptions{})
	client, err := plane.Client()
	require.NoError(t, err)
	p := makePod(t, client, "first", "node-1", "10.244.1.5")
	addr := netip.MustParseAddr("10.244.1.5")

	f, _ := follow(t, client, Scope{Node: "node-1"})
	require.Eventually(t, func() bool { return f.podCount() == 1 }, soon, 10*time.Millisecond)
	require.Eventually(t, func() bool { return f.Stale().IsZero() }, soon, 10*time.Millisecond)
	require.NoError(t, plane.StopAPIServer())
	require.Eventually(t, func() bool { return len(f.told()) == 1 }, soon, 10*time.Millisecond)
	assert.Regexp(t, `^cannot watch (pods|nodes): .*connection refused`, f.told()[0])
	assert.WithinDuration(t, time.Now(), f.Stale(), soon)
	_, ok := f.Pod(string(p.UID))
	assert.True(t, ok)
	now := time.Now().Add(time.Second)
	f.Observe(string(p.UID), addr, now, now)
	assert.Equal(t, Sure, f.Address(addr, Port{}, now, now).State)

	// One that starts now has nothing, and ends at once.
	cold, stopCold := follow(t, client, Scope{})
	require.Eventually(t, func() bool { return len(cold.told()) == 1 }, soon, 10*time.Millisecond)
	assert.Equal(t, Awaited, cold.Address(addr, Port{}, now, now).State)
	stopCold()

	require.NoError(t, plane.StartAPIServer(t.Context()))
	require.Eventually(t, func() bool { return len(f.told()) == 2 }, 3*soon, 10*time.Millisecond)
	assert.Equal(t, "<nil>", f.told()[1])
	assert.Zero(t, f.Stale())
	makePod(t, client, "second", "node-1", "10.244.1.6")
	require.Eventually(t, func() bool { return f.podCount() == 2 }, soon, 10*time.Millisecond)
	assert.Len(t, f.told(), 2)
}

// A server that forbids is away as well, and says why.
func TestForbidden(t *testing.T) {
	plane := cluster.StartControlPlane(t, cluster.ControlPlaneOptions{})
	config, err := plane.RESTConfig()
	require.NoError(t, err)
	config.Impersonate = rest.ImpersonationConfig{UserName: "nobody"}
	client, err := k8s.NewForConfig(config)
	require.NoError(t, err)
	f, stop := follow(t, client, Scope{Node: "node-1"})
	require.Eventually(t, func() bool { return len(f.told()) == 1 }, soon, 10*time.Millisecond)
	assert.Regexp(t, `^cannot watch (pods|nodes): .*is forbidden: User "nobody" cannot`, f.told()[0])
	stop()

	// The permissions that the processor's README names are enough.
	admin, err := plane.Client()
	require.NoError(t, err)
	verbs := []string{"get", "list", "watch"}
	_, err = admin.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "agent"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods", "nodes"}, Verbs: verbs}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = admin.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "gateway"},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: verbs},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: verbs},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	bind := func(role string) {
		_, err := admin.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: role}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "nobody"}},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	ready := func(f *follower) func() bool { return func() bool { return f.Ready() && f.Stale().IsZero() } }
	bind("agent")
	agent, _ := follow(t, client, Scope{Node: "node-1"})
	require.Eventually(t, ready(agent), soon, 10*time.Millisecond)
	bind("gateway")
	gateway, _ := follow(t, client, Scope{})
	require.Eventually(t, ready(gateway), soon, 10*time.Millisecond)
}
