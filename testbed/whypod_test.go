//go:build linux

package testbed

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/internal/collector"
)

const whyInterval = 5 * time.Second

// reports are what agents say of pods and of themselves.
type reports struct {
	t    *testing.T
	logs plog.Logs
}

// of begins a record of a pod, or of a node where that is empty.
func (r *reports) of(node, pod string) plog.LogRecord {
	rl := r.logs.ResourceLogs().AppendEmpty()
	a := rl.Resource().Attributes()
	a.PutStr(flow.AttrNodeName, node)
	if pod != "" {
		a.PutStr(flow.AttrNamespace, "ml")
		a.PutStr(flow.AttrPod, pod)
		a.PutStr(flow.AttrContainer, "main")
	}
	return rl.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
}

// calls adds calls of a pod that took so long together, in one interval.
func (r *reports) calls(node, pod, name string, at time.Time, made uint64, took time.Duration) {
	call, err := syscalls.ParseCall(syscalls.X86_64, name)
	require.NoError(r.t, err)
	latency := &syscalls.Latency{Sum: took}
	latency.Buckets[20] = made
	c := syscalls.Counts{Start: at, End: at.Add(whyInterval), Calls: []syscalls.Count{{Call: call, Calls: made, Latency: latency}}}
	c.PutTo(r.of(node, pod), syscalls.X86_64)
}

// answer adds what a server sends to a client in an interval, as both ends see it.
func (r *reports) answer(server, client string, at time.Time, size uint64) {
	f := flow.Record{
		Start: at, End: at.Add(whyInterval - time.Millisecond), Direction: flow.Ingress, Transport: flow.TCP, Initiator: flow.InitiatorDestination,
		Source:      flow.Endpoint{Addr: netip.MustParseAddrPort("10.244.1.9:9000")},
		Destination: flow.Endpoint{Addr: netip.MustParseAddrPort("10.244.0.5:40000")},
		Bytes:       size, Packets: size/1400 + 1,
	}
	f.HasISNs, f.ClientISN, f.ServerISN = true, 7, 9
	put := func(node, pod, peer, prefix string) {
		lr := r.of(node, pod)
		f.PutTo(lr)
		lr.Attributes().PutStr(prefix+flow.AttrNamespace, "ml")
		lr.Attributes().PutStr(prefix+flow.AttrPod, peer)
	}
	put("node-a", client, server, flow.PrefixSource)
	f.Direction, f.SRTT = flow.Egress, 40*time.Millisecond
	put("node-b", server, client, flow.PrefixDestination)
}

func (r *reports) status(node string) {
	now := time.Now()
	network := flow.NetworkStatus{Node: node, Time: now, Started: now.Add(-time.Hour), Interval: whyInterval, AttachMode: "cgroup"}
	network.PutTo(r.of(node, ""))
	calls := syscalls.Status{Node: node, Time: now, Started: now.Add(-time.Hour), Interval: whyInterval, Latency: true, Thinning: 1}
	calls.PutTo(r.of(node, ""))
}

func (r *reports) send(endpoint string) {
	body, err := plogotlp.NewExportRequestFromLogs(r.logs).MarshalProto()
	require.NoError(r.t, err)
	resp, err := http.Post("http://"+endpoint+"/v1/logs", "application/x-protobuf", bytes.NewReader(body))
	require.NoError(r.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	require.Equal(r.t, http.StatusOK, resp.StatusCode, "%s", text)
}

// A gateway that has the reports of all nodes answers for a pod by its name: what the pod did counts, and not what its neighbour on the same card or
// its peer on another node did.
func TestWhyOfAPodThroughTheGateway(t *testing.T) {
	ports := testutil.FreeAddresses(t, net.Listen, 4)
	c := collector.Launch(t, collector.Options{
		Config: collector.Gateway(), Overlay: withoutKubernetes,
		Env: []string{"ORB8_OTLP_GRPC_ENDPOINT=" + ports[0], "ORB8_OTLP_HTTP_ENDPOINT=" + ports[1], "ORB8_HEALTH_ENDPOINT=" + ports[2]},
	})
	collector.Await(t, "the gateway runs", func() bool { return strings.Contains(c.Log(), "Everything is ready") }, func() any { return c.Log() })

	gpus := newGPUNode(t, "node-a", 30)
	card := device("GPU-a0000000-0000-4000-8000-000000000000", "", "", 0)
	gpus.add("", "hw.gpu.utilization", "1", card, 0, always(0.9))
	sm := device("GPU-a0000000-0000-4000-8000-000000000000", "", "", 0)
	sm["gpu.engine"] = "sm"
	for pod, utilization := range map[string]float64{"train-0": 0.1, "infer-0": 0.85} {
		gpus.add(pod, "gpu.allocation", "1", card, 0, always(1))
		gpus.add(pod, "gpu.process.utilization", "1", sm, 0, always(utilization))
	}
	gpus.send(ports[1])
	logs := &reports{t: t, logs: plog.NewLogs()}
	until := gpus.last.Truncate(10 * time.Second)
	since := until.Add(-4 * time.Minute)
	for at := since; at.Before(until); at = at.Add(whyInterval) {
		logs.calls("node-a", "train-0", "recvfrom", at, 50, 4400*time.Millisecond)
		logs.calls("node-a", "train-0", "futex", at, 50, 15*time.Second)
		logs.calls("node-a", "infer-0", "fsync", at, 50, 5*time.Second)
		logs.calls("node-b", "store-0", "pread64", at, 500, 5*time.Second)
		logs.answer("store-0", "train-0", at, 700_000)
	}
	logs.status("node-a")
	logs.status("node-b")
	logs.send(ports[1])

	ask := func(pod string) whyReport {
		stdout, stderr, code := c.CLI("why", pod, "--since", since.Format(time.RFC3339Nano), "--until", until.Format(time.RFC3339Nano), "-o", "json")
		require.Zero(t, code, stderr)
		var r whyReport
		require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
		return r
	}
	train := ask("ml/train-0")
	assert.Equal(t, "network", train.Verdict, train.Summary)
	assert.InDelta(t, 0.9, train.Idle, 1e-3)
	assert.InDelta(t, 4.4/5/0.9, train.Shares["network"], 0.01)
	// Both ends saw it, and it is once.
	assert.EqualValues(t, 48*700_000, train.Network.Received.Bytes)
	require.Len(t, train.Network.Peers, 1)
	assert.Equal(t, "ml/store-0", train.Network.Peers[0].Name)
	var calls []string
	for _, call := range train.Syscalls {
		calls = append(calls, call.Syscall+" "+call.Cause)
	}
	assert.Equal(t, []string{"futex ", "recvfrom network"}, calls)

	infer := ask("infer-0")
	assert.Equal(t, "busy", infer.Verdict, "the neighbour on the same card: %s", infer.Summary)
	assert.Equal(t, "not enough data", ask("ml/store-0").Verdict, "it has no GPU")
}
