package main

import (
	"bytes"
	"context"
	"io"
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

// growth returns a series of a counter that grew by so much in the step of each age, the oldest first.
func growth(d *orb8v1.GpuDevice, c *orb8v1.Container, metric, attribute string, values map[time.Duration]float64) *orb8v1.GpuSeries {
	s := gpuSeries("worker-1", d, c, metric, attribute, 0, 0)
	s.Points = nil
	for age, v := range values {
		s.Points = append(s.Points, &orb8v1.GpuPoint{Start: ago(age), Value: v, Samples: 1})
	}
	return s
}

// traceGPUAnswers are what a collector says to one question after the other: what was there before, then more of it and an error.
func traceGPUAnswers() [][]*orb8v1.GpuSeries {
	const before, late, now = 20 * time.Second, 12 * time.Second, 3 * time.Second
	train, infer, shared := job("train-0"), job("infer-0"), card(0)
	has := func(c *orb8v1.Container) *orb8v1.GpuSeries {
		return gpuSeries("worker-1", shared, c, gpu.MetricAllocation, "", 1, 1)
	}
	none := func(values map[time.Duration]float64) []*orb8v1.GpuSeries {
		return []*orb8v1.GpuSeries{growth(nil, train, metricLaunches, "", values)}
	}
	return [][]*orb8v1.GpuSeries{
		none(map[time.Duration]float64{before: 1000}),
		none(map[time.Duration]float64{before: 1000}),
		{
			growth(nil, train, metricLaunches, "", map[time.Duration]float64{before: 1000, late: 5, now: 12345}),
			growth(nil, train, metricAllocations, "", map[time.Duration]float64{now: 2 * gib}),
			growth(nil, train, metricCopies, "cuda.memcpy.kind=host_to_device", map[time.Duration]float64{now: gib}),
			growth(nil, train, metricCopies, "cuda.memcpy.kind=unknown", map[time.Duration]float64{now: 10}),
			growth(nil, train, metricWaits, "cuda.sync.kind=stream", map[time.Duration]float64{now: 2}),
			growth(nil, train, metricWaits, "cuda.sync.kind=event", map[time.Duration]float64{now: 1}),
			growth(nil, train, metricWaitTime, "cuda.sync.kind=stream", map[time.Duration]float64{now: 1.25}),
			growth(shared, nil, gpu.MetricXIDErrors, "gpu.xid.code=79", map[time.Duration]float64{before: 0, now: 1}),
			growth(shared, nil, gpu.MetricXIDErrors, "gpu.xid.code=31", map[time.Duration]float64{now: 3}),
			has(train), has(infer),
		},
		// Another scrape within the same second.
		none(map[time.Duration]float64{before: 1000, now: 12346}),
	}
}

// traceGPU runs the command until so many lines came.
func traceGPU(t *testing.T, lines int, args ...string) (stdout, stderr string, asked []*orb8v1.QueryGpuRequest) {
	t.Helper()
	answers := traceGPUAnswers()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	collector := &fakeGPUs{}
	collector.gpu = func(req *orb8v1.QueryGpuRequest) *orb8v1.QueryGpuResponse {
		n := min(len(collector.askedGPU), len(answers))
		return gpuReply(answers[n-1])(req)
	}
	agent := collector.serve(t)
	read, write := io.Pipe()
	var said bytes.Buffer
	done := make(chan int)
	go func() {
		done <- run(ctx, &app{target: target{agent: agent}, now: testNow}, append([]string{"trace", "gpu", "--every", "200ms"}, args...), write, &said)
		write.Close()
	}()
	var got strings.Builder
	buffer := make([]byte, 1<<16)
	for strings.Count(got.String(), "\n") < lines {
		n, err := read.Read(buffer)
		got.Write(buffer[:n])
		if err != nil {
			break
		}
	}
	interrupt()
	go func() { _, _ = io.Copy(io.Discard, read) }()
	assert.Zero(t, <-done)
	return got.String(), said.String(), collector.askedGPU
}

// TestTraceGPU holds that what is new is shown once, whenever it comes, and what was there before is not.
func TestTraceGPU(t *testing.T) {
	for golden, tt := range map[string]struct {
		format string
		lines  int
	}{
		"trace_gpu.txt":   {"table", 6},
		"trace_gpu.jsonl": {"jsonl", 5},
	} {
		t.Run(golden, func(t *testing.T) {
			stdout, stderr, asked := traceGPU(t, tt.lines, "-o", tt.format, "--pod", "ml/train-0", "--not", "--node", "worker-9")
			assert.Empty(t, stderr)
			assertGolden(t, golden, stdout)
			require.GreaterOrEqual(t, len(asked), 4)
			want := &orb8v1.QueryGpuRequest{
				Since: ago(time.Minute), Step: durationpb.New(time.Second),
				Allow: []*orb8v1.GpuFilter{{Pods: []string{"ml/train-0"}, Metrics: traceGPUMetrics()}},
				Deny:  []*orb8v1.GpuFilter{{Nodes: []string{"worker-9"}}},
			}
			assert.True(t, proto.Equal(want, asked[0]), "%v", asked[0])
		})
	}
}

// TestTraceGPUForgets holds that what was shown is not kept for ever.
func TestTraceGPUForgets(t *testing.T) {
	told := gpuTold{}
	now := testNow()
	for i := range 1000 {
		at := now.Add(time.Duration(i) * time.Second)
		s := growth(nil, job("train-0"), metricLaunches, "", map[time.Duration]float64{-time.Duration(i) * time.Second: 1})
		assert.Len(t, told.news([]*orb8v1.GpuSeries{s}, at.Add(-traceGPULate)), 1)
	}
	assert.Less(t, len(told), 70)
}

func TestTraceGPURefuses(t *testing.T) {
	for args, says := range map[string]string{
		"trace gpu --every 1ms":  "use a duration of 200ms or more",
		"trace gpu card":         `takes no argument, not "card"`,
		"trace gpu --pod x/y/z":  "--pod",
		"trace gpu --not":        "--not",
		"trace gpu --output xml": "--output",
	} {
		got := orb8(t, "127.0.0.1:1", strings.Fields(args)...)
		assert.Equal(t, exitUsage, got.code, args)
		assert.Contains(t, got.stderr, says, args)
	}
	got := orb8(t, "127.0.0.1:1", "trace", "gpu")
	assert.Equal(t, exitFailed, got.code, "nobody answers")
}
