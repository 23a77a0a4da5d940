package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/gpu"
)

// fakeNode is a collector of one node with one pod, which has a GPU that waits for a slow peer.
type fakeNode struct {
	orb8v1connect.UnimplementedOrbitServiceHandler

	status *orb8v1.NodeStatus
	series []*orb8v1.GpuSeries
	// latency tells whether calls have times.
	latency bool
	// slowReads has the pod read instead of receiving.
	slowReads bool
	// asked are the requests, in their order.
	asked []any
}

// newFakeNode measures everything. Its GPU is sampled every 10 s.
func newFakeNode() *fakeNode {
	f := &fakeNode{latency: true, status: &orb8v1.NodeStatus{
		Node:     "node-a",
		Network:  &orb8v1.NetworkStatus{Interval: durationpb.New(5 * time.Second)},
		Syscalls: &orb8v1.SyscallStatus{Interval: durationpb.New(5 * time.Second), Latency: true},
	}}
	f.add(job("train-0"), gpu.MetricUtilization, "hw.gpu.task=general", 0.1)
	f.add(job("train-0"), gpu.MetricUtilization, "hw.gpu.task=encoder", 0.9)
	f.add(job("train-0"), gpu.MetricAllocation, "", 1)
	f.add(job("train-0"), metricWaitTime, "", 0.2)
	return f
}

const whyEvery = 10 * time.Second

// eachSlot calls add with the beginning of each slot of the last 16 minutes.
func eachSlot(add func(at time.Time)) {
	for at := testNow().Add(-16 * time.Minute).Truncate(whyEvery); at.Before(testNow()); at = at.Add(whyEvery) {
		add(at)
	}
}

func (f *fakeNode) add(c *orb8v1.Container, metric, attribute string, value float64) {
	s := gpuSeries("node-a", card(0), c, metric, attribute, 0, 0)
	s.Points = nil
	eachSlot(func(at time.Time) {
		s.Points = append(s.Points, &orb8v1.GpuPoint{Start: timestamppb.New(at), Value: value, Samples: 1})
	})
	f.series = append(f.series, s)
}

func (f *fakeNode) GetStatus(context.Context, *connect.Request[orb8v1.GetStatusRequest]) (*connect.Response[orb8v1.GetStatusResponse], error) {
	return connect.NewResponse(&orb8v1.GetStatusResponse{Nodes: []*orb8v1.NodeStatus{{Node: "node-b"}, f.status}}), nil
}

func (f *fakeNode) QueryGpu(_ context.Context, req *connect.Request[orb8v1.QueryGpuRequest]) (*connect.Response[orb8v1.QueryGpuResponse], error) {
	f.asked = append(f.asked, req.Msg)
	return connect.NewResponse(&orb8v1.QueryGpuResponse{Series: f.series}), nil
}

func (f *fakeNode) Aggregate(_ context.Context, req *connect.Request[orb8v1.AggregateRequest]) (*connect.Response[orb8v1.AggregateResponse], error) {
	f.asked = append(f.asked, req.Msg)
	group := func(values []uint64, by ...string) *orb8v1.AggregateGroup {
		g := &orb8v1.AggregateGroup{By: by, Values: values}
		eachSlot(func(at time.Time) {
			g.Buckets = append(g.Buckets, &orb8v1.AggregateBucket{Start: timestamppb.New(at), Values: values})
		})
		return g
	}
	reply := &orb8v1.AggregateResponse{}
	switch {
	case req.Msg.GetSignal() == orb8v1.Signal_SIGNAL_SYSCALLS:
		took := func(d time.Duration) uint64 {
			if !f.latency {
				return 0
			}
			return uint64(d)
		}
		if f.slowReads {
			reply.Groups = []*orb8v1.AggregateGroup{group([]uint64{uint64(9 * time.Second), 300}, "read")}
			break
		}
		reply.Groups = []*orb8v1.AggregateGroup{
			group([]uint64{took(15 * time.Second), 30}, "futex"),
			group([]uint64{took(8 * time.Second), 200}, "recvfrom"),
			group([]uint64{took(400 * time.Millisecond), 12}, "fsync"),
		}
	case len(req.Msg.GetBy()) > 0:
		reply.Groups = []*orb8v1.AggregateGroup{
			group([]uint64{300_000, 220, 2}, "ml/store", "", "", "", ""), group([]uint64{200, 3, 0}, "", "", "metrics.example", "", ""),
		}
	case f.slowReads:
		reply.Total = group([]uint64{0, 0, 0})
	default:
		reply.Total = group([]uint64{300_200, 223, 2})
	}
	return connect.NewResponse(reply), nil
}

func (f *fakeNode) QuerySyscalls(_ context.Context, req *connect.Request[orb8v1.QuerySyscallsRequest]) (*connect.Response[orb8v1.QuerySyscallsResponse], error) {
	f.asked = append(f.asked, req.Msg)
	row := &orb8v1.Syscall{Name: "recvfrom", Calls: 18_001, Latency: &orb8v1.SyscallLatency{Buckets: []uint64{0, 18_000}}}
	if !f.latency {
		row.Latency = nil
	}
	return connect.NewResponse(&orb8v1.QuerySyscallsResponse{Syscalls: []*orb8v1.Syscall{row}}), nil
}

func (f *fakeNode) QueryFlows(_ context.Context, req *connect.Request[orb8v1.QueryFlowsRequest]) (*connect.Response[orb8v1.QueryFlowsResponse], error) {
	f.asked = append(f.asked, req.Msg)
	flow := func(srtt time.Duration) *orb8v1.Flow {
		return &orb8v1.Flow{Srtt: durationpb.New(srtt), Destination: &orb8v1.Endpoint{Address: "10.96.0.9", Service: "store", Namespace: "ml"}}
	}
	return connect.NewResponse(&orb8v1.QueryFlowsResponse{Flows: []*orb8v1.Flow{flow(30 * time.Millisecond), flow(82 * time.Millisecond)}}), nil
}

func TestWhyTable(t *testing.T) {
	r := orb8(t, serveHandler(t, newFakeNode()), "why", "ml/train-0")
	require.Zero(t, r.code, r.stderr)
	assert.Empty(t, r.stderr)
	assertGolden(t, "why.txt", r.stdout)
}

func TestWhyJSON(t *testing.T) {
	f := newFakeNode()
	r := orb8(t, serveHandler(t, f), "why", "train-0", "--container", "main", "--since", "10m", "--until", "5m", "-o", "json")
	require.Zero(t, r.code, r.stderr)
	assertGolden(t, "why.json", r.stdout)
	var got jsonWhy
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &got))
	assert.Equal(t, "network", got.Verdict)

	// All questions are of the same pod, and all but the first of the same slots.
	since, until := testNow().Add(-10*time.Minute).Truncate(whyEvery), testNow().Add(-5*time.Minute).Truncate(whyEvery).Add(whyEvery)
	for i, req := range f.asked {
		if i > 0 {
			r := req.(rangeRequest)
			assert.Equal(t, since, r.GetSince().AsTime(), "%T", req)
			assert.Equal(t, until, r.GetUntil().AsTime(), "%T", req)
		}
		switch r := req.(type) {
		case *orb8v1.QueryGpuRequest:
			assert.Equal(t, []string{"train-0"}, r.GetAllow()[0].GetPods())
			assert.Equal(t, []string{"main"}, r.GetAllow()[0].GetContainers())
		case *orb8v1.QuerySyscallsRequest:
			assert.Equal(t, []string{"train-0"}, r.GetAllow()[0].GetPods())
			assert.Equal(t, []string{"main"}, r.GetAllow()[0].GetContainers())
		case *orb8v1.AggregateRequest:
			assert.Equal(t, whyEvery, r.GetBucket().AsDuration())
		}
	}
}

// What is off is named, with the way to turn it on.
func TestWhyWithoutASource(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*fakeNode)
		verdict string
		missing string
	}{
		"no GPU":         {func(f *fakeNode) { f.series = nil }, "not enough data", "no GPU of train-0 has reported in this range"},
		"no agent":       {func(f *fakeNode) { f.status.Node = "node-c" }, "not enough data", "no agent of the pod's node has reported"},
		"no calls":       {func(f *fakeNode) { f.status.Syscalls = nil }, "not enough data", "turn on the ebpf_syscall receiver on the node, with latency: true"},
		"no latency":     {func(f *fakeNode) { f.status.Syscalls.Latency, f.latency = false, false }, "not enough data", "set latency: true of the ebpf_syscall receiver"},
		"no latency yet": {func(f *fakeNode) { f.latency = false }, "not enough data", "it made no system call in this range, or its calls were not measured then"},
		"no network":     {func(f *fakeNode) { f.status.Network = nil }, "cpu", "turn on the ebpf_network receiver on the node"},
		"no CUDA": {func(f *fakeNode) {
			f.series = slices.DeleteFunc(f.series, func(s *orb8v1.GpuSeries) bool { return s.GetMetric() == metricWaitTime })
		}, "network", "turn on the cuda source of the gpu receiver; until then it counts as cpu"},
		"a shared card that nobody measures processes on": {func(f *fakeNode) {
			f.series = slices.DeleteFunc(f.series, func(s *orb8v1.GpuSeries) bool { return s.GetMetric() == gpu.MetricUtilization })
		}, "not enough data", "others have them too, and nothing is measured for its processes"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeNode()
			tc.change(f)
			r := orb8(t, serveHandler(t, f), "why", "train-0", "-o", "json")
			require.Zero(t, r.code, r.stderr)
			var got jsonWhy
			require.NoError(t, json.Unmarshal([]byte(r.stdout), &got))
			assert.Equal(t, tc.verdict, got.Verdict)
			assert.Contains(t, fmt.Sprint(got.Missing), tc.missing)

			r = orb8(t, serveHandler(t, f), "why", "train-0")
			require.Zero(t, r.code, r.stderr)
			assert.Contains(t, r.stdout, tc.missing)
		})
	}
}

// Slow calls of read and write are of a disk or of a pipe, and the answer does not choose.
func TestWhyTellsDisksFromPipesNowhere(t *testing.T) {
	f := newFakeNode()
	f.slowReads = true
	r := orb8(t, serveHandler(t, f), "why", "train-0")
	require.Zero(t, r.code, r.stderr)
	assert.Contains(t, r.stdout, "verdict      syscalls: ")
	assert.Contains(t, r.stdout, "read: 27,000 calls, 810 s, 30ms each")
	assert.Contains(t, r.stdout, "of files on a slow disk, or of a pipe")
}

// Who launches kernels is watched, though it may never wait for them.
func TestWhyKnowsThatNobodySynchronised(t *testing.T) {
	f := newFakeNode()
	f.series[3].Metric = metricLaunches
	r := orb8(t, serveHandler(t, f), "why", "train-0", "-o", "json")
	require.Zero(t, r.code, r.stderr)
	var got jsonWhy
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &got))
	require.NotNil(t, got.Synchronising)
	assert.Zero(t, *got.Synchronising)
	assert.Empty(t, got.Missing)
}

// On a shared card it is the pod's own processes that count, and where the driver tells nothing of them they did nothing.
func TestWhyOfASharedCard(t *testing.T) {
	f := newFakeNode()
	f.series = nil
	f.add(job("train-0"), gpu.MetricAllocation, "", 1)
	f.add(job("train-0"), gpu.MetricProcessUtilization, "gpu.engine=sm", 0.6)
	processes := f.series[1]
	processes.Points = processes.Points[:len(processes.Points)/2]
	r := orb8(t, serveHandler(t, f), "why", "train-0", "--since", "15m", "--until", "1m", "-o", "json")
	require.Zero(t, r.code, r.stderr)
	var got jsonWhy
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &got))
	assert.InDelta(t, 1, got.Known, 1e-9)
	assert.InDelta(t, 0.3, got.Utilization, 0.05)
}

func TestWhyUsage(t *testing.T) {
	agent := serveHandler(t, newFakeNode())
	for want, args := range map[string][]string{
		"name the pod: orb8 why POD":    {},
		"name one pod, not":             {"a", "b"},
		`"a/" is no name`:               {"a/"},
		"--until must be the later one": {"train-0", "--since", "1m", "--until", "2m"},
		"the range is shorter than 10s": {"train-0", "--since", "3s"},
		"use table or json":             {"train-0", "-o", "csv"},
	} {
		r := orb8(t, agent, append([]string{"why"}, args...)...)
		assert.Equal(t, 2, r.code, "%v", args)
		assert.Contains(t, r.stderr, want)
	}

	f := newFakeNode()
	f.add(job("tune-0"), gpu.MetricAllocation, "", 1)
	r := orb8(t, serveHandler(t, f), "why", "train")
	assert.Equal(t, 2, r.code)
	assert.Contains(t, r.stderr, "several have this name: ml/train-0 or ml/tune-0; name one")
}

func TestWhyCompletesPodsWithGPUs(t *testing.T) {
	r := orb8(t, serveHandler(t, newFakeNode()), cobra.ShellCompNoDescRequestCmd, "why", "")
	require.Zero(t, r.code, r.stderr)
	assert.Contains(t, r.stdout, "ml/train-0\ntrain-0\n")
}
