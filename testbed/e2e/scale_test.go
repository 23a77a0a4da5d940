//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/cluster"
	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/usage"
)

// envScale names the environment variable of how many pods there are: 50000 for the documented measurement. Without it
// nothing is measured.
const envScale = "ORB8_SCALE"

const (
	// podsPerNode is how many pods a simulated node has, and podsHere the real one, which takes as many, but needs room for
	// those whose names are timed.
	podsPerNode, podsHere = 50, 48
	// settling is how long a collector runs before it is measured, and window how long it is.
	settling, window = 30 * time.Second, 40 * time.Second
	// coldStarts and newPods are how often times are taken.
	coldStarts, newPods = 3, 10
	// mostMore is how much more memory an agent may take than without pods.
	mostMore = 100_000_000
	// namespace is that of the accounts in deploy/.
	namespace = "orb8-system"
)

// What differs from the shipped configurations here: how to reach the API server.
const scaleOverlay = `
processors:
  pod_enrichment: {kubernetes: {auth_type: kubeConfig}}
  k8s_attributes: {auth_type: kubeConfig}
`

// TestScale measures what docs/performance.md has about a large cluster, whose nodes exist in the API alone but for one.
func TestScale(t *testing.T) {
	text := os.Getenv(envScale)
	if text == "" {
		t.Skip("takes a quarter of an hour: set " + envScale + " to a number of pods")
	}
	pods, err := strconv.Atoi(text)
	require.NoError(t, err)
	s := newScale(t)
	s.startGateway(t)
	s.startAgent(t)
	idle := s.measure(t, "no pods")

	began, agent, gateway := time.Now(), usage.Of(t, s.agent.cmd.Process.Pid), usage.Of(t, s.gateway.cmd.Process.Pid)
	s.simulate(t, pods)
	peer := s.fillNode(t)
	s.report(t, "pods are made", began, agent, gateway)

	var agentStarts, gatewayStarts []time.Duration
	for range coldStarts {
		s.gateway.stop(t)
		n, start := s.sink.count(), time.Now()
		s.startGateway(t)
		gatewayStarts = append(gatewayStarts, s.first(t, n, func(r record) bool {
			return r.egress && r.destination.pod == peer
		}).arrived.Sub(start))
		s.agent.stop(t)
		n, start = s.sink.count(), time.Now()
		s.startAgent(t)
		agentStarts = append(agentStarts, s.first(t, n, func(r record) bool {
			return r.end.After(start) && (name{namespace: "default", pod: "client-", container: "calls", workload: "client"}).matches(r.local.name)
		}).arrived.Sub(start))
	}
	t.Logf("start of the gateway until it named a pod of another node: %s", spread(gatewayStarts))
	t.Logf("start of the agent until a record with a pod's name arrived behind the gateway: %s", spread(agentStarts))
	loaded := s.measure(t, fmt.Sprintf("%d pods", pods))
	s.timeNames(t)

	assert.LessOrEqual(t, loaded.RSS, idle.RSS+mostMore, "the agent's memory, and without pods")
	assert.LessOrEqual(t, loaded.Peak, idle.Peak+mostMore, "the agent's memory at its peak, and without pods")
	s.checkRequests(t)
}

// scale is an agent and a gateway with the shipped configurations and the rights of deploy/.
type scale struct {
	c      *cluster.Cluster
	client kubernetes.Interface
	sink   *sink
	// audit is the API server's log of what both asked, and ports are the gateway's.
	audit          string
	ports          []string
	agent, gateway *process
}

func newScale(t *testing.T) *scale {
	t.Helper()
	c := cluster.Start(t)
	require.NoError(t, c.StopAPIServer())
	audit, err := c.Audit("system:serviceaccounts:" + namespace)
	require.NoError(t, err)
	require.NoError(t, c.StartAPIServer(t.Context()))
	client, err := c.Client()
	require.NoError(t, err)
	_, err = client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	require.NoError(t, err)
	for _, part := range []string{"agent", "gateway"} {
		rules, err := os.ReadFile(filepath.Join(collector.Root(), "deploy", part, "rbac.yaml"))
		require.NoError(t, err)
		require.NoError(t, c.Apply(t.Context(), string(rules)))
	}
	return &scale{c: c, client: client, sink: newSink(t, c), audit: audit, ports: testutil.FreeAddresses(t, c.Listen, 5)}
}

// kubeconfig returns a file with the credentials of an account.
func (s *scale) kubeconfig(t *testing.T, account string) string {
	t.Helper()
	accounts := s.client.CoreV1().ServiceAccounts(namespace)
	_, err := accounts.Get(t.Context(), account, metav1.GetOptions{})
	if err != nil {
		_, err = accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	lifetime := int64(2 * time.Hour / time.Second)
	token, err := accounts.CreateToken(t.Context(), account,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &lifetime}}, metav1.CreateOptions{})
	require.NoError(t, err)
	config, err := clientcmd.LoadFromFile(s.c.Kubeconfig())
	require.NoError(t, err)
	config.AuthInfos[config.Contexts[config.CurrentContext].AuthInfo].Token = token.Status.Token
	path := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, clientcmd.WriteToFile(*config, path))
	return path
}

func (s *scale) startGateway(t *testing.T) {
	t.Helper()
	s.gateway = startCollector(t, s.c, "gateway", fmt.Sprintf(gatewayOverlay, s.sink.address),
		"ORB8_OTLP_GRPC_ENDPOINT="+s.ports[0], "ORB8_OTLP_HTTP_ENDPOINT="+s.ports[1], "ORB8_QUERY_ENDPOINT="+s.ports[2],
		"ORB8_PROMETHEUS_ENDPOINT="+s.ports[3], "ORB8_HEALTH_ENDPOINT="+s.ports[4], "ORB8_TELEMETRY_PORT=19092", "ORB8_STATE_DIR="+t.TempDir(),
		"KUBECONFIG="+s.kubeconfig(t, "orb8-gateway"), "GOGC=50", "GOMEMLIMIT=1600MiB") // as deploy/ has it
}

func (s *scale) startAgent(t *testing.T) {
	t.Helper()
	s.agent = startCollector(t, s.c, "agent", scaleOverlay,
		"ORB8_GATEWAY_ENDPOINT="+s.ports[0], "NODE_NAME="+cluster.NodeName, "ORB8_STATE_DIR="+t.TempDir(),
		"KUBECONFIG="+s.kubeconfig(t, "orb8-agent"), "GOGC=50", "GOMEMLIMIT=400MiB") // as deploy/ has it
}

// measure returns what the agent takes.
func (s *scale) measure(t *testing.T, when string) usage.Usage {
	t.Helper()
	time.Sleep(settling)
	began, agent, gateway := time.Now(), usage.Of(t, s.agent.cmd.Process.Pid), usage.Of(t, s.gateway.cmd.Process.Pid)
	time.Sleep(window)
	return s.report(t, when, began, agent, gateway)
}

// report shows what both took since, and returns what the agent takes now.
func (s *scale) report(t *testing.T, when string, since time.Time, agent, gateway usage.Usage) usage.Usage {
	t.Helper()
	now, took := usage.Of(t, s.agent.cmd.Process.Pid), time.Since(since)
	t.Logf("%s: agent: %s since it started, %.1f %% of a processor for %s", when, now, 100*now.Since(agent), took.Round(time.Second))
	u := usage.Of(t, s.gateway.cmd.Process.Pid)
	t.Logf("%s: gateway: %s since it started, %.1f %% of a processor", when, u, 100*u.Since(gateway))
	requests := map[string]int{}
	for _, r := range readAudit(t, s.audit) {
		if r.at.After(since) {
			requests[r.user]++
		}
	}
	t.Logf("%s: requests: %v", when, requests)
	return now
}

// simulate returns when all pods run.
func (s *scale) simulate(t *testing.T, pods int) {
	t.Helper()
	began := time.Now()
	require.NoError(t, s.c.Simulate(t.Context(), max(1, pods/podsPerNode), pods))
	t.Logf("%d pods made after %s", pods, time.Since(began).Round(time.Second))
	require.Eventually(t, func() bool {
		list, err := s.client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{FieldSelector: "status.phase!=Running", Limit: 1})
		return err == nil && len(list.Items) == 0
	}, 15*time.Minute, 2*time.Second, "pods do not run")
	t.Logf("and run after %s", time.Since(began).Round(time.Second))
}

// fillNode gives the real node its pods. They call one of them, and another node's pod that
// cannot answer, whose name is returned.
func (s *scale) fillNode(t *testing.T) (peer string) {
	t.Helper()
	pod, err := s.client.CoreV1().Pods("simulated-0").Get(t.Context(), "app-0-0", metav1.GetOptions{})
	require.NoError(t, err)
	server := startServer(t, s.c, "8000")
	require.NoError(t, s.c.Apply(t.Context(), fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: client}
spec:
  replicas: %d
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: calls, image: %s, args: [call, -every=1s, "%s:8000", "%s:80"]}]
`, podsHere-1, cluster.WorkloadImage, server, pod.Status.PodIP)))
	kubectl(t, s.c, "rollout", "status", "deployment/client", "--timeout=300s")
	return pod.Name
}

// first waits for the first record of a kind after the first n.
func (s *scale) first(t *testing.T, n int, kind func(record) bool) record {
	t.Helper()
	all := s.sink.await(t, n, time.Minute, "the first record", func(all []record) bool { return slices.ContainsFunc(all, kind) })
	return all[slices.IndexFunc(all, kind)]
}

// timeNames measures how long it takes until pods that are made are named.
func (s *scale) timeNames(t *testing.T) {
	t.Helper()
	pods := s.client.CoreV1().Pods("default")
	server, err := pods.Get(t.Context(), "server", metav1.GetOptions{})
	require.NoError(t, err)
	var sinceMade, sincePacket []time.Duration
	for i := range newPods {
		// Records come every 5 s: pods must not all come at the same time between two.
		time.Sleep(time.Duration(i) * 5 * time.Second / newPods)
		meta, grace := metav1.ObjectMeta{Name: fmt.Sprintf("new-%d", i)}, int64(0)
		n, made := s.sink.count(), time.Now()
		_, err := pods.Create(t.Context(), &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "calls", Image: cluster.WorkloadImage, Args: []string{"call", "-every=200ms", server.Status.PodIP + ":8000"},
			}},
		}}, metav1.CreateOptions{})
		require.NoError(t, err)
		r := s.first(t, n, func(r record) bool {
			return r.egress && r.local.namespace == "default" && r.local.pod == meta.Name && r.local.container == "calls"
		})
		sinceMade, sincePacket = append(sinceMade, r.arrived.Sub(made)), append(sincePacket, r.arrived.Sub(r.start))
		require.NoError(t, pods.Delete(t.Context(), meta.Name, metav1.DeleteOptions{}))
	}
	t.Logf("a pod made until a flow record with its name arrived behind the gateway: %s", spread(sinceMade))
	t.Logf("of that, since its first packet: %s", spread(sincePacket))
}

// checkRequests checks that an agent asked for its own node and its pods alone.
func (s *scale) checkRequests(t *testing.T) {
	t.Helper()
	all := readAudit(t, s.audit)
	counts := map[string]int{}
	ofPods := 0
	for _, r := range all {
		_, account, _ := strings.Cut(r.user, namespace+":")
		counts[account+": "+r.String()]++
		if account != "orb8-agent" {
			continue
		}
		switch r.what {
		case "pods":
			ofPods++
			assert.Equal(t, "spec.nodeName="+cluster.NodeName, r.selector, r.url)
		case "nodes":
			assert.Equal(t, "metadata.name="+cluster.NodeName, r.selector, r.url)
		}
	}
	assert.Positive(t, ofPods, "requests of an agent for pods")
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%d requests of %s", counts[kind], kind)
	}
}

// spread shows the median and the limits.
func spread(all []time.Duration) string {
	slices.Sort(all)
	ms := time.Millisecond
	return fmt.Sprintf("%s (%s to %s)", all[len(all)/2].Round(ms), all[0].Round(ms), all[len(all)-1].Round(ms))
}
