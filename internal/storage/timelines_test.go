package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
)

var minute = time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)

// second returns an instant so many seconds after the minute.
func second(n float64) time.Time { return minute.Add(time.Duration(n * float64(time.Second))) }

var (
	train = flow.Identity{Pod: "train-0", Namespace: "ml", Container: "main"}
	infer = flow.Identity{Pod: "infer-0", Namespace: "ml", Container: "main", ContainerID: "0123456789ab"}
)

// level returns a sample of a device's utilization.
func level(device string, at, value float64) gpu.Sample {
	return gpu.Sample{
		Series: gpu.Series{Node: "node-a", Device: gpu.Device{ID: device}, Metric: "hw.gpu.utilization", Unit: "1"}, Time: second(at), Value: value,
	}
}

// joules returns a sample of a device's counter, whose start is not known where it is negative.
func joules(device string, start, at, value float64) gpu.Sample {
	s := gpu.Sample{
		Series: gpu.Series{Node: "node-a", Device: gpu.Device{ID: device}, Metric: "hw.energy", Unit: "J", Counter: true}, Time: second(at), Value: value,
	}
	if start >= 0 {
		s.Start = second(start)
	}
	return s
}

// allocated returns what tells that a container has a device.
func allocated(device string, who flow.Identity, at float64) gpu.Sample {
	return gpu.Sample{
		Series: gpu.Series{Node: "node-a", Device: gpu.Device{ID: device}, Identity: who, Metric: gpu.MetricAllocation, Unit: "1"}, Time: second(at), Value: 1,
	}
}

// used returns what a container's processes have of a device's memory.
func used(device string, who flow.Identity, at, value float64) gpu.Sample {
	s := allocated(device, who, at)
	s.Metric, s.Unit, s.Value = "gpu.process.memory.usage", "By", value
	return s
}

func timelines(t *testing.T, q GPUQuery, samples ...gpu.Sample) GPUResult {
	t.Helper()
	lines := NewTimelines(&q)
	// The order in which samples come means nothing.
	for _, i := range rand.Perm(len(samples)) {
		lines.Add(&samples[i])
	}
	result, err := lines.Result(Coverage{Oldest: minute})
	require.NoError(t, err)
	return result
}

// told is METRIC DEVICE CONTAINER: POINTS of each series.
func told(result GPUResult) []string {
	var all []string
	for _, s := range result.Series {
		line := fmt.Sprintf("%s %s %s:", s.Metric, s.Device.ID, s.Identity.Pod)
		for _, p := range s.Points {
			line += fmt.Sprintf(" %g@%g", p.Value, p.Start.Sub(minute).Seconds())
		}
		all = append(all, line)
	}
	return all
}

func TestStepsOfALevel(t *testing.T) {
	samples := []gpu.Sample{level("GPU-0", 1, 0.25), level("GPU-0", 9, 0.75), level("GPU-0", 10, 1), level("GPU-0", 31, 0)}
	whole := timelines(t, GPUQuery{}, samples...)
	require.Len(t, whole.Series, 1)
	assert.Equal(t, []GPUPoint{{Start: second(1), Value: 0.5, Min: 0, Max: 1, Last: 0, Samples: 4}}, whole.Series[0].Points)
	assert.Equal(t, 1, whole.Matched)

	steps := timelines(t, GPUQuery{Step: 10 * time.Second}, samples...)
	assert.Equal(t, []GPUPoint{
		{Start: second(0), Value: 0.5, Min: 0.25, Max: 0.75, Last: 0.75, Samples: 2},
		{Start: second(10), Value: 1, Min: 1, Max: 1, Last: 1, Samples: 1},
		{Start: second(30), Samples: 1},
	}, steps.Series[0].Points, "there is none where nothing was measured")

	part := timelines(t, GPUQuery{Since: second(9), Until: second(31)}, samples...)
	assert.Equal(t, []GPUPoint{{Start: second(9), Value: 0.875, Min: 0.75, Max: 1, Last: 1, Samples: 2}}, part.Series[0].Points)
	assert.Empty(t, timelines(t, GPUQuery{Since: second(11), Until: second(31)}, samples...).Series)
}

func TestTheMeanIsBetweenTheSamples(t *testing.T) {
	var samples []gpu.Sample
	for i := range 1000 {
		samples = append(samples, level("GPU-0", float64(i), 0.1))
	}
	assert.Equal(t, 0.1, timelines(t, GPUQuery{}, samples...).Series[0].Points[0].Value)
}

func TestASampleThatComesTwiceCountsOnce(t *testing.T) {
	lines := NewTimelines(&GPUQuery{})
	for _, s := range []gpu.Sample{level("GPU-0", 1, 1), level("GPU-0", 2, 0), level("GPU-0", 1, 0.5)} {
		lines.Add(&s)
	}
	result, err := lines.Result(Coverage{})
	require.NoError(t, err)
	assert.Equal(t, []GPUPoint{{Start: second(1), Value: 0.25, Max: 0.5, Samples: 2}}, result.Series[0].Points, "the last arrival counts")
}

func TestGrowthOfACounter(t *testing.T) {
	for name, tt := range map[string]struct {
		query   GPUQuery
		samples []gpu.Sample
		want    []string
	}{
		"what was before the first sample is not known": {
			samples: []gpu.Sample{joules("GPU-0", -1, 10, 1000), joules("GPU-0", -1, 20, 1100), joules("GPU-0", -1, 30, 1150)},
			want:    []string{"hw.energy GPU-0 : 150@20"},
		},
		"nor is it where the counter began before the store": {
			samples: []gpu.Sample{joules("GPU-0", 0, 10, 1000), joules("GPU-0", 0, 20, 1100)},
			query:   GPUQuery{Since: second(5)},
			want:    []string{"hw.energy GPU-0 : 100@20"},
		},
		"one sample says nothing": {samples: []gpu.Sample{joules("GPU-0", -1, 10, 1000)}},
		"it began in the range": {
			samples: []gpu.Sample{joules("GPU-0", 5, 10, 30), joules("GPU-0", 5, 20, 40)},
			want:    []string{"hw.energy GPU-0 : 40@10"},
		},
		"the sample before the range": {
			samples: []gpu.Sample{joules("GPU-0", -1, 10, 1000), joules("GPU-0", -1, 20, 1100), joules("GPU-0", -1, 30, 1150)},
			query:   GPUQuery{Since: second(15), Until: second(30)},
			want:    []string{"hw.energy GPU-0 : 100@20"},
		},
		"the one after it": {
			samples: []gpu.Sample{joules("GPU-0", -1, 10, 1000), joules("GPU-0", -1, 20, 1100), joules("GPU-0", -1, 30, 1150)},
			query:   GPUQuery{Since: second(30)},
			want:    []string{"hw.energy GPU-0 : 50@30"},
		},
		"a reset that is seen by the value": {
			samples: []gpu.Sample{joules("GPU-0", -1, 10, 1000), joules("GPU-0", -1, 20, 1100), joules("GPU-0", -1, 30, 7), joules("GPU-0", -1, 40, 9)},
			want:    []string{"hw.energy GPU-0 : 109@20"},
		},
		"a reset that is seen by the start alone": {
			samples: []gpu.Sample{joules("GPU-0", 1, 10, 10), joules("GPU-0", 1, 20, 20), joules("GPU-0", 25, 30, 21)},
			want:    []string{"hw.energy GPU-0 : 41@10"},
		},
		"steps": {
			samples: []gpu.Sample{joules("GPU-0", -1, 10, 1000), joules("GPU-0", -1, 19, 1100), joules("GPU-0", -1, 21, 1150), joules("GPU-0", -1, 45, 1150)},
			query:   GPUQuery{Step: 10 * time.Second},
			want:    []string{"hw.energy GPU-0 : 100@10 50@20 0@40"},
		},
		"a sample that comes twice": {
			samples: []gpu.Sample{joules("GPU-0", 1, 10, 10), joules("GPU-0", 1, 10, 10), joules("GPU-0", 1, 20, 15)},
			want:    []string{"hw.energy GPU-0 : 15@10"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			result := timelines(t, tt.query, tt.samples...)
			assert.Equal(t, tt.want, told(result))
			assert.Equal(t, len(tt.want), result.Matched)
			for _, s := range result.Series {
				assert.Zero(t, s.Points[0].Min+s.Points[0].Max+s.Points[0].Last, "a counter has no levels")
			}
		})
	}
}

// Ranges that follow each other leave nothing out of a counter, wherever they are cut.
func TestGrowthOfRangesAddsUp(t *testing.T) {
	var samples []gpu.Sample
	for i := range 60 {
		samples = append(samples, joules("GPU-0", 0, float64(10*i), float64(i%23)))
	}
	sum := func(q GPUQuery) (sum float64) {
		for _, s := range timelines(t, q, samples...).Series {
			for _, p := range s.Points {
				sum += p.Value
			}
		}
		return sum
	}
	want := sum(GPUQuery{})
	for cut := 1.0; cut < 600; cut += 17 {
		require.Equal(t, want, sum(GPUQuery{Until: second(cut)})+sum(GPUQuery{Since: second(cut)}), "cut at %v", cut)
		require.Equal(t, want, sum(GPUQuery{Step: time.Duration(cut) * time.Second}))
	}
	assert.Equal(t, second(-120), (&GPUQuery{Since: minute}).From())
	assert.Zero(t, (&GPUQuery{}).From())
}

func TestWhoseADeviceIs(t *testing.T) {
	for name, tt := range map[string]struct {
		query   GPUQuery
		samples []gpu.Sample
		want    []string
	}{
		"of one container": {
			samples: []gpu.Sample{level("GPU-0", 10, 1), allocated("GPU-0", train, 10), level("GPU-1", 10, 0.5)},
			want:    []string{"gpu.allocation GPU-0 train-0: 1@10", "hw.gpu.utilization GPU-0 train-0: 1@10", "hw.gpu.utilization GPU-1 : 0.5@10"},
		},
		"shared: the device's series once": {
			samples: []gpu.Sample{
				level("GPU-0", 10, 1), allocated("GPU-0", train, 10), allocated("GPU-0", infer, 10.5), used("GPU-0", train, 10, 7), used("GPU-0", infer, 10, 9),
			},
			want: []string{
				"gpu.allocation GPU-0 infer-0: 1@10.5", "gpu.allocation GPU-0 train-0: 1@10",
				"gpu.process.memory.usage GPU-0 infer-0: 9@10", "gpu.process.memory.usage GPU-0 train-0: 7@10", "hw.gpu.utilization GPU-0 : 1@10",
			},
		},
		"several allocations to one container": {
			samples: []gpu.Sample{level("GPU-0", 10, 1), allocated("GPU-0", train, 10), with(allocated("GPU-0", train, 10), func(s *gpu.Sample) { s.Attributes = "replica=1" })},
			query:   GPUQuery{Selection: GPUSelection{Allow: []GPUFilter{{Metrics: []string{"hw.gpu.utilization"}}}}},
			want:    []string{"hw.gpu.utilization GPU-0 train-0: 1@10"},
		},
		"one after the other": {
			samples: []gpu.Sample{
				level("GPU-0", 0, 0), level("GPU-0", 10, 1), allocated("GPU-0", train, 10), level("GPU-0", 20, 0.5), allocated("GPU-0", infer, 20),
				level("GPU-0", 30, 0.25), allocated("GPU-0", train, 30), level("GPU-0", 40, 0),
			},
			query: GPUQuery{Selection: GPUSelection{Allow: []GPUFilter{{Metrics: []string{"hw.gpu.utilization"}}}}, Step: time.Second},
			want:  []string{"hw.gpu.utilization GPU-0 : 0@0 0@40", "hw.gpu.utilization GPU-0 infer-0: 0.5@20", "hw.gpu.utilization GPU-0 train-0: 1@10 0.25@30"},
		},
		"a counter's growth is of whose it is now": {
			samples: []gpu.Sample{
				joules("GPU-0", -1, 10, 100), allocated("GPU-0", train, 10), joules("GPU-0", -1, 20, 110), allocated("GPU-0", train, 20),
				joules("GPU-0", -1, 30, 160), allocated("GPU-0", infer, 30),
			},
			query: GPUQuery{Selection: GPUSelection{Allow: []GPUFilter{{Metrics: []string{"hw.energy"}}}}},
			want:  []string{"hw.energy GPU-0 infer-0: 50@30", "hw.energy GPU-0 train-0: 10@20"},
		},
		"an allocation of nothing": {
			samples: []gpu.Sample{level("GPU-0", 10, 1), with(allocated("GPU-0", train, 10), func(s *gpu.Sample) { s.Value = 0 })},
			query:   GPUQuery{Selection: GPUSelection{Deny: []GPUFilter{{Metrics: []string{"gpu.allocation"}}}}},
			want:    []string{"hw.gpu.utilization GPU-0 : 1@10"},
		},
		"the device of a pod": {
			samples: []gpu.Sample{level("GPU-0", 10, 1), allocated("GPU-0", train, 10), level("GPU-1", 10, 0.5), allocated("GPU-1", infer, 10)},
			query:   GPUQuery{Selection: GPUSelection{Allow: []GPUFilter{{Pods: []string{"ml/train-0"}}}}},
			want:    []string{"gpu.allocation GPU-0 train-0: 1@10", "hw.gpu.utilization GPU-0 train-0: 1@10"},
		},
		"all but the device of a pod": {
			samples: []gpu.Sample{level("GPU-0", 10, 1), allocated("GPU-0", train, 10), level("GPU-1", 10, 0.5)},
			query:   GPUQuery{Selection: GPUSelection{Deny: []GPUFilter{{Pods: []string{"train-0"}}}}},
			want:    []string{"hw.gpu.utilization GPU-1 : 0.5@10"},
		},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, tt.want, told(timelines(t, tt.query, tt.samples...))) })
	}
}

func with(s gpu.Sample, change func(*gpu.Sample)) gpu.Sample {
	change(&s)
	return s
}

func TestGPUFilters(t *testing.T) {
	mig := used("MIG-7", train, 10, 1)
	mig.Device.Parent, mig.Attributes = "GPU-0", "a=b"
	samples := []gpu.Sample{used("GPU-1", infer, 10, 1), mig, with(level("GPU-0", 10, 1), func(s *gpu.Sample) { s.Node = "node-b" })}
	const first, second, third = "gpu.process.memory.usage GPU-1 infer-0: 1@10", "gpu.process.memory.usage MIG-7 train-0: 1@10", "hw.gpu.utilization GPU-0 : 1@10"
	for name, tt := range map[string]struct {
		filter GPUFilter
		want   []string
	}{
		"nothing":            {GPUFilter{}, []string{first, second, third}},
		"a GPU and its MIGs": {GPUFilter{Devices: []string{"GPU-0"}}, []string{second, third}},
		"a MIG instance":     {GPUFilter{Devices: []string{"MIG"}}, []string{second}},
		"the beginning":      {GPUFilter{Devices: []string{"GPU-"}}, []string{first, second, third}},
		"none":               {GPUFilter{Devices: []string{"GPU-00"}}, nil},
		"container name":     {GPUFilter{Containers: []string{"main"}}, []string{first, second}},
		"container id":       {GPUFilter{Containers: []string{"0123"}}, []string{first}},
		"namespace and pod":  {GPUFilter{Namespaces: []string{"ml"}, Pods: []string{"train-0", "nobody"}}, []string{second}},
		"node":               {GPUFilter{Nodes: []string{"node-b"}}, []string{third}},
		"metric":             {GPUFilter{Metrics: []string{"hw.gpu.utilization", "hw.power"}}, []string{third}},
		"all of one":         {GPUFilter{Metrics: []string{"hw.gpu.utilization"}, Nodes: []string{"node-a"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tt.want, told(timelines(t, GPUQuery{Selection: GPUSelection{Allow: []GPUFilter{tt.filter}}}, samples...)))
			rest := timelines(t, GPUQuery{Selection: GPUSelection{Deny: []GPUFilter{tt.filter}}}, samples...)
			assert.Len(t, rest.Series, 3-len(tt.want), "the others")
		})
	}
	either := GPUSelection{Allow: []GPUFilter{{Nodes: []string{"node-b"}}, {Pods: []string{"infer-0"}}}, Deny: []GPUFilter{{Devices: []string{"GPU-1"}}}}
	assert.Equal(t, []string{third}, told(timelines(t, GPUQuery{Selection: either}, samples...)))
}

func TestTheNewestSampleHasTheDetails(t *testing.T) {
	renumbered := level("GPU-0", 20, 1)
	renumbered.Device.Index, renumbered.Device.Model = 3, "NVIDIA H100"
	result := timelines(t, GPUQuery{}, level("GPU-0", 10, 0), renumbered)
	require.Len(t, result.Series, 1, "a GPU is its UUID")
	assert.Equal(t, renumbered.Device, result.Series[0].Device)

	restarted, named := used("GPU-0", infer, 20, 2), used("GPU-0", infer, 30, 3)
	restarted.Identity.ContainerID, named.Identity.Workload = "fedcba987654", "infer"
	result = timelines(t, GPUQuery{}, used("GPU-0", infer, 10, 1), named, restarted)
	require.Len(t, result.Series, 2, "another container of the same name is another one")
	assert.Equal(t, []string{"infer", ""}, []string{result.Series[0].Identity.Workload, result.Series[1].Identity.Workload})
	assert.EqualValues(t, 2, result.Series[0].Points[0].Samples)
}

func TestSeriesAreOrderedAndLimited(t *testing.T) {
	var samples []gpu.Sample
	for i := range 5 {
		samples = append(samples, with(level(fmt.Sprint("GPU-", i%2), 10, 1), func(s *gpu.Sample) { s.Attributes = fmt.Sprint("task=", 4-i) }))
	}
	q := GPUQuery{Limit: 2, Step: time.Second}
	result := timelines(t, q, samples...)
	assert.Equal(t, 5, result.Matched)
	var got []string
	for _, s := range result.Series {
		got = append(got, s.Device.ID+" "+s.Attributes)
	}
	assert.Equal(t, []string{"GPU-0 task=0", "GPU-0 task=2"}, got)

	q.MaxPoints = 4
	lines := NewTimelines(&q)
	for i := range samples {
		lines.Add(&samples[i])
	}
	_, err := lines.Result(Coverage{})
	var points *PointsError
	require.True(t, errors.As(err, &points))
	assert.EqualError(t, err, "the answer has more than 4 points; ask for a longer step, a shorter range or fewer series")
}

func TestCgroupsWithoutAContainer(t *testing.T) {
	one, other := used("GPU-0", flow.Identity{CgroupID: 7, Process: "python"}, 10, 1), used("GPU-0", flow.Identity{CgroupID: 8, Process: "python"}, 10, 2)
	unit := used("GPU-0", flow.Identity{CgroupID: 9, Cgroup: "/system.slice/x.service", Unit: "x.service"}, 10, 3)
	assert.Len(t, timelines(t, GPUQuery{}, one, other, unit).Series, 3)
}

func TestTimesThatNoSampleHas(t *testing.T) {
	sample := level("GPU-0", 10, 1)
	assert.Len(t, timelines(t, GPUQuery{Since: time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Hour), Until: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}, sample).Series, 1)
	assert.Empty(t, timelines(t, GPUQuery{Since: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}, sample).Series)
}
