//go:build linux

package testbed

import (
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
	"github.com/orb8/orb8/testbed/internal/traffic"
)

// service is the virtual address that the lab's host translates.
var service = netip.MustParseAddrPort("10.96.0.10:80")

// labNetwork leaves out what the collector itself is asked.
const labNetwork = "10.88.0.0/16"

var natLoad = traffic.Load{Network: "tcp4", Flows: 3, Writes: 50, WriteSize: 3000, Reply: 40_000}

// throughNAT sends natLoad from the lab's client to the service behind which its server is, and returns where that listens.
func throughNAT(t *testing.T, l *lab.Lab) (backend netip.AddrPort) {
	t.Helper()
	traffic.ExchangeVia(t, l.Client, l.Server, natLoad, func(listening netip.AddrPort) netip.AddrPort {
		backend = listening
		l.Translate(t, service, backend)
		return service
	})
	return backend
}

// wireOf is what crossed the veths of client and server, which must be the same: NAT changes no size.
func wireOf(t *testing.T, l *lab.Lab) map[string]seen {
	t.Helper()
	client, server := l.Client.Counters(t), l.Server.Counters(t)
	require.Equal(t, client.SentBytes, server.ReceivedBytes)
	require.Equal(t, client.ReceivedBytes, server.SentBytes)
	return map[string]seen{
		"client egress": {client.SentPackets, client.SentBytes}, "client ingress": {client.ReceivedPackets, client.ReceivedBytes},
		"server egress": {server.SentPackets, server.SentBytes}, "server ingress": {server.ReceivedPackets, server.ReceivedBytes},
	}
}

// Addresses and ports of client and server have nothing in common with each other's, and yet each connection has one id, and
// each end knows who is behind the other's address.
func TestConnectionThroughNATIsOne(t *testing.T) {
	l := lab.New(t, lab.Options{})
	c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: watchLab(l, "cgroup")})
	backend := throughNAT(t, l)
	want := wireOf(t, l)
	flows := c.AwaitFlows("every byte, at both ends", func(flows []collector.Flow) bool {
		return maps.Equal(want, endpoints(t, flows, l.Client, l.Server)) && allEnded(flows)
	}, "--ip", labNetwork)

	views := map[string]int{}
	for _, f := range flows {
		views[f.ConnectionID]++
		require.NotNil(t, f.OtherEnd, "%+v", f)
		assert.Equal(t, [2]uint64{f.Bytes, f.Packets}, [2]uint64{f.OtherEnd.Bytes, f.OtherEnd.Packets})
		assert.Equal(t, "closed", f.Outcome)
		if f.Local().Cgroup == l.Client.Cgroup() {
			require.NotNil(t, f.Backend, "%+v", f)
			assert.Equal(t, backend.String(), fmt.Sprintf("%s:%d", f.Backend.Address, f.Backend.Port))
			assert.Equal(t, l.Server.Cgroup(), f.Backend.Cgroup)
			assert.Nil(t, f.Origin)
			continue
		}
		require.NotNil(t, f.Origin, "%+v", f)
		assert.Equal(t, l.Client.IPv4.String(), f.Origin.Address)
		assert.Equal(t, l.Client.Cgroup(), f.Origin.Cgroup)
		assert.Nil(t, f.Backend)
	}
	assert.Len(t, views, natLoad.Flows)
	for id, n := range views {
		assert.Equal(t, 4, n, "views of %s: two directions at two ends", id)
	}

	joined := c.Flows("--ends=false", "--ip", labNetwork)
	assert.Len(t, joined, 2*natLoad.Flows, "a row a direction")
	for _, f := range joined {
		assert.Equal(t, l.Client.Cgroup(), f.Local().Cgroup, "the client's view")
		assert.NotNil(t, f.Backend)
	}
	table, _, _ := c.CLI("flows", "--ip", labNetwork)
	assert.Contains(t, table, "→")
}

// At interfaces the host sees the connection with other addresses before and after the translations, and where it is the bridge
// that translates, sometimes between them: the first SYN and SYN-ACK go through the bridge's own interface, when it has no
// link-layer header for their new address yet. It is still one connection, and its rows those of the ends.
func TestConnectionThroughNATIsOneAtInterfaces(t *testing.T) {
	for name, bridged := range map[string]bool{"routed": false, "bridged": true} {
		t.Run(name, func(t *testing.T) {
			l := lab.New(t, lab.Options{BridgeNetfilter: bridged})
			set := fast()
			set["receivers.ebpf_network.idle_timeout"] = "2s" // ends what a SYN has begun
			c := collector.Start(t, collector.Options{Node: l.Agent, Set: set, Overlay: watchLab(l, "tc")})
			throughNAT(t, l)
			wire := wireOf(t, l)
			want := map[string]seen{"client egress": wire["client egress"], "client ingress": wire["client ingress"]}
			var all, joined []collector.Flow
			collector.Await(t, "a row a direction, with the counts of the client's veth", func() bool {
				all = c.Flows("--ip", labNetwork, "--protocol", "tcp")
				joined = c.Flows("--ends=false", "--ip", labNetwork, "--protocol", "tcp")
				return allEnded(all) && len(joined) == 2*natLoad.Flows && maps.Equal(want, endpoints(t, joined, l.Client, l.Server)) &&
					slices.ContainsFunc(all, betweenTranslations) == bridged
			}, func() any { return fmt.Sprintf("want %v\ngot %+v\nof %+v", want, joined, all) })
			ids := map[string]bool{}
			for _, f := range all {
				ids[f.ConnectionID] = true
			}
			assert.Len(t, ids, natLoad.Flows, "%+v", all)
		})
	}
}

// betweenTranslations tells of a row of packets that have the server's address already, or still, and the client's own.
func betweenTranslations(f collector.Flow) bool { return f.Direction == "transit" }

func allEnded(flows []collector.Flow) bool {
	for _, f := range flows {
		if !f.Ended {
			return false
		}
	}
	return true
}

// The host that translates sees the connections of its endpoints once more, with an address of its own. Their spans are of the
// endpoints all the same, one for each end.
func TestTranslationsRepeatNoSpanAtInterfaces(t *testing.T) {
	l := lab.New(t, lab.Options{})
	file := filepath.Join(t.TempDir(), "traces.jsonl")
	c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: watchLab(l, "tc") + fmt.Sprintf(spansOverlay, file)})
	backend := throughNAT(t, l)
	c.AwaitFlows("the end of every connection, the host's translations too", func(flows []collector.Flow) bool {
		translations := 0
		for _, f := range flows {
			if f.Direction == "egress" && f.Source.Address == l.Host.IPv4.String() {
				translations++
			}
		}
		return translations == natLoad.Flows && allEnded(flows)
	}, "--ip", labNetwork, "--protocol", "tcp")
	c.Stop() // after that nothing more is written
	servers := map[string]map[pcommon.SpanID]int{}
	for _, span := range readSpans(t, file) {
		attrs := span.Attributes().AsRaw()
		server := fmt.Sprintf("%s of %v:%v", span.Kind(), attrs["server.address"], attrs["server.port"])
		if servers[server] == nil {
			servers[server] = map[pcommon.SpanID]int{}
		}
		servers[server][span.SpanID()]++
	}
	assert.Len(t, servers, 2, "%v", servers)
	assert.Len(t, servers["Client of "+service.String()], natLoad.Flows, "%v", servers)
	assert.Len(t, servers["Server of "+backend.String()], natLoad.Flows, "%v", servers)
}

// spansOverlay writes the spans of a standalone collector to a file.
const spansOverlay = `
exporters:
  file:
    path: %s
    flush_interval: 100ms
service:
  pipelines:
    traces:
      receivers: [ebpf_network]
      processors: [pod_enrichment]
      exporters: [file]
`

// Two agents that see one end each, and a gateway: as two nodes of a cluster.
func TestTwoNodesHaveTheHalvesOfOneTrace(t *testing.T) {
	l := lab.New(t, lab.Options{})
	const endpoint = "127.0.0.1:4317" // of the lab's host, which nobody else uses
	file := filepath.Join(t.TempDir(), "traces.jsonl")
	gateway := collector.Launch(t, collector.Options{Node: l.Agent, Config: writeConfig(t, fmt.Sprintf(gatewayConfig, endpoint, file))})
	collector.Await(t, "the gateway runs", func() bool {
		return strings.Contains(gateway.Log(), "Everything is ready")
	}, func() any { return gateway.Log() })
	for _, n := range []*lab.Node{l.Client, l.Server} {
		collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: fmt.Sprintf(agentOverlay, cgroupPath(t, n), n.Name, endpoint)})
	}
	backend := throughNAT(t, l)
	want := wireOf(t, l)

	gateway.AwaitFlows("both ends of every connection", func(flows []collector.Flow) bool {
		return maps.Equal(want, endpoints(t, flows, l.Client, l.Server)) && allEnded(flows)
	})
	for _, f := range gateway.Flows("--ends=false") {
		assert.Equal(t, "client", f.Node)
		require.NotNil(t, f.OtherEnd, "%+v", f)
		assert.Equal(t, "server", f.OtherEnd.Node)
		require.NotNil(t, f.Backend, "%+v", f)
		assert.Equal(t, backend.Port(), f.Backend.Port)
	}

	var traces map[pcommon.TraceID]map[string]ptrace.Span
	collector.Await(t, "two spans of every connection", func() bool {
		traces = spansByTrace(t, file)
		spans := 0
		for _, trace := range traces {
			spans += len(trace)
		}
		return spans == 2*natLoad.Flows
	}, func() any { return traces })
	assert.Len(t, traces, natLoad.Flows)
	for id, trace := range traces {
		client, server := trace["client"], trace["server"]
		require.Len(t, trace, 2, "trace %s", id)
		assert.Equal(t, ptrace.SpanKindClient, client.Kind())
		assert.Equal(t, ptrace.SpanKindServer, server.Kind())
		assert.Equal(t, client.SpanID(), server.ParentSpanID())
		assert.Equal(t, client.Attributes().AsRaw()["orb8.connection.sent.bytes"], server.Attributes().AsRaw()["orb8.connection.received.bytes"])
		assert.Equal(t, service.Addr().String(), client.Attributes().AsRaw()["server.address"])
		assert.Equal(t, backend.Addr().String(), server.Attributes().AsRaw()["server.address"])
	}
}

// gatewayConfig is what two nodes report to.
const gatewayConfig = `
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: %s
exporters:
  orb8_store: {}
  file:
    path: %s
    flush_interval: 100ms
extensions:
  orb8_storage:
    embedded: {}
  orb8_query:
    endpoint: ${env:ORB8_QUERY_ENDPOINT}
service:
  extensions: [orb8_storage, orb8_query]
  telemetry:
    metrics:
      level: none
  pipelines:
    logs:
      receivers: [otlp]
      exporters: [orb8_store]
    traces:
      receivers: [otlp]
      exporters: [file]
`

// agentOverlay makes a standalone collector the agent of one cgroup.
const agentOverlay = `
receivers:
  ebpf_network:
    attach: {mode: cgroup, cgroup_path: %s}
processors:
  pod_enrichment:
    node_name: %s
exporters:
  otlp_grpc:
    endpoint: %s
    tls:
      insecure: true
service:
  pipelines:
    logs:
      exporters: [orb8_store, flow_metrics, otlp_grpc]
    traces:
      receivers: [ebpf_network]
      processors: [pod_enrichment]
      exporters: [otlp_grpc]
`

// spansByTrace are the spans of each trace, by their node.
func spansByTrace(t *testing.T, path string) map[pcommon.TraceID]map[string]ptrace.Span {
	t.Helper()
	traces := map[pcommon.TraceID]map[string]ptrace.Span{}
	for resource, span := range readSpans(t, path) {
		node, _ := resource.Attributes().Get("k8s.node.name")
		if traces[span.TraceID()] == nil {
			traces[span.TraceID()] = map[string]ptrace.Span{}
		}
		require.NotContains(t, traces[span.TraceID()], node.Str(), "a node has one half")
		traces[span.TraceID()][node.Str()] = span
	}
	return traces
}

// readSpans reads what the file exporter wrote. The last line may be half written.
func readSpans(t *testing.T, path string) iter.Seq2[pcommon.Resource, ptrace.Span] {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return func(yield func(pcommon.Resource, ptrace.Span) bool) {
		for line := range strings.Lines(string(text)) {
			if !strings.HasSuffix(line, "\n") {
				return
			}
			var decoder ptrace.JSONUnmarshaler
			td, err := decoder.UnmarshalTraces([]byte(line))
			require.NoError(t, err)
			for _, resource := range td.ResourceSpans().All() {
				for _, scope := range resource.ScopeSpans().All() {
					for _, span := range scope.Spans().All() {
						if !yield(resource.Resource(), span) {
							return
						}
					}
				}
			}
		}
	}
}
