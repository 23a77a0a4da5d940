package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/why"
)

const (
	// whySlots is how many slots a range is divided into, at most.
	whySlots = 180
	// whyPeers is how many peers are asked for, and whyFlows how many flows, for their round-trip times.
	whyPeers = 20
	whyFlows = 1000
)

// whyQuestion gathers what is known of one pod.
type whyQuestion struct {
	app          *app
	of           *orb8v1.GpuFilter
	since, until time.Time
	// explicit is whether the user said until when.
	explicit bool
}

// whyAnswer is the verdict, and what it is from.
type whyAnswer struct {
	// kind is pod or container.
	kind    string
	name    string
	node    string
	input   *why.Input
	report  *why.Report
	devices []whyDevice
	peers   []whyPeer
	// network, synchronise tell whether that is measured.
	network, synchronise bool
	// missing are sentences about sources that are off, and what else is not known.
	missing []string
}

// whyDevice is a GPU of the pod. Its utilization is NaN where that is not known.
type whyDevice struct {
	device      *orb8v1.GpuDevice
	utilization float64
}

// whyPeer is with whom the pod talked while its GPUs were idle.
type whyPeer struct {
	name           string
	received, sent why.Traffic
	// rtt is the greatest smoothed round-trip time; 0 is not known.
	rtt time.Duration
}

func (q *whyQuestion) ask(ctx context.Context) (*whyAnswer, error) {
	status, err := call(ctx, q.app, orb8v1connect.OrbitServiceClient.GetStatus, &orb8v1.GetStatusRequest{})
	if err != nil {
		return nil, err
	}
	series, err := q.gpus(ctx, q.since, q.until, niceStep(q.until.Sub(q.since)/whySlots))
	if err != nil {
		return nil, err
	}
	a := &whyAnswer{}
	if err := a.whose(series, q.of); err != nil {
		return nil, err
	}
	node := nodeNamed(status, a.node)
	interval := max(node.GetSyscalls().GetInterval().AsDuration(), node.GetNetwork().GetInterval().AsDuration())
	// Two records of each kind fit into a slot, or it would be chance which is in which.
	slot := niceStep(max(q.until.Sub(q.since)/whySlots, spacing(series), 2*interval))
	start, end := q.since.Truncate(slot), q.until.Truncate(slot)
	if q.explicit && end.Before(q.until) {
		end = end.Add(slot)
	} else if !q.explicit {
		// The last records are still to come.
		end = q.until.Add(-interval).Truncate(slot)
	}
	if !start.Before(end) {
		return nil, usagef("the range is shorter than %s, which what was measured is apart; ask for more with --since", slot)
	}
	in := &why.Input{Start: start, Slot: slot, Slots: int(end.Sub(start) / slot)}
	a.input = in
	if series, err = q.gpus(ctx, start, end, slot); err != nil {
		return nil, err
	}
	a.takeGPUs(series)
	if node.GetSyscalls() != nil {
		if err := q.calls(ctx, a); err != nil {
			return nil, err
		}
	}
	if node.GetNetwork() != nil {
		if err := q.traffic(ctx, a); err != nil {
			return nil, err
		}
	}
	a.report = why.Analyse(in)
	if a.network {
		if err := q.peers(ctx, a); err != nil {
			return nil, err
		}
	}
	a.sources(node)
	return a, nil
}

// niceStep is d or the next longer step that divides minutes and hours.
func niceStep(d time.Duration) time.Duration {
	for _, s := range []int{1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800} {
		if step := time.Duration(s) * time.Second; d <= step {
			return step
		}
	}
	return (d + time.Hour - 1).Truncate(time.Hour)
}

func (q *whyQuestion) gpus(ctx context.Context, since, until time.Time, step time.Duration) ([]*orb8v1.GpuSeries, error) {
	filter := &orb8v1.GpuFilter{Pods: q.of.GetPods(), Containers: q.of.GetContainers(), Metrics: []string{
		gpu.MetricAllocation, gpu.MetricUtilization, gpu.MetricSMActivity, gpu.MetricProcessUtilization, gpu.MetricProcessMemory, metricWaitTime,
		metricLaunches,
	}}
	reply, err := call(ctx, q.app, orb8v1connect.OrbitServiceClient.QueryGpu, &orb8v1.QueryGpuRequest{
		Since: timestamppb.New(since), Until: timestamppb.New(until), Step: durationpb.New(step), Allow: []*orb8v1.GpuFilter{filter},
	})
	if err != nil {
		return nil, err
	}
	if reply.GetTruncated() {
		return nil, fmt.Errorf("cannot read all of the pod's GPUs: %d series, of which the collector gives %d", reply.GetMatched(), len(reply.GetSeries()))
	}
	return reply.GetSeries(), nil
}

// whose finds out which pod it is, and where. A name may be several pods'.
func (a *whyAnswer) whose(series []*orb8v1.GpuSeries, of *orb8v1.GpuFilter) error {
	pods := map[string]string{}
	a.kind = "pod"
	if len(of.GetPods()) == 0 {
		a.kind = "container"
	}
	for _, s := range series {
		c := s.GetContainer()
		name := containerName(c)
		if c.GetPod() != "" {
			name, a.kind = c.GetNamespace()+"/"+c.GetPod(), "pod"
		}
		pods[name] = s.GetNode()
	}
	names := slices.Sorted(maps.Keys(pods))
	switch {
	case len(names) > 1:
		return usagef("several have this name: %s; name one", anyOf(names))
	case len(names) == 1:
		a.name, a.node = names[0], pods[names[0]]
	default:
		a.name = cmp.Or(append(slices.Clone(of.GetPods()), of.GetContainers()...)...)
	}
	return nil
}

// nodeNamed returns the status of a node; of the only one where the name is not known.
func nodeNamed(status *orb8v1.GetStatusResponse, name string) *orb8v1.NodeStatus {
	nodes := status.GetNodes()
	if len(nodes) == 1 && name == "" {
		return nodes[0]
	}
	for _, n := range nodes {
		if n.GetNode() == name {
			return n
		}
	}
	return nil
}

// spacing is how far apart the samples of the densest series are.
func spacing(series []*orb8v1.GpuSeries) time.Duration {
	var least time.Duration
	for _, s := range series {
		points := s.GetPoints()
		if s.GetCounter() || len(points) < 2 {
			continue
		}
		samples := uint32(0)
		for _, p := range points[1:] {
			samples += p.GetSamples()
		}
		span := points[len(points)-1].GetStart().AsTime().Sub(points[0].GetStart().AsTime())
		// Scrapes are never apart to the millisecond.
		apart := (span / time.Duration(max(1, samples))).Round(time.Second)
		if least == 0 || apart < least {
			least = apart
		}
	}
	return least
}

// takeGPUs makes the utilization of the pod's GPUs from their series: what was measured for its processes, else for the whole device
// while the pod alone had it.
func (a *whyAnswer) takeGPUs(series []*orb8v1.GpuSeries) {
	in := a.input
	byDevice := map[string]*deviceSlots{}
	var order []*deviceSlots
	for _, s := range series {
		slots := in.Slots
		if s.GetMetric() == metricWaitTime || s.GetMetric() == metricLaunches {
			// Who launches kernels is watched, and may never synchronise.
			if in.Synchronising == nil {
				in.Synchronising = make([]float64, slots)
			}
			if s.GetMetric() == metricWaitTime {
				a.eachPoint(s, func(slot int, p *orb8v1.GpuPoint) { in.Synchronising[slot] += p.GetValue() })
			}
			continue
		}
		if s.GetDevice() == nil || !isAsSuch(s) {
			continue
		}
		d := byDevice[s.GetDevice().GetId()]
		if d == nil {
			d = &deviceSlots{device: s.GetDevice(), there: make([]bool, slots), levels: map[string][]float64{}}
			byDevice[s.GetDevice().GetId()], order = d, append(order, d)
		}
		a.eachPoint(s, func(slot int, p *orb8v1.GpuPoint) { d.add(s.GetMetric(), slot, slots, p.GetValue()) })
	}
	a.synchronise = in.Synchronising != nil
	in.Utilization = make([]float64, in.Slots)
	for slot := range in.Utilization {
		var levels []float64
		for _, d := range order {
			if u := d.utilization(slot); !math.IsNaN(u) {
				levels = append(levels, u)
			}
		}
		in.Utilization[slot] = mean(levels)
	}
	for _, d := range order {
		var levels []float64
		for slot := range in.Slots {
			if u := d.utilization(slot); !math.IsNaN(u) {
				levels = append(levels, u)
			}
		}
		a.devices = append(a.devices, whyDevice{device: d.device, utilization: mean(levels)})
	}
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values)) // NaN of none
}

// eachPoint calls take with the points of a series and their slots.
func (a *whyAnswer) eachPoint(s *orb8v1.GpuSeries, take func(slot int, p *orb8v1.GpuPoint)) {
	for _, p := range s.GetPoints() {
		if slot, ok := a.slotOf(p.GetStart()); ok {
			take(slot, p)
		}
	}
}

func (a *whyAnswer) slotOf(at *timestamppb.Timestamp) (int, bool) {
	since := at.AsTime().Sub(a.input.Start)
	slot := int(since / a.input.Slot)
	return slot, since >= 0 && slot < a.input.Slots
}

// deviceSlots is what was measured of a device, slot by slot.
type deviceSlots struct {
	device *orb8v1.GpuDevice
	// there is where the pod is known to have the device.
	there []bool
	// levels are by metric: the sum over the pod's containers, NaN where there is none.
	levels map[string][]float64
}

func (d *deviceSlots) add(metric string, slot, slots int, value float64) {
	d.there[slot] = true
	levels := d.levels[metric]
	if levels == nil {
		levels = make([]float64, slots)
		for i := range levels {
			levels[i] = math.NaN()
		}
		d.levels[metric] = levels
	}
	if math.IsNaN(levels[slot]) {
		levels[slot] = 0
	}
	levels[slot] += value
}

func (d *deviceSlots) utilization(slot int) float64 {
	for _, metric := range []string{gpu.MetricProcessUtilization, gpu.MetricUtilization, gpu.MetricSMActivity} {
		if levels := d.levels[metric]; levels != nil && !math.IsNaN(levels[slot]) {
			return min(max(levels[slot], 0), 1)
		}
	}
	if d.levels[gpu.MetricProcessUtilization] != nil && d.there[slot] {
		// The driver tells nothing of processes that did nothing.
		return 0
	}
	return math.NaN()
}
