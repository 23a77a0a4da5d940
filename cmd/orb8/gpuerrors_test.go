package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/gpu"
)

// stepped is a series of a device with a point a step, each a value; those of levels are constant in a step.
func stepped(d *orb8v1.GpuDevice, c *orb8v1.Container, metric, attribute string, counter bool, first time.Duration, values ...float64) *orb8v1.GpuSeries {
	s := gpuSeries("worker-1", d, c, metric, attribute, 0, 0)
	s.Counter, s.Points = counter, nil
	for i, v := range values {
		p := &orb8v1.GpuPoint{Start: ago(first - time.Duration(i)*2*time.Minute), Value: v, Samples: 12}
		if !counter {
			p.Min, p.Max, p.Last = v, v, v
		}
		s.Points = append(s.Points, p)
	}
	return s
}

// failures are those of a card that two pods share, of one that went from a pod to another meanwhile, and of one without any.
func failures() []*orb8v1.GpuSeries {
	remap := stepped(card(1), job("tune-0"), metricRowsRemapped, "gpu.rows.cause=uncorrected", false, 10*time.Minute, 1, 1)
	remap.Points[0].Min = 0 // it rose in the first step
	return []*orb8v1.GpuSeries{
		stepped(card(0), job("train-0"), gpu.MetricAllocation, "", false, 10*time.Minute, 1, 1, 1),
		stepped(card(0), job("infer-0"), gpu.MetricAllocation, "", false, 8*time.Minute, 1, 1),
		stepped(card(0), nil, gpu.MetricXIDErrors, "gpu.xid.code=79", true, 10*time.Minute, 0, 1),
		stepped(card(0), nil, gpu.MetricXIDErrors, "gpu.xid.code=31", true, 10*time.Minute, 1234, 0, 0),
		stepped(card(0), nil, metricHWErrors, "error.type=ecc_uncorrected", true, 10*time.Minute, 0, 2),
		stepped(card(0), nil, metricHWErrors, "error.type=ecc_corrected", true, 10*time.Minute, 5, 5),
		remap,
		stepped(card(1), job("next-0"), metricRowsRemapped, "gpu.rows.cause=uncorrected", false, 6*time.Minute, 3, 3),
		stepped(card(1), job("tune-0"), metricRowsFailed, "", false, 10*time.Minute, 0, 0),
		stepped(card(1), job("next-0"), metricRowsFailed, "", false, 6*time.Minute, 1, 1),
		stepped(card(1), job("next-0"), gpu.MetricAllocation, "", false, 6*time.Minute, 1),
		stepped(card(2), nil, metricRowsRemapped, "gpu.rows.cause=corrected", false, 10*time.Minute, 7, 7),
		stepped(card(2), nil, gpu.MetricXIDErrors, "gpu.xid.code=13", true, 10*time.Minute, 0),
	}
}

func TestGPUErrors(t *testing.T) {
	collector := &fakeGPUs{gpu: gpuReply(failures())}
	got := orb8(t, collector.serve(t), "gpu", "--errors")
	require.Zero(t, got.code, got.stderr)
	assertGolden(t, "gpu_errors.txt", got.stdout)
	assert.Contains(t, got.stderr, "each line is what was counted in the 2m0s from its time on")
	metrics := gpuErrorMetrics()
	require.Len(t, collector.askedGPU, 2)
	assert.True(t, proto.Equal(&orb8v1.QueryGpuRequest{Since: ago(day), Allow: []*orb8v1.GpuFilter{{Metrics: metrics}}}, collector.askedGPU[0]),
		"got %v", collector.askedGPU[0])
	assert.True(t, proto.Equal(&orb8v1.QueryGpuRequest{Since: ago(day), Step: durationpb.New(2 * time.Minute), Allow: []*orb8v1.GpuFilter{
		{Metrics: append(metrics, gpu.MetricAllocation), Devices: []string{card(0).GetId(), card(1).GetId()}},
	}}, collector.askedGPU[1]), "of devices that had any: got %v", collector.askedGPU[1])

	assertGolden(t, "gpu_errors_wide.txt", orb8(t, collector.serve(t), "gpu", "--errors", "-o", "wide").stdout)
	got = orb8(t, collector.serve(t), "gpu", "--errors", "-o", "json")
	var rows []jsonGPUError
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &rows))
	require.Len(t, rows, 6)
	assert.Equal(t, "ecc", rows[2].Kind)
	assert.EqualValues(t, 2, rows[2].Count)
	assert.InDelta(t, 120, rows[2].StepSeconds, 0)
	assert.Equal(t, []string{"infer-0", "train-0"}, []string{rows[2].Containers[1].Pod, rows[2].Containers[0].Pod}, "whoever had it then")
	assert.NotContains(t, got.stderr, "each line")
}

func TestGPUErrorsOfARange(t *testing.T) {
	collector := &fakeGPUs{gpu: gpuReply(failures())}
	got := orb8(t, collector.serve(t), "gpu", "--errors", "--since", "1h", "--until", "30m", "--pod", "ml/tune-0", "--device", "GPU-5a", "--not", "--node", "b")
	require.Zero(t, got.code, got.stderr)
	require.Len(t, collector.askedGPU, 2)
	second := collector.askedGPU[1]
	assert.Equal(t, minGPUErrorStep, second.GetStep().AsDuration())
	assert.Equal(t, []string{"GPU-5a"}, second.GetAllow()[0].GetDevices(), "as it was asked")
	assert.Equal(t, []string{"ml/tune-0"}, second.GetAllow()[0].GetPods())
	assert.Equal(t, []string{"b"}, second.GetDeny()[0].GetNodes())
}

func TestNoGPUErrors(t *testing.T) {
	collector := &fakeGPUs{gpu: func(req *orb8v1.QueryGpuRequest) *orb8v1.QueryGpuResponse {
		reply := gpuReply(failures()[11:])(req)
		reply.Truncated, reply.MissingNodes = true, []string{"worker-9"}
		return reply
	}}
	got := orb8(t, collector.serve(t), "gpu", "--errors", "-o", "json")
	assert.Equal(t, "[]\n", got.stdout)
	assert.Len(t, collector.askedGPU, 1, "there is nothing to look into")
	for _, want := range []string{"no error of a GPU in this range", "not all GPUs were looked at", "no report from worker-9: their GPUs are missing"} {
		assert.Contains(t, got.stderr, want)
	}
}

func TestGPUErrorsRefused(t *testing.T) {
	got := orb8(t, "127.0.0.1:1", "gpu", "--errors", "--since", "1m", "--until", "2m")
	assert.Equal(t, exitUsage, got.code)
	assert.True(t, strings.HasPrefix(got.stderr, "orb8: --since"), got.stderr)
}
