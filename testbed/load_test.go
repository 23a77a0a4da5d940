//go:build linux

package testbed

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
	"github.com/orb8/orb8/testbed/internal/traffic"
	"github.com/orb8/orb8/testbed/internal/usage"
)

// Benchmarks of the real collector under load. They run once, whatever b.N: `go test -run '^$' -bench Load ./testbed`.

// quietStore keeps what the store holds small, so that memory is the collector's and not that of a million records.
const quietStore = "extensions: {orb8_storage: {embedded: {directory: '', max_bytes: 4194304}}}\n"

// BenchmarkLoadLiveFlows: 100,000 flows alive, 20,000 beginning every second, 100,000 packets a second.
func BenchmarkLoadLiveFlows(b *testing.B) {
	for name, overlay := range map[string]string{"store=4MiB": quietStore, "store=default": ""} {
		b.Run(name, func(b *testing.B) {
			l := lab.New(b, lab.Options{Offloads: true})
			c := startWatching(b, l, overlay)
			cpu, from := usage.Of(b, c.PID()).CPU, time.Now()
			sent := traffic.Storm(b, l.Client, l.Server, traffic.StormLoad{Flows: 400_000, PerSecond: 20_000, Seconds: 5, Size: 64})
			took := time.Since(from)
			awaitAll(b, c, l.Client, sent)
			cpu = usage.Of(b, c.PID()).CPU - cpu // with what the collector still had to do at the end
			b.ReportMetric(float64(sent)/took.Seconds(), "packets/s")
			b.ReportMetric(float64(cpu.Microseconds())/float64(sent), "cpu-us/packet")
		})
	}
}

// BenchmarkLoadMillionFlows: a million flows into the default table of 100,000, as fast as one process can send them.
func BenchmarkLoadMillionFlows(b *testing.B) {
	l := lab.New(b, lab.Options{Offloads: true})
	c := startWatching(b, l, quietStore)
	from := time.Now()
	sent := traffic.Storm(b, l.Client, l.Server, traffic.StormLoad{Flows: 1_000_000, Seconds: 1, Size: 64})
	took := time.Since(from)
	require.EqualValues(b, 1_000_000, sent)
	awaitAll(b, c, l.Client, sent)
	b.ReportMetric(float64(sent)/took.Seconds(), "flows/s")
}

// startWatching starts a collector with the environment of distribution/run.sh, unless the test has its own. It sees the
// client alone: the rest of the machine has no part in what is lost.
func startWatching(t testing.TB, l *lab.Lab, overlay string) *collector.Collector {
	t.Helper()
	gogc := cmp.Or(os.Getenv("GOGC"), "50")
	return collector.Start(t, collector.Options{Node: l.Agent, Env: []string{"GOGC=" + gogc}, Overlay: overlay + fmt.Sprintf(
		"receivers: {ebpf_network: {attach: {mode: cgroup, cgroup_path: %s}}}\n", cgroupPath(t, l.Client))})
}

// awaitAll waits until what was counted and what was lost are together what crossed the client's interface, to the byte,
// whatever else the machine had to do. If there was loss, replies must say so.
func awaitAll(b *testing.B, c *collector.Collector, client *lab.Node, sent uint64) {
	b.Helper()
	wire := client.Counters(b)
	require.Equal(b, sent, wire.SentPackets)
	var counted, missing seen
	collector.Await(b, "flows + lost = all", func() bool {
		counted, missing = totalOf(b, c, client), loss(b, c)
		return counted.packets+missing.packets == wire.SentPackets && counted.bytes+missing.bytes == wire.SentBytes
	}, func() any { return fmt.Sprintf("counted %v, lost %v, of %v", counted, missing, wire) })
	b.ReportMetric(float64(usage.Of(b, c.PID()).Peak)/1e6, "MB-peak") // a query takes memory of its own
	if missing.packets > 0 {
		_, stderr, _ := c.CLI("flows", "--limit", "1")
		assert.Contains(b, stderr, "lost")
	}
	b.ReportMetric(float64(missing.packets), "lost-packets")
	b.ReportMetric(0, "ns/op")
}

// totalOf is what the Prometheus endpoint says that a node's cgroup has sent.
func totalOf(t testing.TB, c *collector.Collector, n *lab.Node) (sum seen) {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(c.Get(c.Prometheus, "/metrics")))
	require.NoError(t, err)
	for name, add := range map[string]*uint64{
		"orb8_network_flow_io_bytes_total": &sum.bytes, "orb8_network_flow_packets_total": &sum.packets,
	} {
		for _, m := range families[name].GetMetric() {
			if l := labels(m); l["orb8_cgroup_path"] == n.Cgroup() && l["orb8_flow_direction"] == "egress" {
				*add += uint64(m.GetCounter().GetValue())
			}
		}
	}
	return sum
}
