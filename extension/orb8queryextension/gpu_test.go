package orb8queryextension

import (
	"context"
	"errors"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/storage"
)

func TestQueryGpu(t *testing.T) {
	store, component := newStore(t)
	client := serve(t, component, func(c *Config) { c.MaxRows, c.MaxGroups = 2, 3 }).client(t)
	now := time.Now().UTC().Truncate(time.Second)
	train := flow.Identity{Pod: "train-0", Namespace: "ml", Container: "main"}
	var samples []gpu.Sample
	for _, id := range []string{"GPU-0", "GPU-1", "GPU-2"} {
		s := gpu.Sample{Series: gpu.Series{Node: "node-a", Device: gpu.Device{ID: id}, Metric: "hw.power", Unit: "W"}, Time: now.Add(-time.Second), Value: 300}
		samples = append(samples, s)
	}
	allocation := samples[1]
	allocation.Metric, allocation.Identity, allocation.Value = gpu.MetricAllocation, train, 1
	require.NoError(t, store.WriteGPU(t.Context(), append(samples, allocation)))

	ask := func(req *orb8v1.QueryGpuRequest) *orb8v1.QueryGpuResponse {
		t.Helper()
		reply, err := client.QueryGpu(t.Context(), connect.NewRequest(req))
		require.NoError(t, err)
		return reply.Msg
	}
	power := &orb8v1.GpuFilter{Metrics: []string{"hw.power"}}
	all := ask(&orb8v1.QueryGpuRequest{Allow: []*orb8v1.GpuFilter{power}})
	assert.Len(t, all.GetSeries(), 2, "no more than max_rows")
	assert.EqualValues(t, 3, all.GetMatched())
	assert.True(t, all.GetTruncated())
	assert.NotNil(t, all.GetOldest())
	pod := ask(&orb8v1.QueryGpuRequest{Allow: []*orb8v1.GpuFilter{{Pods: []string{"ml/train-0"}}}, Deny: []*orb8v1.GpuFilter{{Metrics: []string{gpu.MetricAllocation}}}})
	require.Len(t, pod.GetSeries(), 1)
	assert.Equal(t, "GPU-1", pod.GetSeries()[0].GetDevice().GetId())
	assert.Equal(t, "train-0", pod.GetSeries()[0].GetContainer().GetPod())
	assert.False(t, pod.GetTruncated())

	_, err := client.QueryGpu(t.Context(), connect.NewRequest(&orb8v1.QueryGpuRequest{}))
	assert.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err))
	assert.ErrorContains(t, err, "the answer has more than 3 points; ask for a longer step, a shorter range or fewer series, or raise max_groups")
	_, err = client.QueryGpu(t.Context(), connect.NewRequest(&orb8v1.QueryGpuRequest{Step: durationpb.New(time.Millisecond)}))
	assert.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))
}

func TestParseGPUQuery(t *testing.T) {
	got, err := parseGPUQuery(&orb8v1.QueryGpuRequest{
		Since: timestamppb.New(time.Unix(1, 0)), Until: timestamppb.New(time.Unix(2, 0)), Limit: 50, Step: durationpb.New(time.Minute),
		Allow: []*orb8v1.GpuFilter{{
			Pods: []string{"ml/train-0"}, Namespaces: []string{"ml"}, Containers: []string{"c0ffee"}, Nodes: []string{"node-a"},
			Devices: []string{"GPU-0"}, Metrics: []string{"hw.power"},
		}, {}},
		Deny: []*orb8v1.GpuFilter{{Devices: []string{"MIG-"}}},
	}, limits{rows: 10, groups: 20})
	require.NoError(t, err)
	assert.Equal(t, storage.GPUQuery{
		Since: time.Unix(1, 0).UTC(), Until: time.Unix(2, 0).UTC(), Limit: 10, Step: time.Minute, MaxPoints: 20,
		Selection: storage.GPUSelection{
			Allow: []storage.GPUFilter{{
				Pods: []string{"ml/train-0"}, Namespaces: []string{"ml"}, Containers: []string{"c0ffee"}, Nodes: []string{"node-a"},
				Devices: []string{"GPU-0"}, Metrics: []string{"hw.power"},
			}, {}},
			Deny: []storage.GPUFilter{{Devices: []string{"MIG-"}}},
		},
	}, got)
	whole, err := parseGPUQuery(&orb8v1.QueryGpuRequest{}, limits{rows: 10})
	require.NoError(t, err)
	assert.Equal(t, storage.GPUQuery{Limit: 10}, whole)
}

func TestParseGPUQueriesRefuse(t *testing.T) {
	deny := func(f ...*orb8v1.GpuFilter) *orb8v1.QueryGpuRequest { return &orb8v1.QueryGpuRequest{Deny: f} }
	for want, req := range map[string]*orb8v1.QueryGpuRequest{
		"since: 1970-01-01T00:00:02Z is not before until":                        {Since: timestamppb.New(time.Unix(2, 0)), Until: timestamppb.New(time.Unix(1, 0))},
		"step: 999ms is too short; use 1s or more":                               {Step: durationpb.New(999 * time.Millisecond)},
		"step: 0s is too short; use 1s or more":                                  {Step: &durationpb.Duration{}},
		"step: -1s is too short":                                                 {Step: durationpb.New(-time.Second)},
		"step: 1s is too short":                                                  {Step: &durationpb.Duration{Seconds: 2, Nanos: -1e9}},
		"deny[1]: devices[0]: must not be empty":                                 deny(&orb8v1.GpuFilter{}, &orb8v1.GpuFilter{Devices: []string{""}}),
		"deny[0]: metrics[1]: must not be empty":                                 deny(&orb8v1.GpuFilter{Metrics: []string{"a", ""}}),
		`deny[0]: pods[0]: "a/" is not a pod`:                                    deny(&orb8v1.GpuFilter{Pods: []string{"a/"}}),
		"deny[0]: nodes[0]: must not be empty":                                   deny(&orb8v1.GpuFilter{Nodes: []string{""}}),
		"deny[0]: namespaces[0]: must not be empty":                              deny(&orb8v1.GpuFilter{Namespaces: []string{""}}),
		"deny[0]: containers[0]: must not be empty":                              deny(&orb8v1.GpuFilter{Containers: []string{""}}),
		"allow and deny: 1025 filters and values are too many; use at most 1024": deny(&orb8v1.GpuFilter{Devices: make([]string, maxFilterValues)}),
	} {
		_, err := parseGPUQuery(req, limits{rows: 10})
		assert.ErrorContains(t, err, want)
	}
}

func TestGPUMessages(t *testing.T) {
	at := func(second int64) time.Time { return time.Unix(second, 0) }
	level := storage.GPUSeries{
		Series: gpu.Series{
			Node: "node-a", Metric: "gpu.process.utilization", Unit: "1", Attributes: `a\,b=c\=d,gpu.engine=sm`,
			Device:   gpu.Device{ID: "MIG-0", Parent: "GPU-0", Index: 3, Model: "NVIDIA H100", PCIAddress: "00000000:17:00.0", MIGProfile: "1g.10gb"},
			Identity: flow.Identity{Pod: "train-0", Namespace: "ml", Container: "main"},
		},
		Points: []storage.GPUPoint{{Start: at(1), Value: 0.5, Min: 0.25, Max: 1, Last: 0.75, Samples: 4}},
	}
	assert.JSONEq(t, `{"node": "node-a", "device": {"id": "MIG-0", "parent": "GPU-0", "index": 3, "model": "NVIDIA H100",
		"pciAddress": "00000000:17:00.0", "migProfile": "1g.10gb"}, "container": {"name": "main", "pod": "train-0", "namespace": "ml"},
		"metric": "gpu.process.utilization", "unit": "1", "attributes": {"a,b": "c=d", "gpu.engine": "sm"},
		"points": [{"start": "1970-01-01T00:00:01Z", "value": 0.5, "min": 0.25, "max": 1, "last": 0.75, "samples": 4}]}`,
		protojson.Format(gpuSeriesMessage(&level)))
	nothing := storage.GPUSeries{Series: gpu.Series{Node: "node-a", Metric: "gpu.cuda.kernel.launch.calls", Unit: "{call}", Counter: true}}
	assert.JSONEq(t, `{"node": "node-a", "metric": "gpu.cuda.kernel.launch.calls", "unit": "{call}", "counter": true}`,
		protojson.Format(gpuSeriesMessage(&nothing)), "nobody and nowhere are left out")
}

func TestAGPUQueryOfABrokenStoreFails(t *testing.T) {
	s := &service{store: &stub{query: func(context.Context) error { return errors.New("broken") }}, queryTimeout: time.Second}
	_, err := s.QueryGpu(t.Context(), connect.NewRequest(&orb8v1.QueryGpuRequest{}))
	assert.Equal(t, connect.CodeInternal, connect.CodeOf(err))
}

func TestGPUStatusMessage(t *testing.T) {
	got := nodeMessage(&storage.NodeStatus{Node: "node-a", GPU: &gpu.Status{
		Interval: 10 * time.Second, Models: map[string]uint32{"Tesla T4": 2, "": 1}, Instances: 7,
		Sources:   []gpu.SourceStatus{{Name: "nvml", State: gpu.SourceUp, ScrapeTime: time.Millisecond}, {Name: "dcgm", State: gpu.SourceFailed, Reason: "why"}},
		Conflicts: []gpu.Conflict{{Device: "GPU-0", Kind: "owner", About: "container", First: "a", Other: "b", Since: time.Unix(0, 0)}},
		Scrapes:   9, FailedScrapes: 2, ScrapeTime: time.Second, LostEvents: 3,
	}})
	assert.JSONEq(t, `{"interval": "10s", "models": [{"gpus": 1}, {"model": "Tesla T4", "gpus": 2}], "migInstances": 7,
		"sources": [{"name": "nvml", "state": "up", "scrapeTime": "0.001s"}, {"name": "dcgm", "state": "failed", "reason": "why"}],
		"conflicts": [{"device": "GPU-0", "kind": "owner", "about": "container", "first": "a", "other": "b", "since": "1970-01-01T00:00:00Z"}],
		"scrapes": "9", "failedScrapes": "2", "scrapeTime": "1s", "lostEvents": "3"}`, protojson.Format(got.GetGpu()))
	assert.Nil(t, nodeMessage(&storage.NodeStatus{}).GetGpu())
}
