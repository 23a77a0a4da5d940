package orb8storageextension

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/testbed/backends"
)

// BenchmarkEngines writes 100,000 flow records of 200 pods in five minutes, and asks as people do.
func BenchmarkEngines(b *testing.B) {
	for name, open := range map[string]func(b *testing.B) (*storageExtension, func(context.Context) error){
		"embedded": func(b *testing.B) (*storageExtension, func(context.Context) error) {
			e := newStorageExtension(componenttest.NewNopTelemetrySettings(), createDefaultConfig().(*Config))
			require.NoError(b, e.Start(b.Context(), componenttest.NewNopHost()))
			return e, func(context.Context) error { return nil }
		},
		"victorialogs": func(b *testing.B) (*storageExtension, func(context.Context) error) {
			s := backends.VictoriaLogs(b)
			return openEngine(b, "victorialogs", s.URL, nil), s.Flush
		},
		"loki": func(b *testing.B) (*storageExtension, func(context.Context) error) {
			return openEngine(b, "loki", backends.Loki(b).URL, tenant()), func(context.Context) error { return nil }
		},
	} {
		b.Run(name, func(b *testing.B) {
			e, flush := open(b)
			const written = 100_000
			first := time.Now().UTC().Add(-6 * time.Minute)
			b.Run("write", func(b *testing.B) {
				for b.Loop() {
					for part := range slices.Chunk(benchRecords(first, written), 512) {
						require.NoError(b, e.WriteFlows(b.Context(), part))
					}
				}
				b.ReportMetric(float64(written*b.N)/b.Elapsed().Seconds(), "records/s")
			})
			require.NoError(b, flush(b.Context()))
			for name, q := range map[string]storage.FlowQuery{
				"newest 100 of a pod": {Limit: 100, Selection: storage.Selection{Allow: []storage.Filter{{Pods: []string{"pod-7"}}}}},
				"a miss":              {Limit: 100, Selection: storage.Selection{Allow: []storage.Filter{{Pods: []string{"nobody"}}}}},
			} {
				b.Run(name, func(b *testing.B) {
					for b.Loop() {
						_, err := e.QueryFlows(b.Context(), q)
						require.NoError(b, err)
					}
				})
			}
			b.Run("top 20 of a minute", func(b *testing.B) {
				for b.Loop() {
					_, err := e.Aggregate(b.Context(), storage.AggregateQuery{
						Since: first.Add(time.Minute), Until: first.Add(2 * time.Minute), By: []string{"source.pod"}, Measures: []string{"bytes"}, Top: 20,
					})
					require.NoError(b, err)
				}
			})
			require.NoError(b, e.Shutdown(b.Context()))
		})
	}
}

// benchRecords are of connections of an interval each, spread over five minutes.
func benchRecords(first time.Time, n int) []flow.Record {
	records := make([]flow.Record, n)
	for i := range records {
		end := first.Add(time.Duration(i) * (5 * time.Minute / time.Duration(n)))
		pod := i % 200
		records[i] = flow.Record{
			Start: end.Add(-time.Second), End: end, Node: fmt.Sprint("node-", pod%10), Direction: flow.Egress, Transport: flow.TCP,
			Source: flow.Endpoint{
				Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(pod)}), uint16(i/200)),
				Identity: flow.Identity{
					CgroupID: uint64(pod + 1), Pod: fmt.Sprint("pod-", pod), Namespace: "shop", Container: "web", Workload: "web", WorkloadKind: "Deployment",
					ContainerID: fmt.Sprintf("%064x", pod), PodUID: fmt.Sprintf("%036x", pod), Runtime: "containerd", QOSClass: "burstable",
				},
			},
			Destination: flow.Endpoint{Addr: netip.MustParseAddrPort("10.96.0.1:443")}, Bytes: uint64(i), Packets: 10, Connections: 1,
			TCPHealth: flow.TCPHealth{HasISNs: true, ClientISN: uint32(i), ServerISN: ^uint32(i), SRTT: time.Millisecond},
		}
	}
	return records
}
