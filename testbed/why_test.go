//go:build linux

package testbed

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
	"github.com/orb8/orb8/testbed/internal/workload"
)

// pushedGPUs lets the standalone configuration take metrics of GPUs that the test sends, as there is none here.
const pushedGPUs = `
receivers:
  otlp:
    protocols:
      http:
        endpoint: ${env:ORB8_OTLP_HTTP_ENDPOINT}
service:
  pipelines:
    metrics/pushed:
      receivers: [otlp]
      processors: [memory_limiter, pod_enrichment]
      exporters: [orb8_store]
`

// whyReport is what `orb8 why -o json` says.
type whyReport struct {
	Verdict, Summary string
	Slot             float64
	Known, Idle      float64
	Shares           map[string]float64
	Stretches        []struct{ Shares map[string]float64 }
	Syscalls         []struct {
		Syscall, Cause string
		Calls          uint64
		Time           float64
	}
	Network struct {
		Received struct{ Bytes uint64 }
		Peers    []struct {
			Name string
			RTT  float64
		}
	}
	Missing []string
}

// stage is a workload in a container of its own, with a GPU of its own.
type stage struct {
	container string
	cgroup    *lab.Cgroup
	process   *workload.Process
	// utilization is what its GPU was used, as the test has it.
	utilization float64
}

// gpuOf adds samples of a stage's GPU: one every whySample, each from the middle of it.
func (s *stage) gpuOf(t *testing.T, into pmetric.Metrics, index int, from, until time.Time) {
	card := device(fmt.Sprintf("GPU-%08d-0000-4000-8000-000000000000", index), "", "", index)
	add := func(resource map[string]any, metric string, attributes map[string]any, value float64) {
		rm := into.ResourceMetrics().AppendEmpty()
		require.NoError(t, rm.Resource().Attributes().FromRaw(resource))
		m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		m.SetName(metric)
		m.SetUnit("1")
		points := m.SetEmptyGauge().DataPoints()
		for at := from.Add(whySample / 2); at.Before(until); at = at.Add(whySample) {
			p := points.AppendEmpty()
			p.SetTimestamp(pcommon.NewTimestampFromTime(at))
			p.SetDoubleValue(value)
			require.NoError(t, p.Attributes().FromRaw(card))
			for k, v := range attributes {
				p.Attributes().PutStr(k, v.(string))
			}
		}
	}
	var stat unix.Stat_t
	require.NoError(t, unix.Stat(s.cgroup.Dir(), &stat))
	add(map[string]any{}, "hw.gpu.utilization", map[string]any{"hw.gpu.task": "general"}, s.utilization)
	add(map[string]any{"orb8.cgroup.id": int64(stat.Ino)}, "gpu.allocation", nil, 1)
}

const (
	whySample = 2 * time.Second
	whyStage  = 20 * time.Second
)

// Containers whose GPUs idle for reasons that the test makes, each of which is to be found in what the kernel was seen to do: traffic, calls and
// their times are real, and only the GPUs are made up.
func TestWhyNamesTheCause(t *testing.T) {
	ports := testutil.FreeAddresses(t, net.Listen, 1)
	c := collector.Start(t, collector.Options{
		Overlay: pushedGPUs, Env: []string{"ORB8_OTLP_HTTP_ENDPOINT=" + ports[0]},
		Set: map[string]string{
			"receivers.ebpf_network.interval": "500ms", "receivers.ebpf_syscall.interval": "500ms", "receivers.ebpf_syscall.latency": "true",
		},
	})
	peer, dir := workload.SlowPeer(t), t.TempDir()
	own := lab.NewCgroup(t)
	stages := map[string]*stage{}
	begin := func(name string, utilization float64, f workload.Feeder) {
		f.Peer, f.Dir, f.For = peer, dir, whyStage+2*whySample
		id := strings.Repeat(fmt.Sprintf("%08x", 0xfeed0000+len(stages)), 8)
		s := &stage{container: id, cgroup: own.Child(t, "docker-"+id+".scope"), utilization: utilization}
		s.process = workload.Start(t, s.cgroup, workload.Load{Feeder: &f})
		stages[name] = s
	}
	begin("network", 0.05, workload.Feeder{Fetch: whySample})
	begin("syscalls", 0.05, workload.Feeder{Write: whySample})
	begin("cpu", 0.05, workload.Feeder{Compute: whySample})
	begin("mixed", 0.05, workload.Feeder{Fetch: whySample, Write: whySample})
	begin("busy", 0.95, workload.Feeder{Fetch: whySample})
	for _, s := range stages {
		s.process.Go()
	}
	from := time.Now().Truncate(whySample).Add(whySample)
	until := from.Add(whyStage)
	for _, s := range stages {
		s.process.Done()
	}
	metrics, index := pmetric.NewMetrics(), 0
	for _, name := range []string{"network", "syscalls", "cpu", "mixed", "busy"} {
		stages[name].gpuOf(t, metrics, index, from, until)
		index++
	}
	(&gpuNode{t: t, metrics: metrics}).send(ports[0])
	awaitReportsAfter(t, c, until.Add(time.Second))
	for _, s := range stages {
		s.process.End()
	}

	ask := func(t *testing.T, name string) whyReport {
		stdout, stderr, code := c.CLI("why", "--container", stages[name].container, "--since", from.Format(time.RFC3339Nano),
			"--until", until.Format(time.RFC3339Nano), "-o", "json")
		require.Zero(t, code, stderr)
		var r whyReport
		require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
		assert.InDelta(t, whySample.Seconds(), r.Slot, 0, "as the samples are apart")
		assert.InDelta(t, 1, r.Known, 0, stdout)
		assert.Equal(t, name, r.Verdict, stdout)
		t.Log(r.Summary)
		return r
	}
	t.Run("waits for a slow peer", func(t *testing.T) {
		r := ask(t, "network")
		assert.Greater(t, r.Shares["network"], 0.8, r.Summary)
		// Twenty answers a second at most, and the machine may be slow.
		assert.Greater(t, r.Network.Received.Bytes, uint64(50*64<<10))
		require.NotEmpty(t, r.Network.Peers)
		assert.Positive(t, r.Network.Peers[0].RTT)
		require.NotEmpty(t, r.Missing, "nobody measures synchronising")
		assert.Contains(t, r.Missing[0], "synchronising")
	})
	t.Run("writes to disk", func(t *testing.T) {
		r := ask(t, "syscalls")
		calls := map[string]string{}
		for _, c := range r.Syscalls {
			if c.Time > 0.1 {
				calls[c.Syscall] = c.Cause
			}
		}
		assert.Equal(t, "syscalls", calls["pwrite64"], "%v", calls)
	})
	t.Run("computes", func(t *testing.T) { ask(t, "cpu") })
	t.Run("does one, then the other", func(t *testing.T) {
		r := ask(t, "mixed")
		assert.InDelta(t, 0.5, r.Shares["network"], 0.2, r.Summary)
		assert.InDelta(t, 0.5, r.Shares["syscalls"], 0.2, r.Summary)
	})
	t.Run("has a busy GPU", func(t *testing.T) {
		r := ask(t, "busy")
		assert.InDelta(t, 0.05, r.Idle, 1e-3)
		assert.Empty(t, r.Stretches)
	})
	t.Run("for people", func(t *testing.T) {
		stdout, stderr, code := c.CLI("why", "--container", stages["network"].container, "--since", from.Format(time.RFC3339Nano),
			"--until", until.Format(time.RFC3339Nano))
		require.Zero(t, code, stderr)
		t.Log("\n" + stdout)
		assert.Contains(t, stdout, "verdict      network: the GPUs were idle 95 % of the time, and for")
		assert.Regexp(t, `recvfrom: [\d,]+ calls`, stdout)
	})
}

// awaitReportsAfter waits until the node has said what there was up to an instant.
func awaitReportsAfter(t *testing.T, c *collector.Collector, instant time.Time) {
	t.Helper()
	var stdout string
	collector.Await(t, "reports of "+instant.String(), func() bool {
		var stderr string
		var code int
		stdout, stderr, code = c.CLI("status", "-o", "json")
		require.Zero(t, code, stderr)
		var status struct {
			Nodes []struct{ LastSeen time.Time }
		}
		require.NoError(t, json.Unmarshal([]byte(stdout), &status))
		return len(status.Nodes) == 1 && status.Nodes[0].LastSeen.After(instant)
	}, func() any { return stdout })
}
