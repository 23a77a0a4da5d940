package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/gpu"
)

const (
	// traceGPULate is how much later than it was measured a sample may reach the collector that is asked: through a gateway's queues.
	traceGPULate = time.Minute
	traceGPUStep = time.Second
)

// What `orb8 trace gpu` shows of containers: metrics of the gpu receiver's CUDA source.
const (
	metricLaunches    = "gpu.cuda.kernel.launch.calls"
	metricAllocations = "gpu.cuda.memory.allocations"
	metricCopies      = "gpu.cuda.memory.copies"
	metricWaits       = "gpu.cuda.synchronize.calls"
	metricWaitTime    = "gpu.cuda.synchronize.duration"
	attrCopyKind      = "cuda.memcpy.kind"
	attrXIDCode       = "gpu.xid.code"
)

func newTraceGPUCommand(a *app) *cobra.Command {
	every := defaultEvery
	output := outputTable
	cmd := &cobra.Command{
		Use:   "gpu",
		Short: "Show what programs have GPUs do, and errors, as they are reported",
		Long: `Shows, until interrupted, what the programs of each container asked their GPUs for (cuda: kernels and
graphs launched, memory allocated, bytes copied, and how often and how long they waited for the GPU),
and errors that the driver reports (xid), with who had the device then. A line is what happened since
the line before of the same container: both are reported as often as the gpu receiver looks
(collection_interval). cuda lines need its CUDA source.

Filter flags are those of "orb8 gpu".`,
		Example: `  # What do the pods of a namespace do with their GPUs?
  orb8 trace gpu --namespace ml

  # Errors of GPUs alone, for jq
  orb8 trace gpu -o jsonl | jq -c 'select(.kind == "xid")'`,
		Args: noArgs,
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().FuncP("every", "n", "`DURATION` from one question to the next (default 2s)", func(s string) (err error) {
		every, err = parseEvery(s)
		return err
	})
	filter := addGPUFilters(cmd, a)
	addOutputFlag(cmd, &output, rowOutputs())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := filter.check(); err != nil {
			return err
		}
		req := &orb8v1.QueryGpuRequest{Step: durationpb.New(traceGPUStep), Deny: denied(filter, (*choice).gpus)}
		req.Allow = withMetrics(filter.allow.gpus(), traceGPUMetrics())
		write := rowWriter(cmd.OutOrStdout(), output, layout{example: jsonGPUActivity{}, columns: func([]row, bool) []column {
			return traceGPUColumns(a.now().Location())
		}})
		return a.traceGPU(cmd.Context(), req, every, write)
	}
	return cmd
}

func traceGPUMetrics() []string {
	return []string{metricLaunches, metricAllocations, metricCopies, metricWaits, metricWaitTime, gpu.MetricXIDErrors, gpu.MetricAllocation}
}

// traceGPU asks again and again for what was measured in the last minute, and writes what is new: a sample may come late. What was there
// when it began is not.
func (a *app) traceGPU(ctx context.Context, req *orb8v1.QueryGpuRequest, every time.Duration, write func(row) error) error {
	next := time.NewTicker(every)
	defer next.Stop()
	told := gpuTold{}
	for first := true; ; first = false {
		req.Since = timestamppb.New(a.now().Add(-traceGPULate))
		reply, err := call(ctx, a, orb8v1connect.OrbitServiceClient.QueryGpu, req)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		for _, activity := range told.news(reply.GetSeries(), req.GetSince().AsTime()) {
			if first {
				continue
			}
			if err := write(row{time: activity.at, json: activity.json(), activity: activity}); err != nil {
				return err
			}
		}
		select {
		case <-next.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// gpuPlace is a step of a series.
type gpuPlace struct {
	series string
	start  time.Time
}

// gpuTold is how much of each step has been shown. What is older than a sample may be late is forgotten.
type gpuTold map[gpuPlace]float64

// gpuActivity is what a container did, or an error of a device, in one step.
type gpuActivity struct {
	at         time.Time
	node       string
	device     *orb8v1.GpuDevice // of an error
	code       string
	errors     float64
	containers []*orb8v1.Container

	launches, allocated, waits, waited float64
	copied                             map[string]float64 // by kind
}

// news returns what has not been shown, in the order of its time.
func (told gpuTold) news(series []*orb8v1.GpuSeries, since time.Time) []*gpuActivity {
	maps.DeleteFunc(told, func(p gpuPlace, _ float64) bool { return p.start.Before(since.Add(-traceGPUStep)) })
	owners := map[string][]*orb8v1.Container{}
	for _, s := range series {
		if s.GetMetric() == gpu.MetricAllocation && s.GetContainer() != nil {
			id := s.GetNode() + "\x00" + s.GetDevice().GetId()
			owners[id] = append(owners[id], s.GetContainer())
		}
	}
	byPlace := map[gpuPlace]*gpuActivity{}
	var all []*gpuActivity
	for _, s := range series {
		if s.GetMetric() == gpu.MetricAllocation {
			continue
		}
		key := strings.Join([]string{s.GetNode(), s.GetDevice().GetId(), fullContainerName(s.GetContainer()), s.GetContainer().GetId()}, "\x00")
		line := key
		if s.GetMetric() == gpu.MetricXIDErrors {
			line += "\x00" + s.GetAttributes()[attrXIDCode]
		}
		key += "\x00" + s.GetMetric() + "\x00" + fmt.Sprint(s.GetAttributes())
		for _, p := range s.GetPoints() {
			start := p.GetStart().AsTime()
			grown := p.GetValue() - told[gpuPlace{key, start}]
			told[gpuPlace{key, start}] = p.GetValue()
			if grown <= 0 {
				continue
			}
			activity := byPlace[gpuPlace{line, start}]
			if activity == nil {
				activity = &gpuActivity{at: start, node: s.GetNode()}
				byPlace[gpuPlace{line, start}] = activity
				all = append(all, activity)
			}
			activity.add(s, grown, owners[s.GetNode()+"\x00"+s.GetDevice().GetId()])
		}
	}
	slices.SortStableFunc(all, func(a, b *gpuActivity) int { return a.at.Compare(b.at) })
	return all
}

func (g *gpuActivity) add(s *orb8v1.GpuSeries, grown float64, owners []*orb8v1.Container) {
	if s.GetMetric() == gpu.MetricXIDErrors {
		// A device that several have is none's, but its errors are all theirs.
		g.device, g.code, g.errors, g.containers = s.GetDevice(), s.GetAttributes()[attrXIDCode], grown, owners
		return
	}
	if s.GetContainer() != nil {
		g.containers = []*orb8v1.Container{s.GetContainer()}
	}
	switch s.GetMetric() {
	case metricLaunches:
		g.launches += grown
	case metricAllocations:
		g.allocated += grown
	case metricWaits:
		g.waits += grown
	case metricWaitTime:
		g.waited += grown
	case metricCopies:
		if g.copied == nil {
			g.copied = map[string]float64{}
		}
		g.copied[s.GetAttributes()[attrCopyKind]] += grown
	}
}

func (g *gpuActivity) kind() string {
	if g.device != nil {
		return "xid"
	}
	return "cuda"
}

// what is the line's text. An error is of a card; who had it is the line's container.
func (g *gpuActivity) what() string {
	if g.device != nil {
		text := "XID " + g.code
		if g.errors > 1 {
			text += " " + strconv.FormatFloat(g.errors, 'f', 0, 64) + " times"
		}
		return text + " on GPU " + strconv.FormatUint(uint64(g.device.GetIndex()), 10) + " " + g.device.GetId()
	}
	var parts []string
	if g.launches > 0 {
		parts = append(parts, grouped(uint64(g.launches))+" launched")
	}
	if g.allocated > 0 {
		parts = append(parts, bytesText(g.allocated)+" allocated")
	}
	for _, kind := range slices.Sorted(maps.Keys(g.copied)) {
		parts = append(parts, bytesText(g.copied[kind])+" "+cmp.Or(copyTexts()[kind], "copied"))
	}
	if g.waits > 0 || g.waited > 0 {
		parts = append(parts, fmt.Sprintf("%s of %v", plural(uint64(g.waits), "wait"), time.Duration(g.waited*float64(time.Second)).Round(time.Microsecond)))
	}
	return strings.Join(parts, ", ")
}

func copyTexts() map[string]string {
	return map[string]string{
		"host_to_device": "to the GPU", "device_to_host": "from the GPU", "device_to_device": "on the GPU", "host_to_host": "on the host",
	}
}

func (g *gpuActivity) names() string {
	var names []string
	for _, c := range g.containers {
		names = append(names, fullContainerName(c))
	}
	return strings.Join(names, ",")
}

func traceGPUColumns(zone *time.Location) []column {
	return []column{
		timeColumn("TIME", eventLayout, zone, row.when),
		{title: "NODE", text: func(r row) string { return r.activity.node }, flexible: true, room: 16},
		{title: "KIND", text: func(r row) string { return r.activity.kind() }, room: len("cuda"), style: func(r row) string {
			if r.activity.device != nil {
				return styleRed
			}
			return ""
		}},
		{title: "CONTAINER", text: func(r row) string { return r.activity.names() }, flexible: true, room: nameRoom},
		{title: "WHAT", text: func(r row) string { return r.activity.what() }, endless: true},
	}
}

// jsonGPUActivity is a line as JSON.
type jsonGPUActivity struct {
	// Kind is cuda or xid.
	Kind       string             `json:"kind"`
	Time       string             `json:"time"`
	Node       string             `json:"node"`
	Containers []jsonGPUContainer `json:"containers"`
	// Of xid.
	GPU    *uint32 `json:"gpu,omitempty"`
	UUID   string  `json:"uuid,omitempty"`
	Code   *uint64 `json:"code,omitempty"`
	Errors uint64  `json:"errors,omitempty"`
	// Of cuda: numbers of calls, bytes, and seconds.
	Launches  uint64            `json:"launches,omitempty"`
	Allocated uint64            `json:"allocated,omitempty"`
	Copied    map[string]uint64 `json:"copied,omitempty"`
	Waits     uint64            `json:"waits,omitempty"`
	Waited    float64           `json:"waited,omitempty"`
}

type jsonGPUContainer struct {
	Namespace   string `json:"namespace,omitempty"`
	Pod         string `json:"pod,omitempty"`
	Container   string `json:"container,omitempty"`
	ContainerID string `json:"containerId,omitempty"`
	Cgroup      string `json:"cgroup,omitempty"`
	Unit        string `json:"unit,omitempty"`
}

func (g *gpuActivity) json() jsonGPUActivity {
	j := jsonGPUActivity{
		Kind: g.kind(), Time: rfc3339(timestamppb.New(g.at)), Node: g.node, Containers: newJSONGPUContainers(g.containers),
		UUID: g.device.GetId(), Errors: uint64(g.errors), Launches: uint64(g.launches), Allocated: uint64(g.allocated),
		Waits: uint64(g.waits), Waited: g.waited,
	}
	if g.device != nil {
		j.GPU = new(g.device.GetIndex())
		if code, err := strconv.ParseUint(g.code, 10, 64); err == nil {
			j.Code = &code
		}
	}
	for kind, n := range g.copied {
		if j.Copied == nil {
			j.Copied = map[string]uint64{}
		}
		j.Copied[kind] = uint64(n)
	}
	return j
}
