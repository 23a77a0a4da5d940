package main

import (
	"bufio"
	"cmp"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/gpu"
)

const (
	// gpuErrorsRange is how far back `orb8 gpu --errors` looks unless it is told.
	gpuErrorsRange = 24 * time.Hour
	// gpuErrorSteps is about how many steps that range is divided into, each at least as long as agents ask their GPUs by default.
	gpuErrorSteps   = 720
	minGPUErrorStep = 10 * time.Second
)

// What an error is seen by: counters that grow, and levels that rise.
const (
	metricHWErrors     = "hw.errors"
	metricRowsRemapped = "gpu.rows.remapped"
	metricRowsFailed   = "gpu.rows.failed"
	attrErrorType      = "error.type"
	eccUncorrected     = "ecc_uncorrected"
	attrRowsCause      = "gpu.rows.cause"
)

func gpuErrorMetrics() []string {
	return []string{gpu.MetricXIDErrors, metricHWErrors, metricRowsRemapped, metricRowsFailed}
}

// gpuError is what went wrong with a device within one step.
type gpuError struct {
	at     time.Time
	node   string
	device *orb8v1.GpuDevice
	// kind is xid, ecc or rows, and detail the code or the cause, or failed of a remapping.
	kind, detail string
	count        float64
	containers   []*orb8v1.Container
}

// gpuErrors answers `orb8 gpu --errors`: first which devices had errors in the range at all, then when these had them.
func (a *app) gpuErrors(cmd *cobra.Command, req *orb8v1.QueryGpuRequest, output string) error {
	ctx := cmd.Context()
	ask := proto.CloneOf(req)
	until := a.now()
	if ask.Until != nil {
		until = ask.Until.AsTime()
	}
	if ask.Since == nil {
		ask.Since = timestamppb.New(until.Add(-gpuErrorsRange))
	}
	ask.Allow = withMetrics(req.GetAllow(), gpuErrorMetrics())
	reply, err := call(ctx, a, orb8v1connect.OrbitServiceClient.QueryGpu, ask)
	if err != nil {
		return err
	}
	var found []*gpuError
	step := max(niceStep(until.Sub(ask.Since.AsTime())/gpuErrorSteps), minGPUErrorStep)
	if devices := erring(reply.GetSeries()); len(devices) > 0 {
		when := proto.CloneOf(ask)
		when.Step = durationpb.New(step)
		for _, f := range when.Allow {
			f.Metrics = append(f.Metrics, gpu.MetricAllocation)
			if len(f.Devices) == 0 && len(devices) <= maxGPUFilterDevices {
				f.Devices = devices
			}
		}
		detailed, err := call(ctx, a, orb8v1connect.OrbitServiceClient.QueryGpu, when)
		if err != nil {
			return err
		}
		found = findGPUErrors(detailed.GetSeries())
	}
	rows := make([]row, len(found))
	for i, e := range found {
		rows[i] = row{time: e.at, json: e.json(step)}
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	columns := func(_ []row, wide bool) []column { return gpuErrorColumns(a.now().Location(), wide) }
	w := newRowsWriter(out, output, layout{example: jsonGPUError{}, columns: columns}, screenOf(cmd.OutOrStdout()))
	if err := errors.Join(w.add(rows), w.end(), out.Flush()); err != nil {
		return err
	}
	switch {
	case len(rows) > 0 && output == outputTable:
		a.notice("each line is what was counted in the %v from its time on", step)
	case len(rows) == 0:
		a.notice("no error of a GPU in this range")
	}
	if reply.GetTruncated() {
		a.notice("not all GPUs were looked at; the collector gives no more at once, so narrow the filters")
	}
	reportGaps(cmd.ErrOrStderr(), "GPUs", req, reply)
	return nil
}

// errorOf tells what kind of error a series is of, if it is of one: what was corrected is none.
func errorOf(s *orb8v1.GpuSeries) (kind, detail string, ok bool) {
	switch s.GetMetric() {
	case gpu.MetricXIDErrors:
		return "xid", s.GetAttributes()[attrXIDCode], true
	case metricHWErrors:
		return "ecc", "double-bit", s.GetAttributes()[attrErrorType] == eccUncorrected
	case metricRowsRemapped:
		return "rows", s.GetAttributes()[attrRowsCause], true
	case metricRowsFailed:
		return "rows", "failed", true
	}
	return "", "", false
}

// erring are the devices that may have had an error in a range: a counter grew, or a level was not the same all the time.
func erring(series []*orb8v1.GpuSeries) (devices []string) {
	for _, s := range series {
		if _, _, ok := errorOf(s); !ok {
			continue
		}
		for _, p := range s.GetPoints() {
			if s.GetCounter() && p.GetValue() > 0 || !s.GetCounter() && p.GetMax() > p.GetMin() {
				devices = append(devices, s.GetDevice().GetId())
			}
		}
	}
	// A level of a device that changed hands is in several series, each of which may be level.
	level := map[string]float64{}
	for _, s := range series {
		if _, _, ok := errorOf(s); !ok || s.GetCounter() {
			continue
		}
		key := seriesOfDevice(s)
		for _, p := range s.GetPoints() {
			if before, again := level[key]; again && before != p.GetMax() {
				devices = append(devices, s.GetDevice().GetId())
			}
			level[key] = p.GetMax()
		}
	}
	slices.Sort(devices)
	return slices.Compact(devices)
}

// seriesOfDevice is what series of one device have in common, whoever had it.
func seriesOfDevice(s *orb8v1.GpuSeries) string {
	kind, detail, _ := errorOf(s)
	return strings.Join([]string{s.GetNode(), s.GetDevice().GetId(), kind, detail}, "\x00")
}

// findGPUErrors returns the errors of each step, in the order of their time.
func findGPUErrors(series []*orb8v1.GpuSeries) (all []*gpuError) {
	owners := map[gpuPlace][]*orb8v1.Container{}
	points := map[string][]*orb8v1.GpuPoint{}
	of := map[string]*orb8v1.GpuSeries{}
	for _, s := range series {
		if s.GetMetric() == gpu.MetricAllocation && s.GetContainer() != nil {
			for _, p := range s.GetPoints() {
				place := gpuPlace{s.GetNode() + "\x00" + s.GetDevice().GetId(), p.GetStart().AsTime()}
				if !slices.ContainsFunc(owners[place], func(c *orb8v1.Container) bool { return proto.Equal(c, s.GetContainer()) }) {
					owners[place] = append(owners[place], s.GetContainer())
				}
			}
		}
		if _, _, ok := errorOf(s); ok {
			key := seriesOfDevice(s)
			points[key], of[key] = append(points[key], s.GetPoints()...), s
		}
	}
	for _, key := range slices.Sorted(maps.Keys(points)) {
		s := of[key]
		kind, detail, _ := errorOf(s)
		slices.SortStableFunc(points[key], func(a, b *orb8v1.GpuPoint) int { return a.GetStart().AsTime().Compare(b.GetStart().AsTime()) })
		before := 0.0
		for i, p := range points[key] {
			grown := p.GetValue()
			if !s.GetCounter() {
				if i == 0 {
					before = p.GetMin()
				}
				grown = p.GetLast() - before
				before = p.GetLast()
			}
			if grown <= 0 {
				continue
			}
			at := p.GetStart().AsTime()
			all = append(all, &gpuError{
				at: at, node: s.GetNode(), device: s.GetDevice(), kind: kind, detail: detail, count: grown,
				containers: owners[gpuPlace{s.GetNode() + "\x00" + s.GetDevice().GetId(), at}],
			})
		}
	}
	slices.SortStableFunc(all, func(a, b *gpuError) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.node, b.node), cmp.Compare(a.device.GetIndex(), b.device.GetIndex()))
	})
	return all
}

func (e *gpuError) what() string {
	switch {
	case e.kind == "ecc":
		return plural(uint64(e.count), "double-bit error") + " of memory"
	case e.detail == "failed":
		return "a remapping of rows failed"
	case e.kind == "rows":
		return plural(uint64(e.count), "row") + " remapped, " + e.detail
	case e.count > 1:
		return "XID " + e.detail + " " + grouped(uint64(e.count)) + " times"
	}
	return "XID " + e.detail
}

func (e *gpuError) names() string {
	var names []string
	for _, c := range e.containers {
		names = append(names, fullContainerName(c))
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ",")
}

func gpuErrorColumns(zone *time.Location, wide bool) []column {
	of := func(text func(jsonGPUError) string) func(row) string {
		return func(r row) string { return text(r.json.(jsonGPUError)) }
	}
	columns := []column{
		timeColumn("TIME", dateLayout, zone, row.when),
		{title: "NODE", text: of(func(e jsonGPUError) string { return e.Node }), flexible: true},
		{title: "GPU", right: true, text: of(func(e jsonGPUError) string { return strconv.FormatUint(uint64(e.GPU), 10) })},
		{title: "WHAT", text: of(func(e jsonGPUError) string { return e.Message }), style: func(row) string { return styleRed }},
		{title: "CONTAINER", text: of(func(e jsonGPUError) string { return e.names }), flexible: true},
	}
	if wide {
		columns = append(columns, column{title: "MODEL", text: of(func(e jsonGPUError) string { return e.Model })},
			column{title: "UUID", text: of(func(e jsonGPUError) string { return e.UUID })})
	}
	return columns
}

// jsonGPUError is an error as JSON.
type jsonGPUError struct {
	Time string `json:"time"`
	// StepSeconds is how long after Time it may have been.
	StepSeconds float64 `json:"stepSeconds"`
	Node        string  `json:"node"`
	GPU         uint32  `json:"gpu"`
	UUID        string  `json:"uuid"`
	Parent      string  `json:"parent,omitempty"`
	Model       string  `json:"model,omitempty"`
	// Kind is xid, ecc or rows; Detail the code, double-bit, or the cause of a remapping, or failed.
	Kind    string `json:"kind"`
	Detail  string `json:"detail"`
	Count   uint64 `json:"count"`
	Message string `json:"message"`
	// Containers had the device in the step.
	Containers []jsonGPUContainer `json:"containers"`

	names string
}

func (e *gpuError) json(step time.Duration) jsonGPUError {
	return jsonGPUError{
		Time: rfc3339(timestamppb.New(e.at)), StepSeconds: step.Seconds(), Node: e.node, GPU: e.device.GetIndex(), UUID: e.device.GetId(),
		Parent: e.device.GetParent(), Model: e.device.GetModel(), Kind: e.kind, Detail: e.detail, Count: uint64(e.count), Message: e.what(),
		Containers: newJSONGPUContainers(e.containers), names: e.names(),
	}
}

func newJSONGPUContainers(all []*orb8v1.Container) []jsonGPUContainer {
	containers := []jsonGPUContainer{}
	for _, c := range all {
		containers = append(containers, jsonGPUContainer{
			Namespace: c.GetNamespace(), Pod: c.GetPod(), Container: c.GetName(), ContainerID: c.GetId(), Cgroup: c.GetCgroup(), Unit: c.GetUnit(),
		})
	}
	return containers
}
