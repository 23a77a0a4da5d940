//go:build linux

package testbed

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
	"github.com/orb8/orb8/testbed/internal/traffic"
)

// Whoever asks, by the CLI, by Prometheus or by OTLP, must be told the same.

// totals are what one cgroup did in one direction by one transport.
type totals struct{ bytes, packets, connections uint64 }

// byEndpoint sums flows by "CGROUP DIRECTION TRANSPORT" for the lab's client and server.
type byEndpoint map[string]totals

func (b byEndpoint) add(l *lab.Lab, cgroup, direction, transport string, t totals) {
	if cgroup != l.Client.Cgroup() && cgroup != l.Server.Cgroup() {
		return
	}
	key := strings.Join([]string{cgroup, direction, transport}, " ")
	sum := b[key]
	sum.bytes += t.bytes
	sum.packets += t.packets
	sum.connections += t.connections
	b[key] = sum
}

func fromCLI(l *lab.Lab, flows []collector.Flow) byEndpoint {
	b := byEndpoint{}
	for _, f := range flows {
		b.add(l, f.Local().Cgroup, f.Direction, f.Transport, totals{f.Bytes, f.Packets, f.Connections})
	}
	return b
}

// exchange sends some TCP and UDP both ways and returns what orb8 has to report of each endpoint: the UDP as it was sent,
// and the rest of what the veths counted as TCP.
func exchange(t *testing.T, l *lab.Lab) byEndpoint {
	t.Helper()
	before := map[*lab.Node]lab.Counters{l.Client: l.Client.Counters(t), l.Server: l.Server.Counters(t)}
	want := byEndpoint{}
	_, received := traffic.Exchange(t, l.Client, l.Server, traffic.Load{Network: "udp4", Flows: 20, Writes: 5, WriteSize: 300, Reply: 30})
	require.EqualValues(t, 100, received.DatagramsReceived)
	const headers = 20 + 8
	there, back := totals{100 * (300 + headers), 100, 20}, totals{100 * (30 + headers), 100, 20}
	for node, sent := range map[*lab.Node]totals{l.Client: there, l.Server: back} {
		other := l.Server
		if node == l.Server {
			other = l.Client
		}
		want.add(l, node.Cgroup(), "egress", "udp", sent)
		want.add(l, other.Cgroup(), "ingress", "udp", sent)
	}
	traffic.Exchange(t, l.Client, l.Server, traffic.Load{Network: "tcp4", Flows: 3, Writes: 20, WriteSize: 5000, Reply: 9000})
	for node, was := range before {
		is := node.Counters(t)
		opened, accepted := uint64(3), uint64(0)
		if node == l.Server {
			opened, accepted = accepted, opened
		}
		udpOut, udpIn := want[node.Cgroup()+" egress udp"], want[node.Cgroup()+" ingress udp"]
		want.add(l, node.Cgroup(), "egress", "tcp", totals{
			is.SentBytes - was.SentBytes - udpOut.bytes, is.SentPackets - was.SentPackets - udpOut.packets, opened,
		})
		want.add(l, node.Cgroup(), "ingress", "tcp", totals{
			is.ReceivedBytes - was.ReceivedBytes - udpIn.bytes, is.ReceivedPackets - was.ReceivedPackets - udpIn.packets, accepted,
		})
	}
	return want
}

func TestPrometheusAgreesWithTheCLI(t *testing.T) {
	l := lab.New(t, lab.Options{})
	c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: watchLab(l, "cgroup")})
	want := exchange(t, l)
	flows := c.AwaitFlows("all of the traffic", func(flows []collector.Flow) bool {
		return maps.Equal(want, fromCLI(l, flows))
	})
	require.NotEmpty(t, flows)

	var got byEndpoint
	collector.Await(t, "the CLI's totals at the Prometheus endpoint", func() bool {
		got = fromPrometheus(t, l, c.Get(c.Prometheus, "/metrics"))
		return maps.Equal(want, got)
	}, func() any { return fmt.Sprintf("want %v\ngot  %v", want, got) })

	collector.Await(t, "the same by workload", func() bool {
		got = fromWorkloads(t, l, c.Get(c.Prometheus, "/metrics"))
		return maps.Equal(want, got)
	}, func() any { return fmt.Sprintf("want %v\ngot  %v", want, got) })
}

func fromPrometheus(t *testing.T, l *lab.Lab, text string) byEndpoint {
	t.Helper()
	return sumsOf(t, l, text, "orb8_network_", func(label map[string]string) string { return label["orb8_cgroup_path"] })
}

// fromWorkloads reads the metrics of the flow_metrics connector. A process of the lab is in no container and no unit, so that
// its cgroup is its workload, and the other end is only an address to it.
func fromWorkloads(t *testing.T, l *lab.Lab, text string) byEndpoint {
	t.Helper()
	return sumsOf(t, l, text, "orb8_workload_", func(label map[string]string) string {
		local, peer := label["source_workload"], label["destination_workload"]
		if label["orb8_flow_direction"] == "ingress" {
			local, peer = peer, local
		}
		if peer != "private" {
			return ""
		}
		return local
	})
}

// sumsOf sums the metrics of a prefix by the cgroup that the labels name.
func sumsOf(t *testing.T, l *lab.Lab, text, prefix string, cgroupOf func(map[string]string) string) byEndpoint {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err)
	b := byEndpoint{}
	for name, as := range map[string]func(uint64) totals{
		"flow_io_bytes_total": func(v uint64) totals { return totals{bytes: v} },
		"flow_packets_total":  func(v uint64) totals { return totals{packets: v} },
		"connections_total":   func(v uint64) totals { return totals{connections: v} },
	} {
		for _, m := range families[prefix+name].GetMetric() {
			label := labels(m)
			b.add(l, cgroupOf(label), label["orb8_flow_direction"], label["network_transport"], as(uint64(m.GetCounter().GetValue())))
		}
	}
	return b
}

func labels(m *dto.Metric) map[string]string {
	byName := map[string]string{}
	for _, pair := range m.GetLabel() {
		byName[pair.GetName()] = pair.GetValue()
	}
	return byName
}

func TestSecondCollectorGetsTheSameRecordsByOTLP(t *testing.T) {
	l := lab.New(t, lab.Options{})
	received := filepath.Join(t.TempDir(), "logs.jsonl")
	const endpoint = "127.0.0.1:4317" // of the lab's host, which nobody else uses
	second := collector.Launch(t, collector.Options{Node: l.Agent, Config: writeConfig(t, fmt.Sprintf(`
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: %s
exporters:
  file:
    path: %s
    flush_interval: 100ms
service:
  telemetry:
    metrics:
      level: none
  pipelines:
    logs:
      receivers: [otlp]
      exporters: [file]
`, endpoint, received))})
	collector.Await(t, "the second collector runs", func() bool {
		return strings.Contains(second.Log(), "Everything is ready")
	}, func() any { return second.Log() })

	c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: watchLab(l, "cgroup") + fmt.Sprintf(`
exporters:
  otlp_grpc:
    endpoint: %s
    tls:
      insecure: true
service:
  pipelines:
    logs:
      exporters: [orb8_store, flow_metrics, otlp_grpc]
`, endpoint)})
	want := exchange(t, l)
	c.AwaitFlows("all of the traffic", func(flows []collector.Flow) bool {
		return maps.Equal(want, fromCLI(l, flows))
	})

	var got byEndpoint
	collector.Await(t, "the same at the second collector", func() bool {
		got = fromFile(t, l, received)
		return maps.Equal(want, got)
	}, func() any { return fmt.Sprintf("want %v\ngot  %v", want, got) })
	second.Stop()
}

// fromFile reads the flow records that the file exporter wrote, a batch a line. The last line may be half written.
func fromFile(t *testing.T, l *lab.Lab, path string) byEndpoint {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	b := byEndpoint{}
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		var decoder plog.JSONUnmarshaler
		logs, err := decoder.UnmarshalLogs([]byte(line))
		require.NoError(t, err)
		for _, resource := range logs.ResourceLogs().All() {
			for _, scope := range resource.ScopeLogs().All() {
				for _, record := range scope.LogRecords().All() {
					if record.EventName() != flow.EventNameFlow {
						continue
					}
					r, err := flow.RecordFrom(resource.Resource(), record)
					if assert.NoError(t, err) {
						b.add(l, r.Local().Identity.Cgroup, r.Direction.String(), r.Transport.String(), totals{r.Bytes, r.Packets, r.Connections})
					}
				}
			}
		}
	}
	return b
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// fast makes records and metrics often, so that tests need not wait for them.
func fast() map[string]string {
	return map[string]string{"receivers.ebpf_network.interval": "200ms", "connectors.flow_metrics.interval": "200ms"}
}
