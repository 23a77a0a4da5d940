package orb8storageextension

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/testbed/backends"
)

// world makes records as agents do: connections through Services, of which each end knows itself, in intervals of which the first
// comes before the handshake is over, or before Kubernetes told whose pod it is.
type world struct {
	*rand.Rand
	began time.Time
}

func (w *world) pod(i int) flow.Identity {
	return flow.Identity{
		CgroupID: uint64(100 + i), Pod: fmt.Sprint("pod-", i), Namespace: fmt.Sprint("ns-", i%3), Container: "main", Workload: fmt.Sprint("app-", i%4),
		WorkloadKind: "Deployment", ContainerID: fmt.Sprintf("%064x", i+1),
	}
}

func (w *world) connection(i int) []flow.Record {
	const pods = 8
	from, to := w.IntN(pods), w.IntN(pods)
	client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(from)}), uint16(30000+i))
	service := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, 0, byte(to)}), 80)
	server := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(to)}), 8080)
	start := w.began.Add(time.Duration(w.IntN(60_000)) * time.Millisecond)
	var records []flow.Record
	for interval := range 1 + w.IntN(3) {
		r := flow.Record{
			Start: start.Add(time.Duration(interval) * 5 * time.Second), Direction: flow.Egress, Transport: flow.TCP, Node: fmt.Sprint("node-", from%3),
			Source: flow.Endpoint{Addr: client, Identity: w.pod(from)}, Destination: flow.Endpoint{Addr: service},
			Bytes: uint64(w.IntN(100_000)), Packets: uint64(1 + w.IntN(100)), Initiator: flow.InitiatorSource,
		}
		r.End = r.Start.Add(time.Duration(w.IntN(5000)) * time.Millisecond)
		if interval == 0 {
			r.Connections = 1
		}
		if interval > 0 || w.IntN(2) == 0 {
			r.HasISNs, r.ClientISN, r.ServerISN = true, uint32(i+1), uint32(i+1)<<8
		} else {
			r.Initiator = flow.InitiatorUnknown
			r.Source.Identity = flow.Identity{CgroupID: r.Source.Identity.CgroupID}
		}
		records = append(records, r)
		if w.IntN(3) > 0 { // the server's node has an agent too
			far := r
			far.Node, far.Direction, far.Bytes = fmt.Sprint("node-", to%3), flow.Ingress, r.Bytes+1
			far.Source, far.Destination = flow.Endpoint{Addr: client}, flow.Endpoint{Addr: server, Identity: w.pod(to)}
			records = append(records, far)
		}
	}
	return records
}

// fill writes the same to all stores, in another order and other batches to each, and some of it twice.
func (w *world) fill(t *testing.T, stores ...storage.Store) {
	var flows []flow.Record
	var counts []syscalls.Counts
	for i := range 300 {
		flows = append(flows, w.connection(i)...)
		counts = append(counts, syscalls.Counts{
			Start: w.began.Add(time.Duration(i) * 100 * time.Millisecond), End: w.began.Add(time.Duration(i+1) * 100 * time.Millisecond),
			Node: fmt.Sprint("node-", i%3), Identity: w.pod(i % 8),
			Calls: []syscalls.Count{{Call: syscalls.Call{ABI: syscalls.X86_64, Number: int32(w.IntN(4))}, Calls: uint64(1 + w.IntN(50))}},
		})
	}
	for i, store := range stores {
		for part := range slices.Chunk(flows, 100+i) {
			require.NoError(t, store.WriteFlows(t.Context(), part))
		}
		for part := range slices.Chunk(counts, 100+i) {
			require.NoError(t, store.WriteSyscalls(t.Context(), part))
		}
		require.NoError(t, store.WriteStatus(t.Context(), flow.NetworkStatus{
			Node: "node-0", Started: w.began, Time: w.began.Add(time.Minute), Interval: time.Hour, LostPackets: 3,
		}))
	}
}

// selections ask for what engines can tell, for what they cannot, and for what only both ends together have.
func selections() map[string]storage.Selection {
	allow := func(filters ...storage.Filter) storage.Selection { return storage.Selection{Allow: filters} }
	return map[string]storage.Selection{
		"all":          {},
		"pod":          allow(storage.Filter{Pods: []string{"pod-3"}}),
		"pods":         allow(storage.Filter{Pods: []string{"ns-1/pod-4", "ns-1/pod-5"}}, storage.Filter{Workloads: []string{"app-1"}}),
		"namespace":    allow(storage.Filter{Namespaces: []string{"ns-2"}}),
		"a Service's":  allow(storage.Filter{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.96.0.2/31")}}),
		"of both ends": allow(storage.Filter{Ports: []uint16{8080}, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, Pods: []string{"pod-1"}}),
		"from and to":  allow(storage.Filter{Source: storage.EndFilter{Pods: []string{"pod-1"}}, Destination: storage.EndFilter{Namespaces: []string{"ns-0"}}}),
		"container":    allow(storage.Filter{Containers: []string{fmt.Sprintf("%064x", 3)}}),
		"node":         allow(storage.Filter{Nodes: []string{"node-1"}, Ports: []uint16{80}}),
		"direction":    allow(storage.Filter{Directions: []flow.Direction{flow.Ingress}}),
		"but not":      {Allow: []storage.Filter{{Namespaces: []string{"ns-1"}}}, Deny: []storage.Filter{{Pods: []string{"pod-4"}}}},
		"nobody":       allow(storage.Filter{Pods: []string{"nobody"}}),
	}
}

// TestSameAnswers holds what stores over engines answer against the embedded one, and gateways over one engine against each other.
func TestSameAnswers(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) (backend string, gateways []string, flush func(context.Context) error){
		"VictoriaLogs cluster": func(t *testing.T) (string, []string, func(context.Context) error) {
			c := backends.VictoriaLogsCluster(t)
			return "victorialogs", []string{c.Gateways[0].URL, c.Gateways[1].URL}, c.Flush
		},
		"Loki": func(t *testing.T) (string, []string, func(context.Context) error) {
			s := backends.Loki(t)
			return "loki", []string{s.URL}, func(context.Context) error { return nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			backend, urls, flush := start(t)
			headers := tenant()
			var gateways []storage.Store
			for _, url := range urls {
				gateways = append(gateways, openEngine(t, backend, url, headers))
			}
			embedded := newStorageExtension(componenttest.NewNopTelemetrySettings(), createDefaultConfig().(*Config))
			require.NoError(t, embedded.Start(t.Context(), componenttest.NewNopHost()))
			defer func() { assert.NoError(t, embedded.Shutdown(context.Background())) }()
			seed := rand.Uint64()
			w := &world{Rand: rand.New(rand.NewPCG(seed, 1)), began: time.Now().UTC().Add(-5 * time.Minute).Truncate(time.Millisecond)}
			w.fill(t, embedded, gateways[0])
			w.Rand = rand.New(rand.NewPCG(seed, 1))
			w.fill(t, gateways[len(gateways)-1]) // the same again: nothing counts twice
			t.Log("seed", seed)
			require.NoError(t, flush(t.Context()))

			for name, selection := range selections() {
				for _, separate := range []bool{false, true} {
					q := storage.FlowQuery{Selection: selection, SeparateEnds: separate, Since: w.began.Add(20 * time.Second), Until: w.began.Add(50 * time.Second)}
					want, err := embedded.QueryFlows(t.Context(), q)
					require.NoError(t, err)
					for _, gateway := range gateways {
						got, err := gateway.QueryFlows(t.Context(), q)
						require.NoError(t, err)
						require.Equal(t, want.Flows, got.Flows, "%s, separate ends %t", name, separate)
						require.Equal(t, want.Lost, got.Lost)
					}
				}
				by := storage.AggregateQuery{Flows: selection, By: []string{"source.pod", "destination.pod"}, Measures: []string{"bytes", "packets"}, Bucket: 10 * time.Second}
				want, err := embedded.Aggregate(t.Context(), by)
				require.NoError(t, err)
				for _, gateway := range gateways {
					got, err := gateway.Aggregate(t.Context(), by)
					require.NoError(t, err)
					require.Equal(t, want.Groups, got.Groups, name)
				}
			}
			for _, selection := range []storage.SyscallSelection{{}, {Allow: []storage.SyscallFilter{{Pods: []string{"pod-3"}}}}, {Allow: []storage.SyscallFilter{{Syscalls: []string{"read"}}}}} {
				want, err := embedded.QuerySyscalls(t.Context(), storage.SyscallQuery{Selection: selection})
				require.NoError(t, err)
				for _, gateway := range gateways {
					got, err := gateway.QuerySyscalls(t.Context(), storage.SyscallQuery{Selection: selection})
					require.NoError(t, err)
					require.Equal(t, want.Syscalls, got.Syscalls)
				}
			}
			first, err := gateways[0].Status(t.Context())
			require.NoError(t, err)
			require.Len(t, first.Nodes, 1)
			last, err := gateways[len(gateways)-1].Status(t.Context())
			require.NoError(t, err)
			assert.Equal(t, first.Nodes, last.Nodes)
		})
	}
}
