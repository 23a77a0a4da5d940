//go:build linux

package testbed

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/internal/collector"
)

// withoutKubernetes makes the gateway's configuration one of a host: nobody tells names of pods.
const withoutKubernetes = `
service:
  pipelines:
    logs:
      processors: [memory_limiter]
  telemetry:
    logs:
      level: info
`

// gpuNode is a node whose scrapes of GPUs the test makes up, 10 s apart, the last of them now.
type gpuNode struct {
	t    *testing.T
	name string
	// scrapes is how many there are.
	scrapes int
	last    time.Time
	metrics pmetric.Metrics
}

func newGPUNode(t *testing.T, name string, scrapes int) *gpuNode {
	return &gpuNode{t: t, name: name, scrapes: scrapes, last: time.Now(), metrics: pmetric.NewMetrics()}
}

func (n *gpuNode) at(scrape int) pcommon.Timestamp {
	return pcommon.NewTimestampFromTime(n.last.Add(time.Duration(scrape-n.scrapes+1) * 10 * time.Second))
}

// device are the attributes of a GPU, or of a MIG instance where it has a parent.
func device(id, parent, profile string, index int) map[string]any {
	a := map[string]any{"hw.id": id, "hw.type": "gpu", "hw.model": "NVIDIA H100 80GB HBM3", "hw.vendor": "NVIDIA", "gpu.index": index, "gpu.pci.bdf": "00000000:17:00.0"}
	if parent != "" {
		a["hw.parent"], a["gpu.mig.profile"] = parent, profile
	}
	return a
}

// add adds a metric of a pod, or of the node where that is empty: value says what a scrape finds. Counters are those in joules and
// calls; begin is the scrape before which a counter began.
func (n *gpuNode) add(pod, metric, unit string, of map[string]any, begin int, value func(scrape int) float64) {
	rm := n.metrics.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("k8s.node.name", n.name)
	if pod != "" {
		rm.Resource().Attributes().PutStr("k8s.namespace.name", "ml")
		rm.Resource().Attributes().PutStr("k8s.pod.name", pod)
		rm.Resource().Attributes().PutStr("k8s.container.name", "main")
	}
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName(metric)
	m.SetUnit(unit)
	var points pmetric.NumberDataPointSlice
	if unit == "J" || unit == "{call}" {
		sum := m.SetEmptySum()
		sum.SetIsMonotonic(true)
		sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		points = sum.DataPoints()
	} else {
		points = m.SetEmptyGauge().DataPoints()
	}
	for scrape := range n.scrapes {
		p := points.AppendEmpty()
		p.SetTimestamp(n.at(scrape))
		p.SetDoubleValue(value(scrape))
		if begin > 0 {
			p.SetStartTimestamp(n.at(0) - 1)
			if scrape >= begin {
				p.SetStartTimestamp(n.at(begin) - 1)
			}
		}
		require.NoError(n.t, p.Attributes().FromRaw(of))
	}
}

// send sends all of it, as an agent does.
func (n *gpuNode) send(endpoint string) {
	n.t.Helper()
	body, err := pmetricotlp.NewExportRequestFromMetrics(n.metrics).MarshalProto()
	require.NoError(n.t, err)
	resp, err := http.Post("http://"+endpoint+"/v1/metrics", "application/x-protobuf", bytes.NewReader(body))
	require.NoError(n.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(n.t, err)
	require.Equal(n.t, http.StatusOK, resp.StatusCode, "%s", text)
}

func always(value float64) func(int) float64 { return func(int) float64 { return value } }

const gib = 1 << 30

// sharedCard is a card that two pods share by time-slicing, and a counter of one of them that begins anew.
func sharedCard(t *testing.T) *gpuNode {
	n := newGPUNode(t, "node-a", 5)
	card := device("GPU-a0000000-0000-4000-8000-000000000000", "", "", 0)
	n.add("", "hw.gpu.utilization", "1", card, 0, func(scrape int) float64 { return 0.5 + 0.1*float64(scrape) })
	n.add("", "hw.gpu.memory.usage", "By", card, 0, always(60*gib))
	n.add("", "hw.gpu.memory.limit", "By", card, 0, always(80*gib))
	n.add("", "hw.power", "W", card, 0, always(500))
	n.add("", "hw.temperature", "Cel", card, 0, always(61))
	// Since the driver was loaded: 500 W for 40 s.
	n.add("", "hw.energy", "J", card, 0, func(scrape int) float64 { return 1e9 + 5000*float64(scrape) })
	for pod, memory := range map[string]float64{"train-0": 40, "infer-0": 19} {
		n.add(pod, "gpu.allocation", "1", card, 0, always(1))
		n.add(pod, "gpu.process.memory.usage", "By", card, 0, always(memory*gib))
	}
	// 1000 calls until each scrape; the process was started again before the fourth.
	n.add("train-0", "gpu.cuda.kernel.launch.calls", "{call}", nil, 3, func(scrape int) float64 { return float64(1000 * (scrape%3 + 1)) })
	// What is of no GPU is nothing to the store.
	n.add("", "system.cpu.time", "s", nil, 0, always(7))
	return n
}

// splitCard is a card in seven MIG instances, each with a pod.
func splitCard(t *testing.T) *gpuNode {
	n := newGPUNode(t, "node-b", 3)
	const parent = "GPU-b0000000-0000-4000-8000-000000000000"
	n.add("", "hw.power", "W", device(parent, "", "", 0), 0, always(450))
	for i := range 7 {
		instance := device(fmt.Sprintf("MIG-%08d-0000-4000-8000-000000000000", i), parent, "1g.10gb", 0)
		n.add("", "hw.gpu.utilization", "1", instance, 0, always(float64(i)/10))
		n.add("", "hw.gpu.memory.usage", "By", instance, 0, always(float64(i+1)*gib))
		n.add(fmt.Sprintf("small-%d", i), "gpu.allocation", "1", instance, 0, always(1))
	}
	return n
}

// gpuRow is a line of `orb8 gpu -o json`.
type gpuRow struct {
	Node        string   `json:"node"`
	UUID        string   `json:"uuid"`
	Parent      string   `json:"parent"`
	Pod         string   `json:"pod"`
	Utilization *float64 `json:"utilization"`
	Memory      *float64 `json:"memory"`
	MemoryLimit *float64 `json:"memoryLimit"`
	Power       *float64 `json:"power"`
	Energy      *float64 `json:"energy"`
}

// gpuReply is QueryGpuResponse as JSON has it.
type gpuReply struct {
	Series []struct {
		Node      string
		Device    struct{ ID string }
		Container struct{ Pod, Namespace, Name string }
		Metric    string
		Counter   bool
		Points    []struct {
			Start   time.Time
			Value   float64
			Samples int
		}
	}
	Matched string
}

func queryGPU(t *testing.T, c *collector.Collector, request string) gpuReply {
	t.Helper()
	resp, err := http.Post("http://"+c.Query+"/orb8.v1.OrbitService/QueryGpu", "application/json", strings.NewReader(request))
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s", text)
	var reply gpuReply
	require.NoError(t, json.Unmarshal(text, &reply))
	return reply
}

// What agents tell of GPUs by OTLP is answered by the gateway as it is shipped: to the API, and to `orb8 gpu`.
func TestGPUsThroughTheGateway(t *testing.T) {
	ports := testutil.FreeAddresses(t, net.Listen, 4)
	c := collector.Launch(t, collector.Options{
		Config: collector.Gateway(), Overlay: withoutKubernetes,
		Env: []string{"ORB8_OTLP_GRPC_ENDPOINT=" + ports[0], "ORB8_OTLP_HTTP_ENDPOINT=" + ports[1], "ORB8_HEALTH_ENDPOINT=" + ports[2]},
	})
	collector.Await(t, "the gateway runs", func() bool { return strings.Contains(c.Log(), "Everything is ready") }, func() any { return c.Log() })
	stdout, stderr, code := c.CLI("gpu")
	require.Zero(t, code, stderr)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "no GPU has reported, and no gpu receiver either")

	shared, split := sharedCard(t), splitCard(t)
	shared.send(ports[1])
	split.send(ports[1])

	rows := func(args ...string) map[string]gpuRow {
		stdout, stderr, code := c.CLI(append([]string{"gpu", "-o", "json"}, args...)...)
		require.Zero(t, code, stderr)
		var all []gpuRow
		require.NoError(t, json.Unmarshal([]byte(stdout), &all), stdout)
		byName := map[string]gpuRow{}
		for _, r := range all {
			byName[strings.TrimRight(r.UUID[:12]+" "+r.Pod, " ")] = r
		}
		require.Len(t, byName, len(all), "each line once: %s", stdout)
		return byName
	}
	all := rows()
	require.Len(t, all, 1+2+1+7+7)
	card := all["GPU-a0000000"]
	t.Run("two pods share a card", func(t *testing.T) {
		assert.Equal(t, "node-a", card.Node)
		assert.InDelta(t, 0.7, *card.Utilization, 1e-9)
		assert.InDelta(t, 500, *card.Power, 1e-9)
		assert.InDelta(t, 20_000, *card.Energy, 1e-9)
		var pods float64
		for pod, memory := range map[string]float64{"train-0": 40, "infer-0": 19} {
			row := all["GPU-a0000000 "+pod]
			assert.InDelta(t, memory*gib, *row.Memory, 0)
			assert.Nil(t, row.Power, "it is the card's")
			assert.Nil(t, row.Utilization, "nobody measured it")
			pods += *row.Memory
		}
		assert.Less(t, pods, *card.Memory, "nothing is there twice")
	})
	t.Run("seven MIG instances, seven pods", func(t *testing.T) {
		for i := range 7 {
			id := fmt.Sprintf("MIG-%08d", i)
			for _, name := range []string{id, fmt.Sprintf("%s small-%d", id, i)} {
				row := all[name]
				require.NotEmpty(t, row.UUID, name)
				assert.InDelta(t, float64(i)/10, *row.Utilization, 1e-9, name)
				assert.InDelta(t, float64(i+1)*gib, *row.Memory, 0, name)
				assert.Equal(t, "GPU-b0000000-0000-4000-8000-000000000000", row.Parent)
			}
		}
	})
	t.Run("filters", func(t *testing.T) {
		assert.Len(t, rows("--node", "node-b"), 15)
		assert.Len(t, rows("--device", "GPU-b0000000-0000-4000-8000-000000000000"), 15, "a GPU and its instances")
		assert.Len(t, rows("--not", "--device", "MIG-"), 4)
		pod := rows("--pod", "ml/train-0")
		require.Len(t, pod, 2)
		assert.InDelta(t, 60*gib, *pod["GPU-a0000000"].Memory, 0, "the card that it shares")
		assert.Len(t, rows("--pod", "small-3"), 2)
	})
	t.Run("the table", func(t *testing.T) {
		stdout, stderr, code := c.CLI("gpu", "--node", "node-a")
		require.Zero(t, code, stderr)
		assert.Equal(t, `GPU  DEVICE / POD           UTIL  MEMORY      OF  POWER   TEMP
  0  NVIDIA H100 80GB HBM3  70 %  60 GiB  80 GiB  500 W  61 °C
  0    ml/infer-0/main         -  19 GiB       -      -      -
  0    ml/train-0/main         -  40 GiB       -      -      -
`, stdout)
	})
	t.Run("a counter that began again", func(t *testing.T) {
		reply := queryGPU(t, c, `{"allow": [{"metrics": ["gpu.cuda.kernel.launch.calls"]}]}`)
		require.Len(t, reply.Series, 1)
		s := reply.Series[0]
		assert.Equal(t, "train-0", s.Container.Pod)
		assert.Empty(t, s.Device.ID)
		assert.True(t, s.Counter)
		require.Len(t, s.Points, 1)
		// Of the first scrape it is not known what was before it; the fifth follows the fourth, which began at zero.
		assert.InDelta(t, 4000, s.Points[0].Value, 0)
	})
	t.Run("steps", func(t *testing.T) {
		reply := queryGPU(t, c, `{"step": "1s", "allow": [{"metrics": ["hw.gpu.utilization"], "nodes": ["node-a"]}]}`)
		require.Len(t, reply.Series, 1)
		require.Len(t, reply.Series[0].Points, 5)
		for i, p := range reply.Series[0].Points {
			assert.InDelta(t, 0.5+0.1*float64(i), p.Value, 1e-9)
			assert.WithinDuration(t, shared.at(i).AsTime(), p.Start, time.Second)
		}
		assert.Equal(t, "1", reply.Matched)
	})
	t.Run("what is no GPU's is counted", func(t *testing.T) {
		assert.Contains(t, c.Get(c.Telemetry, "/metrics"), "\norb8_store_ignored_data_points 5\n")
	})
	c.Stop()
}
