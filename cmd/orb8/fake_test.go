package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

var update = flag.Bool("update", false, "write the golden files")

// testNow is what the commands under test take for the time.
func testNow() time.Time { return time.Date(2026, 3, 4, 15, 6, 7, 0, time.UTC) }

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(testNow().Add(-d)) }

// fakeCollector answers with what its fields say.
type fakeCollector struct {
	orb8v1connect.UnimplementedOrbitServiceHandler

	flows  *orb8v1.QueryFlowsResponse
	dns    *orb8v1.QueryDnsResponse
	status *orb8v1.GetStatusResponse
	err    error

	syscalls  *orb8v1.QuerySyscallsResponse
	anomalies *orb8v1.QueryAnomaliesResponse
	// stream, when set, is run for each subscriber.
	stream func(context.Context, *connect.ServerStream[orb8v1.StreamEventsResponse]) error

	mu       sync.Mutex
	asked    *orb8v1.QueryFlowsRequest
	askedDNS *orb8v1.QueryDnsRequest
	streamed *orb8v1.StreamEventsRequest

	askedSyscalls  *orb8v1.QuerySyscallsRequest
	askedAnomalies *orb8v1.QueryAnomaliesRequest

	// aggregate, when set, answers each request.
	aggregate      func(*orb8v1.AggregateRequest) *orb8v1.AggregateResponse
	askedAggregate *orb8v1.AggregateRequest
}

func (f *fakeCollector) Aggregate(_ context.Context, req *connect.Request[orb8v1.AggregateRequest]) (*connect.Response[orb8v1.AggregateResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.askedAggregate = req.Msg
	if f.err != nil {
		return nil, f.err
	}
	return connect.NewResponse(f.aggregate(req.Msg)), nil
}

func (f *fakeCollector) QueryFlows(_ context.Context, req *connect.Request[orb8v1.QueryFlowsRequest]) (*connect.Response[orb8v1.QueryFlowsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = req.Msg
	if f.err != nil {
		return nil, f.err
	}
	return connect.NewResponse(f.flows), nil
}

func (f *fakeCollector) QueryDns(_ context.Context, req *connect.Request[orb8v1.QueryDnsRequest]) (*connect.Response[orb8v1.QueryDnsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.askedDNS = req.Msg
	if f.err != nil {
		return nil, f.err
	}
	return connect.NewResponse(f.dns), nil
}

func (f *fakeCollector) QuerySyscalls(_ context.Context, req *connect.Request[orb8v1.QuerySyscallsRequest]) (*connect.Response[orb8v1.QuerySyscallsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.askedSyscalls = req.Msg
	if f.err != nil {
		return nil, f.err
	}
	return connect.NewResponse(f.syscalls), nil
}

func (f *fakeCollector) QueryAnomalies(_ context.Context, req *connect.Request[orb8v1.QueryAnomaliesRequest]) (*connect.Response[orb8v1.QueryAnomaliesResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.askedAnomalies = req.Msg
	if f.err != nil {
		return nil, f.err
	}
	return connect.NewResponse(f.anomalies), nil
}

func (f *fakeCollector) GetStatus(context.Context, *connect.Request[orb8v1.GetStatusRequest]) (*connect.Response[orb8v1.GetStatusResponse], error) {
	if f.err != nil {
		return nil, f.err
	}
	return connect.NewResponse(f.status), nil
}

func (f *fakeCollector) StreamEvents(ctx context.Context, req *connect.Request[orb8v1.StreamEventsRequest], stream *connect.ServerStream[orb8v1.StreamEventsResponse]) error {
	f.mu.Lock()
	f.streamed = req.Msg
	f.mu.Unlock()
	return f.stream(ctx, stream)
}

// serve starts the collector on loopback and returns its HOST:PORT.
func (f *fakeCollector) serve(t testing.TB) string {
	t.Helper()
	return serveHandler(t, f)
}

func serveHandler(t testing.TB, handler orb8v1connect.OrbitServiceHandler) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(orb8v1connect.NewOrbitServiceHandler(handler))
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// result is what a command line did.
type result struct {
	code           int
	stdout, stderr string
}

// orb8 runs a command line against the collector at agent.
func orb8(t testing.TB, agent string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), &app{target: target{agent: agent}, now: testNow}, args, &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// writeTable writes rows as a table of 80 columns.
func writeTable(w io.Writer, rows []row, columns []column) error {
	t := &tableWriter{w: w, screen: screen{width: defaultWidth}, rows: rows}
	t.layout.columns = func([]row, bool) []column { return columns }
	return t.end()
}

// assertGolden compares with testdata/name, or writes it with -update.
func assertGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "write it with: go test ./cmd/orb8 -update")
	assert.Equal(t, string(want), got)
}

// cannedFlows hold one flow for each way to name an endpoint.
func cannedFlows() []*orb8v1.Flow {
	cart := &orb8v1.Endpoint{
		Address: "10.244.1.17", Port: 45678, Container: "cart",
		ContainerId: strings.Repeat("4f1b0a", 10) + "beef", PodUid: "0b8f6f43-5d43-4cbb-8b5f-2f2f6d1d1c11",
		Pod: "cart-7d9c5b8f6d-x2k7p", Namespace: "shop", Process: "java", Pid: 4711,
		Cgroup: "/kubepods.slice/kubepods-burstable.slice/cri-containerd-4f1b.scope",
	}
	build := &orb8v1.Endpoint{
		Address: "172.17.0.2", Port: 8080, ContainerId: strings.Repeat("c0ffee", 10) + "1234",
		Cgroup: "/system.slice/docker-c0ffee.scope", Process: "nginx", Pid: 99,
	}
	resolver := &orb8v1.Endpoint{
		Address: "fd00::10", Port: 53, Cgroup: "/system.slice/systemd-resolved.service", Process: "systemd-resolve", Pid: 512,
	}
	shell := &orb8v1.Endpoint{
		Address: "192.168.100.100", Port: 51234, Cgroup: "/user.slice/user-1000.slice/session-3.scope", Process: "curl", Pid: 4242,
	}
	in, out := orb8v1.Direction_DIRECTION_INGRESS, orb8v1.Direction_DIRECTION_EGRESS
	return []*orb8v1.Flow{
		{
			Start: ago(70 * time.Second), End: ago(1234 * time.Millisecond), Node: "worker-1", Direction: out, Transport: "tcp",
			Source: cart, Destination: &orb8v1.Endpoint{Address: "10.96.100.100", Port: 5432},
			Bytes: 1_234_567_890, Packets: 1_000_001, Connections: 1, ConnectionId: "00c0ffee00c0ffee", TcpFlags: 0x1a,
		},
		{
			Start: ago(50 * time.Second), End: ago(2 * time.Second), Node: "worker-1", Direction: in, Transport: "tcp",
			Source:      &orb8v1.Endpoint{Address: "2001:db8:85a3:8d3:1319:8a2e:370:7348", Port: 65535},
			Destination: build, Bytes: 2048, Packets: 12, Connections: 2, ConnectionId: "1122334455667788",
			TcpFlags: 0x13, Ended: true, Interfaces: []string{"veth1", "docker0"}, Lost: 3,
		},
		{
			Start: ago(3 * time.Second), End: ago(3 * time.Second), Node: "worker-1", Direction: in, Transport: "udp",
			Source: &orb8v1.Endpoint{Address: "fd00::99", Port: 40000}, Destination: resolver,
			Bytes: 88, Packets: 1, Connections: 1, ConnectionId: "8877665544332211",
		},
		{
			Start: ago(9 * time.Second), End: ago(4 * time.Second), Node: "worker-1", Direction: out, Transport: "tcp",
			Source: shell, Destination: &orb8v1.Endpoint{Address: "93.184.216.134", Port: 443},
			Bytes: 5120, Packets: 20, Connections: 1, ConnectionId: "aabbccddeeff0011", TcpFlags: 0x1b, Ended: true,
		},
		{
			Start: ago(6 * time.Second), End: ago(5 * time.Second), Node: "worker-1", Direction: in, Transport: "icmp",
			Source: &orb8v1.Endpoint{Address: "10.0.0.1"}, Destination: &orb8v1.Endpoint{Address: "192.168.100.100", Cgroup: "/"},
			Bytes: 168, Packets: 2, Connections: 1, ConnectionId: "0101010101010101",
		},
		{
			Start: ago(6 * time.Second), End: ago(6 * time.Second), Node: "worker-1", Direction: out, Transport: "ipv6-icmp",
			Source: &orb8v1.Endpoint{Address: "fe80::1", Cgroup: "/"}, Destination: &orb8v1.Endpoint{Address: "ff02::1"},
			Bytes: 72, Packets: 1, Connections: 1, ConnectionId: "0202020202020202", IcmpType: 134, IcmpCode: 0,
		},
	}
}

func cannedReply() *orb8v1.QueryFlowsResponse {
	return &orb8v1.QueryFlowsResponse{Flows: cannedFlows(), Matched: uint64(len(cannedFlows()))}
}

func cannedStatus() *orb8v1.GetStatusResponse {
	return &orb8v1.GetStatusResponse{
		Version: "v0.1.0",
		Nodes: []*orb8v1.NodeStatus{
			{
				Node: "worker-1", Version: "v0.1.0", Kernel: "6.18.0", Started: ago(75 * time.Hour), LastSeen: ago(2 * time.Second),
				Network: &orb8v1.NetworkStatus{
					AttachMode: "cgroup", AttachPoints: 2, Packets: 1_234_567, Bytes: 987_654_321, LiveFlows: 1234,
					PacketsPerSecond: 12_345.6, BytesPerSecond: 9_876_543,
					Probes: []*orb8v1.ProbeCost{
						{Program: "cgroup_egress", Runs: 617_283, RunTime: durationpb.New(148_147_920)}, {Program: "cgroup_ingress"},
					},
					Lost: &orb8v1.Loss{}, RingBufferBytes: 1 << 20, RingBufferUtilization: 0.03,
					FlowTableSize: 65536, FlowTableEntries: 3277, Interval: durationpb.New(5 * time.Second),
					Drops: []*orb8v1.Drops{
						{Reason: "socket_rcvbuff", Packets: 12_345}, {Reason: "no_socket", Packets: 77},
						{Reason: "netfilter_drop", Packets: 2}, {Reason: "ip_rpfilter", Packets: 1}, {Reason: "not_specified", Packets: 1},
					},
				},
				Syscalls: &orb8v1.SyscallStatus{
					CallsPerSecond: 1, Probes: []*orb8v1.ProbeCost{{Program: "sys_enter", Runs: 1, RunTime: durationpb.New(61)}},
					Calls: 12_345_678, Lost: &orb8v1.Loss{}, Cgroups: 34, RingBufferBytes: 512 << 10, RingBufferUtilization: 0.07,
					Interval: durationpb.New(5 * time.Second), Thinning: 1, Latency: true,
				},
				Gpu: &orb8v1.GpuStatus{
					Interval: durationpb.New(10 * time.Second), Scrapes: 27_000, FailedScrapes: 3, ScrapeTime: durationpb.New(12_300_000),
					Models: []*orb8v1.GpuModel{{Model: "NVIDIA H100 80GB HBM3", Gpus: 8}, {Gpus: 1}}, MigInstances: 7, LostEvents: 2,
					Sources: []*orb8v1.GpuSource{
						{Name: "nvml", State: "partial", Reason: "GPU 3 is lost", ScrapeTime: durationpb.New(5_000_000)},
						{Name: "dcgm", State: "failed", Reason: "http://127.0.0.1:9400/metrics: 500 Internal Server Error"},
						{Name: "pod_resources", State: "up", ScrapeTime: durationpb.New(2_100_000)},
						{Name: "cuda", State: "off", Reason: "the configuration says so"},
					},
					Conflicts: []*orb8v1.GpuConflict{{
						Device: "GPU-0", Kind: "owner", About: "processes", First: "ml/train-0/main", Other: "cgroup 42", Since: ago(3 * time.Minute),
					}},
				},
			},
			{
				Node: "worker-2", Version: "v0.0.9", Kernel: "5.15.0-91-generic", Started: ago(2 * time.Hour),
				LastSeen: ago(90 * time.Second), Missing: true,
				Network: &orb8v1.NetworkStatus{
					AttachMode: "tc", AttachPoints: 8, Packets: 1 << 53, Bytes: 18_446_744_073_709_551_615, LiveFlows: 65536,
					Lost:            &orb8v1.Loss{Packets: 1500, Bytes: 2_250_000, Events: 1},
					RingBufferBytes: 32 << 20, RingBufferUtilization: 0.995, FlowTableSize: 65536, FlowTableEntries: 65536,
					Interval: durationpb.New(10 * time.Second), UnparsedPackets: 7,
					Unavailable: map[string]string{
						"process names": "the kernel is too old",
						"drops":         "the tracepoint skb:kfree_skb gives no reason; use Linux 5.17 or later",
					},
				},
			},
			{
				Node: "worker-3", Version: "v0.1.0", Kernel: "6.1.0", Started: ago(2 * time.Hour), LastSeen: ago(time.Second),
				Syscalls: &orb8v1.SyscallStatus{
					Calls: 1 << 53, Lost: &orb8v1.Loss{Calls: 1, Events: 2345}, Cgroups: 1, RingBufferBytes: 512 << 10, RingBufferUtilization: 0.99,
					Interval: durationpb.New(time.Second), Thinning: 16, Unavailable: map[string]string{"latency": "raw_tp sys_exit: not permitted"},
				},
				Gpu: &orb8v1.GpuStatus{
					Interval: durationpb.New(10 * time.Second), Scrapes: 1, ScrapeTime: durationpb.New(300_000),
					Sources: []*orb8v1.GpuSource{{Name: "nvml", State: "absent", Reason: "cannot find libnvidia-ml.so.1"}},
				},
			},
		},
		Store: &orb8v1.StoreStatus{
			Backend: "embedded", Records: 54321, Bytes: 12 << 20, MaxBytes: 256 << 20, HeadBytes: 3 << 20, Oldest: ago(26 * time.Hour),
			EvictedRecords: 10, Subscribers: 1, SubscriberDrops: 2,
		},
	}
}
