//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/testbed/cluster"
)

// envOutage names the environment variable of how long the API server is away: 5m for the documented measurement.
const envOutage = "ORB8_OUTAGE"

// caller calls a port of the server for a time.
func caller(pod, server string, port uint16, length time.Duration) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  restartPolicy: Never
  containers: [{name: calls, image: %s, args: [call, -every=200ms, -for=%s, "%s:%d"]}]
`, pod, cluster.WorkloadImage, length, server, port)
}

func TestAPIServerAway(t *testing.T) {
	length := duration(t, envOutage, 15*time.Second)
	c := cluster.Start(t)
	truth := newTruth(t, c)
	o := startOrb8(t, c)
	server := startServer(t, c, "8000-8001")
	// Long enough for what is before and after it.
	require.NoError(t, c.Apply(t.Context(), caller("before", server, 8000, length+15*time.Second)))
	kubectl(t, c, "wait", "pod/before", "--for=condition=Ready", "--timeout=60s")
	before := conversation{port: 8000, client: name{namespace: "default", pod: "before", container: "calls"}, server: serverName}
	o.sink.await(t, 0, 30*time.Second, "a connection from each end", func(all []record) bool {
		atClient, atServer := before.connections(all)
		return atClient > 0 && atServer > 0
	})

	require.NoError(t, c.StopAPIServer())
	stopped := time.Now()
	o.sink.await(t, 0, length+30*time.Second, "connections made until the API server comes back", func(all []record) bool {
		last := time.Time{}
		for _, r := range before.records(all) {
			if r.start.After(last) {
				last = r.start
			}
		}
		return last.After(stopped.Add(length))
	})
	require.NoError(t, c.StartAPIServer(t.Context()))
	// They ask for it less and less often. A pod that is made before they know may be nameless at first.
	for _, p := range []*process{o.agent, o.gateway} {
		require.Eventually(t, func() bool { return strings.Contains(p.Log(), "The Kubernetes API answers again") }, 2*time.Minute, 50*time.Millisecond, p.name)
	}

	require.NoError(t, c.Apply(t.Context(), caller("after", server, 8001, 3*time.Second)))
	after := conversation{port: 8001, client: name{namespace: "default", pod: "after", container: "calls"}, server: serverName}
	for _, conversation := range []conversation{after, before} {
		kubectl(t, c, "wait", "pod/"+conversation.client.pod, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
		logged := strings.Count(kubectl(t, c, "logs", conversation.client.pod), "\n")
		records := o.sink.await(t, 0, 30*time.Second, fmt.Sprintf("%d connections from each end", logged), func(all []record) bool {
			atClient, atServer := conversation.connections(all)
			return atClient >= int64(logged) && atServer >= int64(logged)
		})
		atClient, atServer := conversation.connections(records)
		assert.EqualValues(t, logged, atClient, "connections at the client")
		assert.EqualValues(t, logged, atServer, "connections at the server")
		report(t, conversation.checkRecords(records))
	}
	wrong, checked := truth.checkAll(o.sink.since(0))
	report(t, wrong)
	t.Logf("%s without the API server, %d records of containers", length, checked)
}
