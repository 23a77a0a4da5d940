//go:build linux && cgo

package nvml

import (
	"encoding/csv"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/testutil"
)

// smi asks nvidia-smi for properties of all GPUs.
func smi(t *testing.T, properties ...string) []map[string]string {
	t.Helper()
	out, err := exec.Command("nvidia-smi", "--query-gpu="+strings.Join(properties, ","), "--format=csv,noheader,nounits").Output()
	require.NoError(t, err)
	r := csv.NewReader(strings.NewReader(string(out)))
	r.TrimLeadingSpace = true
	rows, err := r.ReadAll()
	require.NoError(t, err)
	var all []map[string]string
	for _, row := range rows {
		gpu := map[string]string{}
		for i, value := range row {
			gpu[properties[i]] = value
		}
		all = append(all, gpu)
	}
	return all
}

// TestRealGPUs holds what is read of this machine's GPUs against nvidia-smi. Set ORB8_TEST_RECORD to a file to keep what was read.
func TestRealGPUs(t *testing.T) {
	_, err := exec.LookPath("nvidia-smi")
	testutil.Require(t, "gpu", err == nil, "there is no nvidia-smi, and so no NVIDIA GPU")
	s := New(Options{LibraryPaths: []string{"libnvidia-ml.so.1"}, Hold: HoldAlways, OnEvent: func(Event) {}})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	_, err = s.Snapshot(time.Now())
	require.NoError(t, err)
	begin := time.Now()
	got, err := s.Snapshot(begin.Add(10 * time.Second))
	require.NoError(t, err)
	t.Logf("%d devices in %s, driver %s", len(got.Devices), time.Since(begin), got.Driver)
	want := smi(t, "uuid", "name", "pci.bus_id", "memory.total", "memory.used", "power.draw", "temperature.gpu", "clocks.sm", "enforced.power.limit",
		"utilization.gpu")
	var gpus []Device
	for _, d := range got.Devices {
		if d.Parent == "" {
			gpus = append(gpus, d)
		}
	}
	require.Len(t, gpus, len(want))
	for i, w := range want {
		d := &gpus[i]
		assert.Equal(t, w["uuid"], d.UUID)
		assert.Equal(t, w["name"], d.Model)
		assert.Equal(t, strings.ToLower(w["pci.bus_id"]), strings.ToLower(d.PCI))
		for _, c := range []struct {
			property, metric, part string
			unit, within           float64
		}{
			{"memory.total", "hw.gpu.memory.limit", "", 1 << 20, 1 << 20},
			{"memory.used", "hw.gpu.memory.usage", "", 1 << 20, 64 << 20},
			{"power.draw", "hw.power", "", 1, 50},
			{"temperature.gpu", "hw.temperature", "gpu", 1, 3},
			{"clocks.sm", "gpu.clock.frequency", "sm", 1e6, 1e9},
			{"enforced.power.limit", "gpu.power.limit", "", 1, 1},
			{"utilization.gpu", "hw.gpu.utilization", "general", 0.01, 0.5},
		} {
			// What one of the two does not know, the other must not either.
			theirs, err := strconv.ParseFloat(w[c.property], 64)
			ours, known := value(d, c.metric, c.part)
			if assert.Equal(t, err == nil, known, "%s: nvidia-smi says %q", c.metric, w[c.property]) && known {
				assert.InDelta(t, theirs*c.unit, ours, c.within, c.metric)
			}
		}
	}
	if path := os.Getenv("ORB8_TEST_RECORD"); path != "" {
		record(t, path, got)
	}
}
