//go:build linux

package gateway

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

const (
	// envKills names the environment variable of how often the gateway is killed.
	envKills     = "ORB8_GATEWAY_KILLS"
	defaultKills = 4
	// deliveredWithin is how long what waits may take after the gateway is back: gRPC connects again after pauses that grow.
	deliveredWithin = 2 * time.Minute
)

// agentOverlay has the agent report what it is sent instead of what it sees.
const agentOverlay = `
receivers: {otlp: {protocols: {grpc: {endpoint: "%s", max_recv_msg_size_mib: 16}}}}
service:
  pipelines:
    logs: {receivers: [otlp], processors: [memory_limiter], exporters: [orb8_store, flow_metrics, forward]}
    metrics: {receivers: [flow_metrics], processors: [memory_limiter]}
    metrics/gpu: {receivers: [otlp], processors: [memory_limiter]}
`

// startAgent starts an agent with the shipped queue and exporter.
func startAgent(t testing.TB, gateway string) *process {
	t.Helper()
	otlp, env := ports(t)
	return launch(t, shipped("agent"), fmt.Sprintf(agentOverlay, otlp), otlp, append(env, "ORB8_GATEWAY_ENDPOINT="+gateway, "NODE_NAME=here")...)
}

// A gateway that is killed again and again while agents send has in the end what they sent, each record once.
func TestKilledGateway(t *testing.T) {
	const nodes, connections, interval = 20, 20, 250 * time.Millisecond
	otlp, env := ports(t)
	env = append(env, "KUBECONFIG="+serveNames(t, nodes), "ORB8_STATE_DIR="+t.TempDir())
	g := launch(t, shipped("gateway"), gatewayOverlay, otlp, env...)
	agents := start(t, nodes, startAgent(t, otlp).otlp, startAgent(t, otlp).otlp)

	stop := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		each(agents, func(a *agent) {
			for next := time.Now(); ; next = next.Add(interval) {
				assert.NoError(t, a.report(t.Context(), connections, next.Add(-interval), next))
				select {
				case <-stop:
					return
				case <-time.After(time.Until(next.Add(interval))):
				}
			}
		})
	})
	for range number(t, envKills, defaultKills) {
		time.Sleep(500*time.Millisecond + rand.N(time.Second)) // at any moment of what it does
		g.Kill()
		g = launch(t, shipped("gateway"), gatewayOverlay, otlp, env...)
	}
	close(stop)
	sending.Wait()

	want := reported(agents)
	var got sums
	require.Eventually(t, func() bool {
		got = stored(t, g)
		return got == want || got.bytes > want.bytes || got.calls > want.calls || got.lookups > want.lookups
	}, deliveredWithin, 500*time.Millisecond, "%+v, and sent were %+v", &got, want)
	assert.Equal(t, want, got)
}

// sums are what records come to; a record too many or too few is seen in one of them.
type sums struct{ bytes, calls, lookups uint64 }

func reported(agents []*agent) sums {
	s := sums{bytes: reportedBytes(agents)}
	for _, a := range agents {
		for round, connections := range a.reported {
			s.lookups += uint64((connections + connectionsPerLookup - 1) / connectionsPerLookup)
			for i := range podsPerNode {
				for _, c := range a.calls(pod(a.node*podsPerNode+i), time.Time{}, time.Time{}, uint64(round)).Calls {
					s.calls += c.Calls
				}
			}
		}
	}
	return s
}

func stored(t testing.TB, g *process) (s sums) {
	t.Helper()
	for _, of := range []struct {
		signal  orb8v1.Signal
		measure string
		sum     *uint64
	}{
		{orb8v1.Signal_SIGNAL_FLOWS, "bytes", &s.bytes}, {orb8v1.Signal_SIGNAL_SYSCALLS, "calls", &s.calls},
		{orb8v1.Signal_SIGNAL_DNS, "lookups", &s.lookups},
	} {
		reply, err := g.query.Aggregate(t.Context(), connect.NewRequest(&orb8v1.AggregateRequest{Signal: of.signal, Measures: []string{of.measure}}))
		require.NoError(t, err)
		if values := reply.Msg.GetTotal().GetValues(); len(values) > 0 {
			*of.sum = values[0]
		}
	}
	return s
}
