package dcgm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// load reads a page of testdata.
func load(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return text
}

func parse(t testing.TB, name string) *Page {
	t.Helper()
	page, err := Parse(load(t, name))
	require.NoError(t, err)
	return page
}

// values are those of a device by Field, with the Code where there is one.
func values(of []Value) map[string]float64 {
	m := map[string]float64{}
	for _, v := range of {
		m[strings.TrimSuffix(fmt.Sprintf("%d %s", v.Field, v.Code), " ")] = v.Value
	}
	return m
}

func key(f Field, code ...string) string {
	return strings.Join(append([]string{fmt.Sprint(int(f))}, code...), " ")
}

func TestNamesUntilDCGM45(t *testing.T) {
	page := parse(t, "3.3.9-a100.prom")
	require.Len(t, page.Devices, 2)
	assert.Empty(t, page.Unclear)
	assert.Equal(t, "node-a", page.Host)
	busy, idle := page.Devices[0], page.Devices[1]
	assert.Equal(t, "GPU-00000000-0000-4000-8000-000000000000", busy.UUID)
	assert.Equal(t, NoInstance, busy.GPUInstance)
	assert.Equal(t, 1, idle.Index)
	assert.Equal(t, "00000000:02:00.0", idle.PCIAddress)
	assert.Equal(t, "NVIDIA A100-SXM4-80GB", idle.Model)
	assert.Equal(t, []Owner{{Namespace: "ml", Pod: "train-0", Container: "main"}}, busy.Owners)
	assert.Empty(t, idle.Owners)
	got := values(busy.Values)
	for f, want := range map[Field]float64{
		ClockSM: 1.41e9, ClockMemory: 1.593e9, TemperatureMemory: 58, TemperatureGPU: 61, Power: 387.412, Energy: 123456789.012, PCIeReplays: 3,
		UtilizationGPU: 0.97, UtilizationEncoder: 0, UtilizationDecoder: 0.12, LastXID: 31, ThrottlePower: 2.5, MemoryUsed: 61053 * mebi,
		MemoryTotal: (20000 + 61053 + 867) * mebi, RowsUncorrected: 1, RowsCorrected: 0, RowsFailed: 0, PipeTensor: 0.412345, DRAMActivity: 0.3,
		MemoryFree: 20000 * mebi, MemoryReserved: 867 * mebi,
	} {
		require.Contains(t, got, key(f))
		assert.InEpsilon(t, 1+want, 1+got[key(f)], 1e-12, "field %d", f)
	}
	assert.Len(t, got, 21, "a rate of bytes is no counter")
	blank := values(idle.Values)
	assert.NotContains(t, blank, key(TemperatureMemory), "it is blank")
	assert.NotContains(t, blank, key(PipeTensor))
}

func TestSharedGPU(t *testing.T) {
	page := parse(t, "4.4.1-virtual-gpus.prom")
	require.Len(t, page.Devices, 1)
	d := page.Devices[0]
	assert.Equal(t, map[string]float64{
		key(Power): 65.5, key(UtilizationGPU): 0.8, key(MemoryUsed): 12000 * mebi, key(MemoryFree): 3000 * mebi,
	}, values(d.Values), "the device's, each once; and the XIDs of a window are no counter")
	require.Len(t, d.Owners, 2)
	infer, train := d.Owners[0], d.Owners[1]
	assert.Equal(t, "infer-0", infer.Pod)
	assert.Equal(t, "1", infer.Replica)
	assert.Equal(t, "uid-train-0", train.PodUID)
	assert.Equal(t, map[string]float64{key(UtilizationGPU): 0.2, key(MemoryUsed): 3500 * mebi}, values(infer.Shares))
	assert.Equal(t, map[string]float64{key(UtilizationGPU): 0.6, key(MemoryUsed): 8000 * mebi}, values(train.Shares))
}

func TestNamesOfDCGM46AndMIG(t *testing.T) {
	page := parse(t, "4.8.3-mig.prom")
	require.Len(t, page.Devices, 8)
	assert.Equal(t, "node-b", page.Host)
	assert.Equal(t, map[string]float64{
		key(Power): 450.25, key(UtilizationGPU): 0.01, key(TemperatureGPU): 55, key(LastXID): 0, key(XIDErrors, "31"): 4, key(XIDErrors, "79"): 1,
		key(Health, "MEM"): 10, key(Health, "PCIE"): 0, key(PCIeReplays): 2,
	}, values(page.Devices[0].Values), "the help says %, and a link is no GPU")
	for i, d := range page.Devices[1:] {
		assert.Equal(t, "GPU-b0000000-0000-4000-8000-000000000000", d.UUID)
		assert.Equal(t, i+7, d.GPUInstance)
		assert.Equal(t, "1g.10gb", d.MIGProfile)
		assert.Equal(t, map[string]float64{
			key(SMActivity): float64(i) / 10, key(PipeTensor): 0.05, key(DRAMActivity): 0.1, key(MemoryUsed): float64(i+1) * 1024 * mebi,
		}, values(d.Values))
		require.Len(t, d.Owners, 1)
		assert.Equal(t, fmt.Sprintf("small-%d", i), d.Owners[0].Pod)
		assert.Empty(t, d.Owners[0].Shares)
	}
	claimed := page.Devices[7]
	assert.Equal(t, "MIG-00000006-0000-4000-8000-000000000000", claimed.InstanceUUID)
	assert.Equal(t, Claim{"ml", "small-6-gpu", "gpu.nvidia.com", "node-b", "gpu-0-mig-1g10gb-0-1"}, claimed.Owners[0].Claim)
}

func TestFieldsInBaseUnits(t *testing.T) {
	page := parse(t, "4.9.0-h200.prom")
	require.Len(t, page.Devices, 1)
	assert.Equal(t, map[string]float64{
		key(ClockSM): 1.98e9, key(ClockMemory): 3.201e9, key(Energy): 123456789, key(UtilizationGPU): 1, key(UtilizationEncoder): 0.25,
		key(MemoryUsed): 64021856256, key(MemoryTotal): 150754820096, key(ThrottlePower): 2.5, key(RowsPending): 1,
	}, values(page.Devices[0].Values), "the help says ratio")
}

func TestScaleOf(t *testing.T) {
	for _, c := range []struct {
		help   string
		values []float64
		scale  float64
		known  bool
	}{
		{"GPU utilization (in %).", []float64{1}, percent, true},
		{"GPU utilization ratio, in percent", nil, percent, true},
		{"GPU utilization ratio.", []float64{1}, 1, true},
		{"Utilization, 0 to 1", []float64{1}, 1, true},
		{"Utilization", []float64{0, 1, 87}, percent, true},
		{"Utilization", []float64{1, 0.5}, 1, true},
		{"", []float64{0, 0}, 1, true},
		{"", []float64{0, 1}, 1, false},
	} {
		scale, known := scaleOf(c.help, c.values)
		assert.Equal(t, c.known, known, "%+v", c)
		assert.InDelta(t, c.scale, scale, 0, "%+v", c)
	}
	page, err := Parse([]byte("DCGM_FI_DEV_GPU_UTIL_RATIO{gpu=\"0\",UUID=\"GPU-1\"} 1\nDCGM_FI_DEV_GPU_TEMP{gpu=\"0\",UUID=\"GPU-1\"} 40\n"))
	require.NoError(t, err)
	assert.Equal(t, []string{"DCGM_FI_DEV_GPU_UTIL_RATIO"}, page.Unclear)
	assert.Equal(t, map[string]float64{key(TemperatureGPU): 40}, values(page.Devices[0].Values))
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "there is no metric of dcgm-exporter in it",
		"<html>DCGM_FI</html>":       "there is no metric of dcgm-exporter in it",
		"go_goroutines 7\n":          "there is no metric of dcgm-exporter in it",
		"DCGM_FI_DEV_GPU_TEMP{":      "text format parsing error",
		"DCGM_FI_DEV_GPU_TEMP{} hot": "text format parsing error",
		"DCGM_FI_DEV_GPU_TEMP{UUID=\"GPU-1\",GPU_I_ID=\"x\"} 1\n": `DCGM_FI_DEV_GPU_TEMP: GPU_I_ID "x" is not the number of a MIG instance`,
	} {
		_, err := Parse([]byte(text))
		assert.ErrorContains(t, err, want, "%q", text)
	}
	page, err := Parse([]byte("DCGM_FI_DEV_VGPU_LICENSE_STATUS{gpu=\"0\",UUID=\"GPU-1\",why=not \"well-formed} 1\n"))
	require.NoError(t, err, "it is nothing to us")
	assert.Empty(t, page.Devices)
}

// Whatever a page says, devices come once and in their order, and so do their values, none of them blank.
func FuzzParse(f *testing.F) {
	pages, err := filepath.Glob("testdata/*.prom")
	require.NoError(f, err)
	require.Len(f, pages, 4)
	for _, path := range pages {
		f.Add(load(f, filepath.Base(path)))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		page, err := Parse(text)
		if err != nil {
			return
		}
		seen := map[deviceKey]bool{}
		for _, d := range page.Devices {
			k := deviceKey{d.UUID, d.GPUInstance}
			if d.UUID == "" || seen[k] {
				t.Fatalf("device %+v is there twice or has no UUID", k)
			}
			seen[k] = true
			for i, v := range d.Values {
				if v.Value < 0 || v.Value != v.Value || i > 0 && compareValues(d.Values[i-1], v) >= 0 {
					t.Fatalf("values of %+v: %+v", k, d.Values)
				}
			}
		}
	})
}
