//go:build linux

package testbed

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	api "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/orb8/orb8/internal/testutil/fakekubelet"
	"github.com/orb8/orb8/testbed/internal/collector"
)

// gpuRows runs a collector whose GPUs are those of a page of dcgm-exporter, given out by a kubelet, until `orb8 gpu` shows as many rows as wanted.
func gpuRows(t *testing.T, page string, wanted int, pods ...*api.PodResources) map[string]gpuRow {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(collector.Root(), "receiver/gpureceiver/internal/dcgm/testdata", page))
	require.NoError(t, err)
	exporter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(text) }))
	t.Cleanup(exporter.Close)
	kubelet := &fakekubelet.Kubelet{}
	kubelet.Set(nil, pods...)
	socket := filepath.Join(t.TempDir(), "kubelet.sock")
	kubelet.Serve(t, socket)

	c := collector.Start(t, collector.Options{Overlay: fmt.Sprintf(`
receivers:
  gpu:
    collection_interval: 1s
    nvml: {mode: off}
    cuda: {mode: off}
    dcgm: {mode: on, endpoint: %q}
    pod_resources: {mode: on, socket: %q}
service:
  pipelines:
    metrics/gpu:
      receivers: [gpu]
      processors: [memory_limiter, pod_enrichment]
      exporters: [orb8_store]
`, exporter.URL+"/metrics", socket)})
	rows := map[string]gpuRow{}
	collector.Await(t, "all rows are there", func() bool {
		stdout, stderr, code := c.CLI("gpu", "-o", "json")
		require.Zero(t, code, stderr)
		var all []gpuRow
		if stdout != "" {
			require.NoError(t, json.Unmarshal([]byte(stdout), &all), stdout)
		}
		clear(rows)
		for _, r := range all {
			rows[strings.TrimRight(r.UUID+" "+r.Pod, " ")] = r
		}
		require.Len(t, rows, len(all), "each line once: %s", stdout)
		return len(rows) == wanted
	}, func() any { return c.Log() })
	c.Stop()
	return rows
}

// What a receiver reads from an exporter and a kubelet is right in the answer: a shared card's power once, each pod's memory its own.
func TestSharedGPUFromExporterToAnswer(t *testing.T) {
	const card = "GPU-a0000000-0000-4000-8000-000000000000"
	rows := gpuRows(t, "4.4.1-virtual-gpus.prom", 3,
		fakekubelet.Pod("train-0", fakekubelet.Container("main", "nvidia.com/gpu", card+"::0")),
		fakekubelet.Pod("infer-0", fakekubelet.Container("main", "nvidia.com/gpu", card+"::1")))
	whole := rows[card]
	require.NotNil(t, whole.Power)
	assert.InDelta(t, 65.5, *whole.Power, 1e-9)
	assert.InDelta(t, 0.8, *whole.Utilization, 1e-9)
	assert.InDelta(t, 12000<<20, *whole.Memory, 0)
	var sum float64
	for pod, memory := range map[string]float64{"train-0": 8000 << 20, "infer-0": 3500 << 20} {
		row := rows[card+" "+pod]
		assert.Nil(t, row.Power, "it is the card's")
		require.NotNil(t, row.Memory, pod)
		assert.InDelta(t, memory, *row.Memory, 0)
		sum += *row.Memory
	}
	assert.Less(t, sum, *whole.Memory, "nothing is there twice")
}

// Seven MIG instances that the exporter knows by numbers are those that the kubelet gave to seven pods.
func TestMIGFromExporterToAnswer(t *testing.T) {
	const parent = "GPU-b0000000-0000-4000-8000-000000000000"
	id := func(i int) string { return fmt.Sprintf("MIG-%08d-0000-4000-8000-000000000000", i) }
	var pods []*api.PodResources
	for i := range 7 {
		pods = append(pods, fakekubelet.Pod(fmt.Sprintf("small-%d", i), fakekubelet.Container("main", "nvidia.com/mig-1g.10gb", id(i))))
	}
	rows := gpuRows(t, "4.8.3-mig.prom", 1+7+7, pods...)
	assert.InDelta(t, 450.25, *rows[parent].Power, 1e-9)
	for i := range 7 {
		for _, name := range []string{id(i), fmt.Sprintf("%s small-%d", id(i), i)} {
			row := rows[name]
			require.NotNil(t, row.Memory, name)
			assert.InDelta(t, float64(i+1)*gib, *row.Memory, 0, name)
			assert.Equal(t, parent, row.Parent)
			assert.Nil(t, row.Power, "it is the whole GPU's")
		}
	}
}
