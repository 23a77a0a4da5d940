//go:build linux

package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"

	"github.com/orb8/orb8/internal/cgrouplogs"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
)

const (
	// podsPerNode is how many pods a node has, podsPerWorkload how many a Deployment.
	podsPerNode, podsPerWorkload = 20, 100
	// connectionsPerLookup is how many connections are opened for one that asks for a name first.
	connectionsPerLookup = 10
	// callsPerContainer is how many different system calls a container makes.
	callsPerContainer = 25
	// recordsPerConnection are those of its two directions at both of its ends.
	recordsPerConnection = 4
	// answerFactor is how many times more a server sends than its client.
	answerFactor = 10
	// retryAfter is what the agents' exporter waits at first.
	retryAfter = time.Second
)

// pod is one of the simulated cluster. All that it is called is made of its number.
type pod int

func (p pod) node() int          { return int(p) / podsPerNode }
func (p pod) workload() string   { return fmt.Sprintf("app-%d", int(p)/podsPerWorkload) }
func (p pod) namespace() string  { return fmt.Sprintf("team-%d", int(p)/podsPerWorkload%20) }
func (p pod) replicaSet() string { return p.workload() + "-6d4cf56db6" }
func (p pod) name() string       { return fmt.Sprintf("%s-%05x", p.replicaSet(), int(p)) }
func (p pod) uid() string        { return fmt.Sprintf("00000000-0000-4000-8000-%012x", int(p)) }
func (p pod) container() string  { return fmt.Sprintf("%064x", int(p)+1) }
func (p pod) cgroupID() uint64   { return uint64(10_000 + int(p)%podsPerNode) }
func (p pod) address() netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(p >> 16), byte(p >> 8), byte(p)})
}
func (p pod) String() string { return p.namespace() + "/" + p.name() }

func nodeName(node int) string { return fmt.Sprintf("node-%d", node) }

// mix makes a number of some that looks random, and is the same wherever it is made of the same (splitmix64).
func mix(numbers ...uint64) (h uint64) {
	for _, n := range numbers {
		h += n + 0x9e3779b97f4a7c15
		h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
		h = (h ^ h>>27) * 0x94d049bb133111eb
		h ^= h >> 31
	}
	return h
}

// agent sends what the agent of a node would, over a connection of its own. It keeps what was not acknowledged, and sends it again.
type agent struct {
	node, nodes int
	connection  *grpc.ClientConn
	client      plogotlp.GRPCClient
	// reported has the number of connections of each interval.
	reported []int

	// records were acknowledged; retries are attempts that were not.
	records, retries atomic.Uint64
}

// start connects agents to a gateway, or to several in turn.
func start(t testing.TB, n int, gateways ...string) []*agent {
	t.Helper()
	encoding.RegisterCompressor(zstdCompressor{})
	agents := make([]*agent, n)
	for i := range agents {
		connection, err := grpc.NewClient("passthrough:///"+gateways[i%len(gateways)],
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.UseCompressor(zstdCompressor{}.Name())))
		require.NoError(t, err)
		t.Cleanup(func() { _ = connection.Close() })
		agents[i] = &agent{node: i, nodes: n, connection: connection, client: plogotlp.NewGRPCClient(connection)}
	}
	return agents
}

// report sends what an interval brought: the flows of so many connections, lookups, system calls, and the node's status. It returns when
// that is acknowledged.
func (a *agent) report(ctx context.Context, connections int, began, ended time.Time) error {
	logs := a.interval(uint64(len(a.reported)), connections, began, ended)
	a.reported = append(a.reported, connections)
	request := plogotlp.NewExportRequestFromLogs(logs)
	for {
		_, err := a.client.Export(ctx, request)
		if err == nil {
			a.records.Add(uint64(logs.LogRecordCount()))
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.retries.Add(1)
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(retryAfter):
		}
	}
}

// interval makes the records of one interval: those of connections of this node's clients, and of as many of its servers, whose
// clients' nodes report them too.
func (a *agent) interval(round uint64, connections int, began, ended time.Time) plog.Logs {
	network := cgrouplogs.New("orb8/network", "0.1.0")
	for k := range connections {
		client, server := newConnection(a.node, a.nodes, k, round), newConnection(a.clientOf(k), a.nodes, k, round)
		for _, direction := range []flow.Direction{flow.Egress, flow.Ingress} {
			for _, r := range []flow.Record{client.record(true, direction, began, ended), server.record(false, direction, began, ended)} {
				r.PutTo(network.Next(r.Local().Identity.CgroupID))
			}
		}
		if k%connectionsPerLookup == 0 {
			lookup := client.lookup(began)
			lookup.PutTo(network.Next(lookup.Local().Identity.CgroupID))
		}
	}
	status := a.status(began, ended, uint64(connections))
	status.PutTo(network.Next(0))
	calls := cgrouplogs.New("orb8/syscalls", "0.1.0")
	for i := range podsPerNode {
		counts := a.calls(pod(a.node*podsPerNode+i), began, ended, round)
		counts.PutTo(calls.Next(counts.Identity.CgroupID), syscalls.X86_64)
	}
	logs := network.Logs
	calls.Logs.ResourceLogs().MoveAndAppendTo(logs.ResourceLogs())
	a.identify(logs)
	return logs
}

// clientOf is the node whose k-th connection has its server here.
func (a *agent) clientOf(k int) int { return modulo(a.node-step(k), a.nodes) }

// reportedBytes sums what was sent over all connections that either end has reported, each once.
func reportedBytes(agents []*agent) (sum uint64) {
	for _, a := range agents {
		for round, connections := range a.reported {
			for k := range connections {
				sum += newConnection(a.node, a.nodes, k, uint64(round)).bytes * (1 + answerFactor)
				client := agents[a.clientOf(k)]
				if round >= len(client.reported) || k >= client.reported[round] {
					sum += newConnection(client.node, a.nodes, k, uint64(round)).bytes * (1 + answerFactor)
				}
			}
		}
	}
	return sum
}

// identify writes into resources what pod_enrichment and k8s_attributes of an agent do.
func (a *agent) identify(logs plog.Logs) {
	for _, rl := range logs.ResourceLogs().All() {
		attributes := rl.Resource().Attributes()
		attributes.PutStr(flow.AttrNodeName, nodeName(a.node))
		id, isPod := attributes.Get(flow.AttrCgroupID)
		if !isPod {
			continue
		}
		p := pod(a.node*podsPerNode + int(id.Int()) - 10_000)
		attributes.PutStr(flow.AttrCgroupPath, "/kubepods.slice/kubepods-pod"+p.uid()+".slice/cri-containerd-"+p.container()+".scope")
		attributes.PutStr(flow.AttrContainerID, p.container())
		attributes.PutStr(flow.AttrRuntime, "containerd")
		attributes.PutStr(flow.AttrPodUID, p.uid())
		attributes.PutStr(flow.AttrPodQOSClass, "burstable")
		attributes.PutStr(flow.AttrPod, p.name())
		attributes.PutStr(flow.AttrNamespace, p.namespace())
		attributes.PutStr(flow.AttrContainer, "server")
		attributes.PutStr(flow.AttrDeployment, p.workload())
		attributes.PutStr("k8s.pod.label.app", p.workload())
	}
}

func (a *agent) status(began, ended time.Time, flows uint64) flow.NetworkStatus {
	return flow.NetworkStatus{
		Node: nodeName(a.node), Version: "0.1.0", Kernel: "6.12.0", Time: ended, Started: ended.Add(-time.Hour), AttachMode: "cgroup", AttachPoints: 2,
		Interval: ended.Sub(began), Packets: 1000 * uint64(len(a.reported)), Bytes: 1_000_000 * uint64(len(a.reported)), LiveFlows: flows,
		RingBufferBytes: 1 << 20, FlowTableSize: 100_000, FlowTableEntries: flows,
	}
}

func (a *agent) calls(p pod, began, ended time.Time, round uint64) syscalls.Counts {
	counts := syscalls.Counts{Start: began, End: ended, Node: nodeName(a.node), Identity: flow.Identity{CgroupID: p.cgroupID()}}
	for number := range callsPerContainer {
		counts.Calls = append(counts.Calls, syscalls.Count{
			Call: syscalls.Call{ABI: syscalls.X86_64, Number: int32(number)}, Calls: 1 + mix(uint64(p), uint64(number), round)%1000,
		})
	}
	return counts
}

// step is how far from its client's node the server of a node's k-th connection is.
func step(k int) int { return 7*k + 1 }

func modulo(n, m int) int { return ((n % m) + m) % m }

// connection is one between two pods; both of their nodes make the same of it.
type connection struct {
	client, server pod
	port           uint16
	isn            uint64
	bytes          uint64
}

// newConnection is the k-th that a node's clients opened in an interval.
func newConnection(clientNode, nodes, k int, round uint64) connection {
	serverNode := modulo(clientNode+step(k), nodes)
	h := mix(uint64(clientNode), uint64(k), round)
	return connection{
		client: pod(clientNode*podsPerNode + int(h%podsPerNode)), server: pod(serverNode*podsPerNode + int(h>>8%podsPerNode)),
		port: 32768 + uint16(h>>16)%28000, isn: mix(h), bytes: 400 + h>>32%4000,
	}
}

// record is what the client's node or the server's saw of one direction.
func (c connection) record(atClient bool, direction flow.Direction, began, ended time.Time) flow.Record {
	client := flow.Endpoint{Addr: netip.AddrPortFrom(c.client.address(), c.port)}
	server := flow.Endpoint{Addr: netip.AddrPortFrom(c.server.address(), 8080)}
	r := flow.Record{
		Start: began, End: ended, Direction: direction, Transport: flow.TCP, TCPFlags: 0x1b, Packets: 6, Connections: 1, Ended: true,
		Outcome: flow.OutcomeClosed, Bytes: c.bytes,
		TCPHealth: flow.TCPHealth{
			ClientISN: uint32(c.isn), ServerISN: uint32(c.isn >> 32), HasISNs: true, SRTT: 300 * time.Microsecond, MinRTT: 150 * time.Microsecond,
			Handshake: 200 * time.Microsecond,
		},
	}
	toServer := atClient == (direction == flow.Egress)
	if toServer {
		r.Source, r.Destination, r.Initiator = client, server, flow.InitiatorSource
	} else {
		r.Source, r.Destination, r.Initiator = server, client, flow.InitiatorDestination
		r.Connections, r.Bytes = 0, answerFactor*c.bytes
	}
	local, process := r.Local(), "curl"
	local.Identity.CgroupID = c.client.cgroupID()
	if !atClient {
		local.Identity.CgroupID, process = c.server.cgroupID(), "server"
	}
	local.Identity.Process, local.Identity.PID = process, 1000+uint32(local.Identity.CgroupID)
	return r
}

func (c connection) lookup(at time.Time) flow.Lookup {
	return flow.Lookup{
		Time: at, Node: nodeName(c.client.node()), Direction: flow.Egress, Transport: flow.UDP,
		Client: flow.Endpoint{Addr: netip.AddrPortFrom(c.client.address(), c.port), Identity: flow.Identity{CgroupID: c.client.cgroupID(), Process: "curl", PID: 1000}},
		Server: flow.Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 250, 0, 10}), 53)},
		Name:   c.server.workload() + "." + c.server.namespace() + ".svc.cluster.local.", Type: "A", RCode: "NOERROR",
		Latency: time.Millisecond, Queries: 1,
		Answers: []flow.Answer{{Name: c.server.workload() + ".", TTL: 30 * time.Second, Type: "A", Data: c.server.address().String()}},
	}
}

// each runs do for all agents at the same time.
func each(agents []*agent, do func(*agent)) {
	var all sync.WaitGroup
	for _, a := range agents {
		all.Go(func() { do(a) })
	}
	all.Wait()
}

func total(agents []*agent, of func(*agent) *atomic.Uint64) (sum uint64) {
	for _, a := range agents {
		sum += of(a).Load()
	}
	return sum
}

// zstdCompressor is the compression that agents use.
type zstdCompressor struct{}

var encoders = sync.Pool{New: func() any {
	w, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1)) // it fails on bad options alone
	return w
}}

func (zstdCompressor) Name() string { return "zstd" }

func (zstdCompressor) Compress(w io.Writer) (io.WriteCloser, error) {
	encoder := encoders.Get().(*zstd.Encoder)
	encoder.Reset(w)
	return pooled{encoder}, nil
}

func (zstdCompressor) Decompress(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) }

type pooled struct{ *zstd.Encoder }

func (p pooled) Close() error {
	defer encoders.Put(p.Encoder)
	return p.Encoder.Close()
}
