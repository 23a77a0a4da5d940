package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/gpu"
)

// fakeGPUs is a collector that answers as gpu does.
type fakeGPUs struct {
	orb8v1connect.UnimplementedOrbitServiceHandler

	gpu      func(*orb8v1.QueryGpuRequest) *orb8v1.QueryGpuResponse
	askedGPU []*orb8v1.QueryGpuRequest
	nodes    []*orb8v1.NodeStatus
}

func (f *fakeGPUs) GetStatus(context.Context, *connect.Request[orb8v1.GetStatusRequest]) (*connect.Response[orb8v1.GetStatusResponse], error) {
	return connect.NewResponse(&orb8v1.GetStatusResponse{Nodes: f.nodes}), nil
}

func (f *fakeGPUs) QueryGpu(_ context.Context, req *connect.Request[orb8v1.QueryGpuRequest]) (*connect.Response[orb8v1.QueryGpuResponse], error) {
	f.askedGPU = append(f.askedGPU, req.Msg)
	return connect.NewResponse(f.gpu(req.Msg)), nil
}

func (f *fakeGPUs) serve(t *testing.T) string {
	t.Helper()
	return serveHandler(t, f)
}

func card(index uint32) *orb8v1.GpuDevice {
	return &orb8v1.GpuDevice{
		Id: fmt.Sprintf("GPU-5a1b2c3%d-0000-4000-8000-000000000000", index), Index: index, Model: "NVIDIA H100 80GB HBM3",
		PciAddress: fmt.Sprintf("00000000:%02d:00.0", 10+index),
	}
}

func instance(of *orb8v1.GpuDevice, n int, profile string) *orb8v1.GpuDevice {
	d := proto.CloneOf(of)
	d.Parent, d.Id, d.MigProfile = d.Id, fmt.Sprintf("MIG-%08d-0000-4000-8000-000000000000", n), profile
	return d
}

func job(pod string) *orb8v1.Container {
	return &orb8v1.Container{Namespace: "ml", Pod: pod, Name: "main", Id: strings.Repeat("c0ffee", 10) + "1234"}
}

// gpuSeries returns a series of two samples; attribute is k=v or empty.
func gpuSeries(node string, d *orb8v1.GpuDevice, c *orb8v1.Container, metric, attribute string, mean, last float64) *orb8v1.GpuSeries {
	s := &orb8v1.GpuSeries{
		Node: node, Device: d, Container: c, Metric: metric, Counter: metric == gpu.MetricEnergy || metric == gpu.MetricXIDErrors,
		Points: []*orb8v1.GpuPoint{{Start: ago(time.Minute), Value: mean, Last: last, Samples: 2}},
	}
	if k, v, ok := strings.Cut(attribute, "="); ok {
		s.Attributes = map[string]string{k: v}
	}
	return s
}

const gib = 1 << 30

// cannedGPUs are a card that two pods share, one that a pod has for itself, one that is nobody's, and one in two MIG instances of
// another node.
func cannedGPUs() []*orb8v1.GpuSeries {
	one, other, idle := card(0), card(1), card(2)
	train, infer, tune := job("train-0"), job("infer-6c9f8b7d5-x2x9k"), job("tune-0")
	var all []*orb8v1.GpuSeries
	add := func(node string, d *orb8v1.GpuDevice, c *orb8v1.Container, metric, attribute string, mean, last float64) {
		all = append(all, gpuSeries(node, d, c, metric, attribute, mean, last))
	}
	device := func(node string, d *orb8v1.GpuDevice, c *orb8v1.Container, utilization, memory, limit float64) {
		add(node, d, c, gpu.MetricUtilization, "hw.gpu.task=general", utilization, 0)
		add(node, d, c, gpu.MetricUtilization, "hw.gpu.task=encoder", 0.99, 0.99)
		add(node, d, c, gpu.MetricMemoryUsage, "", memory/2, memory)
		add(node, d, c, gpu.MetricMemoryLimit, "", limit, limit)
		add(node, d, c, gpu.MetricPower, "", 123.4+500*utilization, 99)
		add(node, d, c, gpu.MetricPowerLimit, "", 700, 700)
		add(node, d, c, gpu.MetricEnergy, "", 1000, 0)
		add(node, d, c, gpu.MetricTemperature, "hw.sensor_location=gpu", 1, 60+10*utilization)
		add(node, d, c, gpu.MetricTemperature, "hw.sensor_location=memory", 1, 99)
	}
	device("worker-1", one, nil, 0.63, 41.2*gib, 80*gib)
	for i, c := range []*orb8v1.Container{train, infer} {
		add("worker-1", one, c, gpu.MetricAllocation, "resource=nvidia.com/gpu", 1, 1)
		add("worker-1", one, c, gpu.MetricProcessMemory, "", 0, []float64{30, 11}[i]*gib)
	}
	add("worker-1", one, train, gpu.MetricProcessUtilization, "gpu.engine=sm", 0.5, 0)
	add("worker-1", one, train, gpu.MetricProcessUtilization, "gpu.engine=mem", 0.9, 0)
	device("worker-1", other, tune, 0.98, 79*gib, 80*gib)
	add("worker-1", other, tune, gpu.MetricAllocation, "", 1, 1)
	device("worker-1", idle, nil, 0, 0, 80*gib)
	split := card(0)
	split.Id = "GPU-7d8e9f00-0000-4000-8000-000000000000"
	device("worker-2", split, nil, 0.5, 20*gib, 80*gib)
	small, large := instance(split, 7, "1g.10gb"), instance(split, 3, "3g.40gb")
	add("worker-2", small, infer, gpu.MetricAllocation, "", 1, 1)
	add("worker-2", small, infer, gpu.MetricSMActivity, "", 0.25, 0.5)
	add("worker-2", small, infer, gpu.MetricMemoryUsage, "", 0, gib)
	add("worker-2", small, infer, gpu.MetricMemoryLimit, "", 0, 9.75*gib)
	add("worker-2", large, nil, gpu.MetricMemoryLimit, "", 0, 39.5*gib)
	return all
}

func gpuReply(series []*orb8v1.GpuSeries) func(*orb8v1.QueryGpuRequest) *orb8v1.QueryGpuResponse {
	return func(*orb8v1.QueryGpuRequest) *orb8v1.QueryGpuResponse {
		return &orb8v1.QueryGpuResponse{Series: series, Matched: uint64(len(series)), Lost: &orb8v1.Loss{}, Oldest: ago(time.Hour)}
	}
}

func TestGoldenGPU(t *testing.T) {
	failing := append(cannedGPUs(), gpuSeries("worker-1", card(1), job("tune-0"), gpu.MetricXIDErrors, "gpu.xid.code=79", 2, 0))
	var lone []*orb8v1.GpuSeries
	for _, s := range failing {
		if s.GetNode() == "worker-1" {
			lone = append(lone, s)
		}
	}
	for golden, tt := range map[string]struct {
		series []*orb8v1.GpuSeries
		format string
	}{
		"gpu.txt":      {cannedGPUs(), "table"},
		"gpu_node.txt": {lone, "table"},
		"gpu_wide.txt": {failing, "wide"},
		"gpu.json":     {cannedGPUs(), "json"},
		"gpu.jsonl":    {failing, "jsonl"},
		"gpu.csv":      {failing, "csv"},
	} {
		t.Run(golden, func(t *testing.T) {
			collector := &fakeGPUs{gpu: gpuReply(tt.series)}
			got := orb8(t, collector.serve(t), "gpu", "-o", tt.format)
			require.Zero(t, got.code, got.stderr)
			assert.Empty(t, got.stderr)
			assertGolden(t, golden, got.stdout)
			if tt.format == "table" {
				for line := range strings.Lines(got.stdout) {
					assert.LessOrEqual(t, len([]rune(strings.TrimSuffix(line, "\n"))), 80)
				}
			}
			assert.Len(t, collector.askedGPU, 1)
		})
	}
}

func TestGPUAsks(t *testing.T) {
	metrics := append(deviceMetrics(), containerMetrics()...)
	for args, want := range map[string]*orb8v1.QueryGpuRequest{
		"":           {Since: ago(2 * time.Minute), Allow: []*orb8v1.GpuFilter{{Metrics: metrics}}},
		"--until 1m": {Until: ago(time.Minute), Allow: []*orb8v1.GpuFilter{{Metrics: metrics}}},
		"--since 1h --node a,b --device GPU-1 --not --device MIG-2 --not --pod ml/x": {
			Since: ago(time.Hour), Allow: []*orb8v1.GpuFilter{{Nodes: []string{"a", "b"}, Devices: []string{"GPU-1"}, Metrics: metrics}},
			Deny: []*orb8v1.GpuFilter{{Devices: []string{"MIG-2"}}, {Pods: []string{"ml/x"}}},
		},
	} {
		t.Run(args, func(t *testing.T) {
			collector := &fakeGPUs{gpu: gpuReply(cannedGPUs())}
			got := orb8(t, collector.serve(t), append([]string{"gpu"}, strings.Fields(args)...)...)
			require.Zero(t, got.code, got.stderr)
			require.Len(t, collector.askedGPU, 1)
			assert.True(t, proto.Equal(want, collector.askedGPU[0]), "want %v, got %v", want, collector.askedGPU[0])
		})
	}
}

// Whoever asks for a pod wants to see the card that it shares, and not the pods that it shares it with.
func TestGPUOfAPodShowsTheDevice(t *testing.T) {
	collector := &fakeGPUs{}
	collector.gpu = func(req *orb8v1.QueryGpuRequest) *orb8v1.QueryGpuResponse {
		var series []*orb8v1.GpuSeries
		for _, s := range cannedGPUs() {
			if filter := req.GetAllow()[0]; len(filter.GetPods()) > 0 && s.GetContainer().GetPod() == "train-0" ||
				len(filter.GetPods()) == 0 && s.GetDevice().GetId() == filter.GetDevices()[0] {
				series = append(series, s)
			}
		}
		return gpuReply(series)(req)
	}
	got := orb8(t, collector.serve(t), "gpu", "--pod", "ml/train-0", "--namespace", "ml", "--container", "main", "--not", "--node", "worker-9")
	require.Zero(t, got.code, got.stderr)
	assert.Equal(t, `GPU  DEVICE / POD           UTIL    MEMORY      OF  POWER   TEMP
  0  NVIDIA H100 80GB HBM3  63 %  41.2 GiB  80 GiB  438 W  66 °C
  0    ml/train-0/main      50 %    30 GiB       -      -      -
`, got.stdout)
	require.Len(t, collector.askedGPU, 2)
	assert.Equal(t, []string{"ml"}, collector.askedGPU[0].GetAllow()[0].GetNamespaces())
	want := &orb8v1.QueryGpuRequest{
		Since: ago(2 * time.Minute), Allow: []*orb8v1.GpuFilter{{Devices: []string{card(0).GetId()}, Metrics: append(deviceMetrics(), gpu.MetricAllocation)}},
	}
	assert.True(t, proto.Equal(want, collector.askedGPU[1]), "got %v", collector.askedGPU[1])
}

// Who uses a card that was given to another pod is named, whichever pod was asked for.
func TestGPUThatAnotherPodUses(t *testing.T) {
	guest, twin := job("infer-0"), job("train-0")
	twin.Name, guest.Id = "side", strings.Repeat("beef", 16)
	host := &orb8v1.Container{Unit: "display-manager.service", Cgroup: "/system.slice/display-manager.service"}
	nameless := &orb8v1.Container{PodUid: "0b8f6f43-5d43-4cbb-8b5f-2f2f6d1d1c11", Id: strings.Repeat("a", 64)}
	allocation := gpuSeries("worker-1", card(0), job("train-0"), gpu.MetricAllocation, "gpu.allocation.resource=nvidia.com/gpu", 1, 1)
	series := []*orb8v1.GpuSeries{allocation}
	for _, c := range []*orb8v1.Container{job("train-0"), twin, guest, host, nameless} {
		series = append(series, gpuSeries("worker-1", card(0), c, gpu.MetricProcessMemory, "", gib, gib))
	}
	want := "orb8: GPU 0 of worker-1 was given to ml/train-0, and %s uses it too\n"
	t.Run("all", func(t *testing.T) {
		got := orb8(t, (&fakeGPUs{gpu: gpuReply(series)}).serve(t), "gpu", "-o", "json")
		assert.Contains(t, got.stderr, fmt.Sprintf(want, "display-manager.service")+fmt.Sprintf(want, "ml/infer-0/main"))
		assert.Equal(t, 2, strings.Count(got.stderr, "was given to"), got.stderr)
		var rows []jsonGPU
		require.NoError(t, json.Unmarshal([]byte(got.stdout), &rows))
		to := map[string]string{}
		for _, r := range rows {
			to[r.Pod+r.Container+r.Unit] = r.GivenTo
		}
		assert.Equal(t, map[string]string{"": "", "train-0main": "", "train-0side": "", "infer-0main": "ml/train-0", "display-manager.service": "ml/train-0"}, to)
	})
	t.Run("the guest", func(t *testing.T) {
		collector := &fakeGPUs{}
		collector.gpu = func(req *orb8v1.QueryGpuRequest) *orb8v1.QueryGpuResponse {
			if len(req.GetAllow()[0].GetPods()) > 0 {
				return gpuReply(series[3:4])(req)
			}
			return gpuReply(series)(req)
		}
		got := orb8(t, collector.serve(t), "gpu", "--pod", "infer-0")
		assert.Contains(t, got.stderr, fmt.Sprintf(want, "ml/infer-0/main"))
		assert.NotContains(t, got.stdout, "train-0")
	})
	t.Run("a share", func(t *testing.T) {
		part := proto.CloneOf(allocation)
		part.Attributes = map[string]string{gpu.AttrReplica: "0"}
		got := orb8(t, (&fakeGPUs{gpu: gpuReply(append([]*orb8v1.GpuSeries{part}, series[1:]...))}).serve(t), "gpu")
		assert.NotContains(t, got.stderr, "was given to")
	})
	t.Run("many", func(t *testing.T) {
		many := series[:1:1]
		for i := range 5 {
			c := job(fmt.Sprint("guest-", i))
			many = append(many, gpuSeries("worker-1", card(0), c, gpu.MetricProcessMemory, "", gib, gib))
		}
		got := orb8(t, (&fakeGPUs{gpu: gpuReply(many)}).serve(t), "gpu")
		assert.Contains(t, got.stderr, "orb8: 2 more use GPUs that were given to others: -o json has them as givenTo\n")
	})
}

// A device that one container had after the other has series of both: its line is of all the time.
func TestGPUThatChangedHands(t *testing.T) {
	first, second := gpuSeries("worker-1", card(0), job("a"), gpu.MetricUtilization, "", 0.2, 0), gpuSeries("worker-1", card(0), job("b"), gpu.MetricUtilization, "", 0.8, 0)
	first.Points[0].Samples, second.Points[0].Samples = 3, 1
	early, late := gpuSeries("worker-1", card(0), job("a"), gpu.MetricMemoryUsage, "", 0, 1*gib), gpuSeries("worker-1", card(0), job("b"), gpu.MetricMemoryUsage, "", 0, 2*gib)
	early.Points[0].Start = ago(time.Hour)
	energy, more := gpuSeries("worker-1", card(0), job("a"), gpu.MetricEnergy, "", 100, 0), gpuSeries("worker-1", card(0), job("b"), gpu.MetricEnergy, "", 50, 0)
	got := orb8(t, (&fakeGPUs{gpu: gpuReply([]*orb8v1.GpuSeries{energy, more, first, second, late, early})}).serve(t), "gpu", "-o", "json")
	var rows []jsonGPU
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &rows))
	require.Len(t, rows, 3)
	assert.InDelta(t, 0.35, *rows[0].Utilization, 1e-9)
	assert.EqualValues(t, 2*gib, *rows[0].Memory, "the newest")
	assert.EqualValues(t, 150, *rows[0].Energy)
	assert.Equal(t, "a", rows[1].Pod)
	assert.InDelta(t, 0.2, *rows[1].Utilization, 1e-9)
	assert.EqualValues(t, 50, *rows[2].Energy)
}

func TestGPUSaysWhyThereIsNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		ever []*orb8v1.GpuSeries
		want string
	}{
		"never":    {nil, nil, "no GPU has reported, and no gpu receiver either: put it into a metrics and a logs pipeline"},
		"not now":  {nil, cannedGPUs()[:1], "no GPU has reported in this range, but some have in another: ask with --since 1h, or further back"},
		"not this": {[]string{"--pod", "x"}, cannedGPUs()[:1], "no GPU matches"},
	} {
		t.Run(name, func(t *testing.T) {
			collector := &fakeGPUs{gpu: func(req *orb8v1.QueryGpuRequest) *orb8v1.QueryGpuResponse {
				if req.GetSince() == nil {
					return gpuReply(tt.ever)(req)
				}
				return gpuReply(nil)(req)
			}}
			got := orb8(t, collector.serve(t), append([]string{"gpu"}, tt.args...)...)
			assert.Zero(t, got.code)
			assert.Empty(t, got.stdout)
			assert.Contains(t, got.stderr, tt.want)
		})
	}
	collector := &fakeGPUs{gpu: gpuReply(nil)}
	assert.Equal(t, "[]\n", orb8(t, collector.serve(t), "gpu", "-o", "json").stdout)
}

func TestNoGPUIsExplainedByTheSourcesOfTheNodes(t *testing.T) {
	node := func(name string, s *orb8v1.GpuStatus) *orb8v1.NodeStatus {
		return &orb8v1.NodeStatus{Node: name, Gpu: s}
	}
	none := &orb8v1.GpuStatus{Sources: []*orb8v1.GpuSource{
		{Name: "nvml", State: "absent", Reason: "cannot find libnvidia-ml.so.1"}, {Name: "pod_resources", State: "up"},
	}}
	for name, tt := range map[string]struct {
		nodes []*orb8v1.NodeStatus
		want  string
	}{
		"a node without": {[]*orb8v1.NodeStatus{node("gateway", nil), node("worker-1", none)}, `orb8: no GPU has reported; what the nodes' gpu receivers say of their sources:
orb8: worker-1: nvml absent: cannot find libnvidia-ml.so.1
orb8: worker-1: pod_resources up
`},
		"many": {[]*orb8v1.NodeStatus{node("a", none), node("b", none), node("c", none), node("d", none), node("e", none)}, "orb8: c: pod_resources up\norb8: 2 more nodes: see orb8 status\n"},
		"no metrics": {[]*orb8v1.NodeStatus{node("a", &orb8v1.GpuStatus{Models: []*orb8v1.GpuModel{{Gpus: 8}}})},
			"orb8: no GPU has reported, but 1 node with a gpu receiver said that there are some: lead its metrics to orb8_store, as the pipeline metrics/gpu of distribution/config does\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := orb8(t, (&fakeGPUs{gpu: gpuReply(nil), nodes: tt.nodes}).serve(t), "gpu")
			assert.Zero(t, got.code)
			assert.Empty(t, got.stdout)
			assert.True(t, strings.HasSuffix(got.stderr, tt.want), got.stderr)
		})
	}
}

func TestGPUSaysWhatIsMissing(t *testing.T) {
	collector := &fakeGPUs{gpu: func(req *orb8v1.QueryGpuRequest) *orb8v1.QueryGpuResponse {
		reply := gpuReply(cannedGPUs())(req)
		reply.Matched, reply.Truncated, reply.MissingNodes, reply.Lost.EvictedRecords = 12345, true, []string{"worker-9"}, 7
		return reply
	}}
	got := orb8(t, collector.serve(t), "gpu", "--since", "2h")
	for _, want := range []string{
		"of 12,345 series shown; the collector gives no more at once, so narrow the filters", "no report from worker-9: their GPUs are missing",
		"the store was full and dropped 7 records of this range early", "the store begins at",
	} {
		assert.Contains(t, got.stderr, want)
	}
}

func TestGPURefuses(t *testing.T) {
	for args, says := range map[string]string{
		"gpu --since 1m --until 5m": "is not before --until",
		"gpu --not":                 "--not denies the filter that follows it",
		"gpu --device ,":            "a name must not be empty",
		"gpu 0":                     `"orb8 gpu" takes no argument, not "0"`,
		"gpu -o yaml":               "use table, wide, json, jsonl or csv",
	} {
		t.Run(args, func(t *testing.T) {
			got := orb8(t, "127.0.0.1:1", strings.Fields(args)...)
			assert.Equal(t, exitUsage, got.code)
			assert.Contains(t, got.stderr, says)
		})
	}
}

func TestGPUCompletion(t *testing.T) {
	collector := &fakeGPUs{gpu: gpuReply(cannedGPUs())}
	agent := collector.serve(t)
	for typed, want := range map[string][]string{
		"--device GPU-5":         {card(0).GetId(), card(1).GetId(), card(2).GetId()},
		"--device MIG-7,MIG-":    {"MIG-7,MIG-00000003-0000-4000-8000-000000000000", "MIG-7,MIG-00000007-0000-4000-8000-000000000000"},
		"--pod ml/t":             {"ml/train-0", "ml/tune-0"},
		"--pod in":               {"infer-6c9f8b7d5-x2x9k"},
		"--namespace m":          {"ml"},
		"--not --container mai":  {"main"},
		"--pod train-0 --pod tu": {"tune-0"},
	} {
		t.Run(typed, func(t *testing.T) {
			got := orb8(t, agent, append([]string{"__complete", "gpu"}, strings.Fields(typed)...)...)
			require.Zero(t, got.code, got.stderr)
			lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
			assert.Equal(t, want, lines[:len(lines)-1])
		})
	}
	down := orb8(t, "127.0.0.1:1", "__complete", "gpu", "--device", "")
	assert.Zero(t, down.code)
	assert.Equal(t, ":4\n", down.stdout)
}
