//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/testbed/cluster"
	"github.com/orb8/orb8/testbed/internal/collector"
)

// servers answer: two pods behind a Service, and one on the host's network.
const servers = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: server}
spec:
  replicas: 2
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: answers, image: ` + cluster.WorkloadImage + `, args: [serve, 8000-8004]}]
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: server}, clusterIP: ` + serviceIP + `, ports: [{port: 80, targetPort: 8000}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: host-server}
spec:
  selector: {matchLabels: {app: host-server}}
  template:
    metadata: {labels: {app: host-server}}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 1
      containers: [{name: answers, image: ` + cluster.WorkloadImage + `, args: [serve, "9001"]}]
`

const serviceIP = "10.96.100.100"

// clients call, each another port, for five seconds but for the Job that lives for two.
var clients = template.Must(template.New("clients").Parse(`
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  restartPolicy: Never
  containers: [{name: calls, image: ` + cluster.WorkloadImage + `, args: [call, -every=200ms, -for=5s, "{{.}}:8001"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: two}
spec:
  restartPolicy: Never
  containers:
  - {name: first, image: ` + cluster.WorkloadImage + `, args: [call, -every=200ms, -for=5s, "{{.}}:8002"]}
  - {name: second, image: ` + cluster.WorkloadImage + `, args: [call, -every=200ms, -for=5s, "{{.}}:8003"]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: short}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: calls, image: ` + cluster.WorkloadImage + `, args: [call, -every=200ms, -for=2s, "{{.}}:8004"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: host-client}
spec:
  hostNetwork: true
  restartPolicy: Never
  containers: [{name: calls, image: ` + cluster.WorkloadImage + `, args: [call, -every=200ms, -for=5s, "` + cluster.NodeIP + `:9001"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: shopper}
spec:
  restartPolicy: Never
  containers: [{name: calls, image: ` + cluster.WorkloadImage + `, args: [call, -every=200ms, -for=5s, "` + serviceIP + `:80"]}]
`))

// conversation is what a client has with servers.
type conversation struct {
	// port is the server's as the client sees it, and as the server does.
	port, serverPort uint16
	// client is a container; pod is the beginning of its name.
	client name
	// server is a container of a Deployment or DaemonSet; pod is the beginning of its name.
	server name
	// service is what the client calls.
	service string
}

var (
	deployed = name{namespace: "default", pod: "server-", container: "answers", workload: "server"}
	onHost   = name{namespace: "default", pod: "host-server-", container: "answers", workload: "host-server"}

	conversations = []conversation{
		{port: 8001, client: name{namespace: "default", pod: "client", container: "calls"}, server: deployed},
		{port: 8002, client: name{namespace: "default", pod: "two", container: "first"}, server: deployed},
		{port: 8003, client: name{namespace: "default", pod: "two", container: "second"}, server: deployed},
		{port: 8004, client: name{namespace: "default", pod: "short-", container: "calls", workload: "short"}, server: deployed},
		{port: 9001, client: name{namespace: "default", pod: "host-client", container: "calls"}, server: onHost},
		{port: 80, serverPort: 8000, client: name{namespace: "default", pod: "shopper", container: "calls"}, server: deployed, service: "shop"},
	}
)

func TestIdentity(t *testing.T) {
	c := cluster.Start(t)
	truth := newTruth(t, c)
	o := startOrb8(t, c)
	require.NoError(t, c.Apply(t.Context(), servers))
	kubectl(t, c, "rollout", "status", "deployment/server", "daemonset/host-server", "--timeout=60s")
	client, err := c.Client()
	require.NoError(t, err)
	pods := client.CoreV1().Pods(metav1.NamespaceDefault)
	backends, err := pods.List(t.Context(), metav1.ListOptions{LabelSelector: "app=server"})
	require.NoError(t, err)
	var manifests bytes.Buffer
	require.NoError(t, clients.Execute(&manifests, backends.Items[0].Status.PodIP))
	require.NoError(t, c.Apply(t.Context(), manifests.String()))
	kubectl(t, c, "wait", "job/short", "--for=condition=Complete", "--timeout=60s")
	for _, pod := range []string{"client", "two", "host-client", "shopper"} {
		kubectl(t, c, "wait", "pod/"+pod, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
	}
	all, err := pods.List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)

	for _, conversation := range conversations {
		t.Run(conversation.client.pod+"-"+conversation.client.container, func(t *testing.T) {
			logged := strings.Count(kubectl(t, c, "logs", podNamed(t, all.Items, conversation.client.pod), "-c", conversation.client.container), "\n")
			require.Positive(t, logged, "the client made no call")
			records := o.sink.await(t, 0, 30*time.Second, fmt.Sprintf("%d connections from each end", logged), func(all []record) bool {
				atClient, atServer := conversation.connections(all)
				return atClient >= int64(logged) && atServer >= int64(logged)
			})
			atClient, atServer := conversation.connections(records)
			assert.EqualValues(t, logged, atClient, "connections at the client")
			assert.EqualValues(t, logged, atServer, "connections at the server")
			report(t, conversation.checkRecords(records))
			wrong, counted := conversation.checkRows(o.rows(t))
			report(t, wrong)
			assert.EqualValues(t, logged, counted, "connections in rows")
		})
	}
	t.Run("backends", func(t *testing.T) {
		seen := map[string]bool{}
		for _, r := range conversations[len(conversations)-1].records(o.sink.since(0)) {
			if !r.egress {
				seen[r.destination.pod] = true
			}
		}
		assert.True(t, seen[backends.Items[0].Name] && seen[backends.Items[1].Name], "servers behind the Service: %v", seen)
	})
	t.Run("syscalls", func(t *testing.T) {
		for _, conversation := range conversations {
			for _, want := range []name{conversation.client, conversation.server} {
				found := false
				for _, r := range o.sink.since(0) {
					found = found || r.event == syscalls.EventNameCounts && want.matches(r.local.name)
				}
				assert.True(t, found, "no system calls of %s", want)
			}
		}
	})
	t.Run("all", func(t *testing.T) {
		wrong, checked := truth.checkAll(o.sink.since(0))
		report(t, wrong)
		t.Logf("%d records of containers", checked)
	})
}

// records returns the flow records of the conversation.
func (c conversation) records(all []record) (of []record) {
	for _, r := range all {
		if r.event == flow.EventNameFlow && (c.isServer(r.source.address.Port()) || c.isServer(r.destination.address.Port())) {
			of = append(of, r)
		}
	}
	return of
}

func (c conversation) isServer(port uint16) bool {
	return port == c.port || c.serverPort != 0 && port == c.serverPort
}

// connections returns how many the records count that were made by the client, at each of the ends.
func (c conversation) connections(all []record) (atClient, atServer int64) {
	for _, r := range c.records(all) {
		switch {
		case !c.isServer(r.destination.address.Port()):
		case r.egress:
			atClient += r.connections
		default:
			atServer += r.connections
		}
	}
	return atClient, atServer
}

// checkRecords checks the names in each record: those of the end that has the socket are complete, those of its peer are
// what the address alone can tell.
func (c conversation) checkRecords(all []record) (wrong []string) {
	fail := func(r record, format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf(format, args...)+" in "+r.String())
	}
	for _, r := range c.records(all) {
		client, server := r.source, r.destination
		clientIsHere := r.egress
		if !c.isServer(server.address.Port()) {
			client, server = server, client
			clientIsHere = !r.egress
		}
		here, there, wantHere, wantThere := server, client, c.server, c.client
		if clientIsHere {
			here, there, wantHere, wantThere = client, server, c.client, c.server
		}
		if !wantHere.matches(here.name) {
			fail(r, "here want %s", wantHere)
		}
		switch {
		case netip.MustParsePrefix(cluster.PodRange).Contains(there.address.Addr()):
			if there.container == "" {
				there.container = wantThere.container // a pod of two containers has one address
			}
			if !wantThere.matches(there.name) {
				fail(r, "there want %s", wantThere)
			}
		case there.address.Addr() == netip.MustParseAddr(serviceIP):
			if there.pod != "" || there.service != c.service || there.namespace != wantThere.namespace {
				fail(r, "there want service %s", c.service)
			}
		case there.pod != "": // a node's address is that of many
			fail(r, "there want no pod")
		}
	}
	return wrong
}

// checkRows checks the rows that users see, in which the store has joined both ends, and returns how many connections they
// count.
func (c conversation) checkRows(rows []collector.Flow) (wrong []string, connections uint64) {
	for _, r := range rows {
		client, server := r.Source, r.Destination
		if c.isServer(server.Port) {
			connections += r.Connections
		} else {
			client, server = server, client
		}
		if !c.isServer(server.Port) {
			continue
		}
		// Behind a Service, who answered is told beside who was called.
		if c.service != "" && r.Backend != nil {
			server = *r.Backend
		}
		for _, e := range []struct {
			want name
			got  collector.Endpoint
		}{{c.client, client}, {c.server, server}} {
			got := name{namespace: e.got.Namespace, pod: e.got.Pod, container: e.got.Container, workload: e.want.workload}
			if !e.want.matches(got) {
				wrong = append(wrong, fmt.Sprintf("want %s, not %s in row %+v", e.want, got, r))
			}
		}
	}
	return wrong, connections
}

// report fails the test if anything is wrong, and shows the first of it.
func report(t *testing.T, wrong []string) {
	t.Helper()
	const shown = 10
	if len(wrong) > 0 {
		t.Errorf("%d are wrong:\n%s", len(wrong), strings.Join(wrong[:min(shown, len(wrong))], "\n"))
	}
}

// matches is whether a name is the expected one, of whose pod only the beginning may be known.
func (n name) matches(got name) bool {
	if strings.HasSuffix(n.pod, "-") && strings.HasPrefix(got.pod, n.pod) {
		n.pod = got.pod
	}
	return got == n
}

func podNamed(t *testing.T, pods []corev1.Pod, prefix string) string {
	t.Helper()
	for _, pod := range pods {
		if (name{pod: prefix}).matches(name{pod: pod.Name}) {
			return pod.Name
		}
	}
	require.Fail(t, "no pod "+prefix)
	return ""
}

func kubectl(t *testing.T, c *cluster.Cluster, args ...string) string {
	t.Helper()
	cmd, err := c.Kubectl(context.Background(), args...)
	require.NoError(t, err)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "kubectl %v: %s", args, &stderr)
	return stdout.String()
}
