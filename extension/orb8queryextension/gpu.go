package orb8queryextension

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/storage"
)

// minStep keeps the number of points in proportion to what is known: GPUs are asked every few seconds.
const minStep = time.Second

func (s *service) QueryGpu(ctx context.Context, req *connect.Request[orb8v1.QueryGpuRequest]) (*connect.Response[orb8v1.QueryGpuResponse], error) {
	return answer(ctx, s, req, parseGPUQuery, s.store.QueryGPU, gpuResponse)
}

// parseGPUQuery checks a request. Errors name the field and its value.
func parseGPUQuery(req *orb8v1.QueryGpuRequest, max limits) (storage.GPUQuery, error) {
	since, until, err := parseRange(req.GetSince(), req.GetUntil())
	if err != nil {
		return storage.GPUQuery{}, err
	}
	query := storage.GPUQuery{Since: since, Until: until, Limit: parseLimit(req.GetLimit(), max.rows), MaxPoints: max.groups}
	if query.Selection.Allow, query.Selection.Deny, err = parseLists(
		"allow", "deny", req.GetAllow(), req.GetDeny(), gpuFilterValues, parseGPUFilter,
	); err != nil {
		return storage.GPUQuery{}, err
	}
	if step := req.GetStep(); step != nil {
		query.Step = step.AsDuration()
		if !step.IsValid() || query.Step < minStep {
			return storage.GPUQuery{}, fmt.Errorf("step: %s is too short; use %s or more", query.Step, minStep)
		}
	}
	return query, nil
}

func gpuFilterValues(f *orb8v1.GpuFilter) int {
	return len(f.GetPods()) + len(f.GetNamespaces()) + len(f.GetContainers()) + len(f.GetNodes()) + len(f.GetDevices()) + len(f.GetMetrics())
}

func parseGPUFilter(f *orb8v1.GpuFilter) (storage.GPUFilter, error) {
	var out storage.GPUFilter
	var errs [6]error
	out.Pods, errs[0] = parseAll("pods", f.GetPods(), parseQualified("pod"))
	out.Namespaces, errs[1] = parseAll("namespaces", f.GetNamespaces(), parseName)
	out.Containers, errs[2] = parseAll("containers", f.GetContainers(), parseName)
	out.Nodes, errs[3] = parseAll("nodes", f.GetNodes(), parseName)
	out.Devices, errs[4] = parseAll("devices", f.GetDevices(), parseName)
	out.Metrics, errs[5] = parseAll("metrics", f.GetMetrics(), parseName)
	return out, cmp.Or(errs[:]...)
}

func gpuResponse(_ *storage.GPUQuery, result *storage.GPUResult) *orb8v1.QueryGpuResponse {
	series := make([]*orb8v1.GpuSeries, len(result.Series))
	for i := range series {
		series[i] = gpuSeriesMessage(&result.Series[i])
	}
	return &orb8v1.QueryGpuResponse{
		Series:       series,
		Lost:         lossMessage(result.Lost),
		Truncated:    result.Matched > len(series),
		Matched:      uint64(result.Matched),
		Oldest:       timestamppb.New(result.Oldest),
		MissingNodes: result.MissingNodes,
	}
}

func gpuSeriesMessage(s *storage.GPUSeries) *orb8v1.GpuSeries {
	// Attributes in another form than the store's own are left out: there are none.
	attributes, _ := gpu.ParseAttributes(s.Attributes)
	m := &orb8v1.GpuSeries{
		Node:       s.Node,
		Device:     gpuDeviceMessage(&s.Device),
		Metric:     s.Metric,
		Unit:       s.Unit,
		Attributes: attributes,
		Counter:    s.Counter,
		Points:     make([]*orb8v1.GpuPoint, len(s.Points)),
	}
	if s.Identity != (flow.Identity{}) {
		m.Container = containerMessage(&s.Identity)
	}
	for i := range s.Points {
		p := &s.Points[i]
		m.Points[i] = &orb8v1.GpuPoint{
			Start: timestamppb.New(p.Start), Value: p.Value, Min: p.Min, Max: p.Max, Last: p.Last, Samples: p.Samples,
		}
	}
	return m
}

// gpuDeviceMessage returns nil where it is not known on which device something was done.
func gpuDeviceMessage(d *gpu.Device) *orb8v1.GpuDevice {
	if d.ID == "" {
		return nil
	}
	return &orb8v1.GpuDevice{
		Id: d.ID, Parent: d.Parent, Index: d.Index, Model: d.Model, PciAddress: d.PCIAddress, MigProfile: d.MIGProfile,
	}
}

func gpuStatusMessage(s *gpu.Status) *orb8v1.GpuStatus {
	if s == nil {
		return nil
	}
	m := &orb8v1.GpuStatus{
		Interval:      durationpb.New(s.Interval),
		MigInstances:  s.Instances,
		Scrapes:       s.Scrapes,
		FailedScrapes: s.FailedScrapes,
		ScrapeTime:    durationpb.New(s.ScrapeTime),
		LostEvents:    s.LostEvents,
	}
	for _, model := range slices.Sorted(maps.Keys(s.Models)) {
		m.Models = append(m.Models, &orb8v1.GpuModel{Model: model, Gpus: s.Models[model]})
	}
	for i := range s.Sources {
		from := &s.Sources[i]
		m.Sources = append(m.Sources, &orb8v1.GpuSource{
			Name: from.Name, State: from.State, Reason: from.Reason, ScrapeTime: durationMessage(from.ScrapeTime),
		})
	}
	for i := range s.Conflicts {
		c := &s.Conflicts[i]
		m.Conflicts = append(m.Conflicts, &orb8v1.GpuConflict{
			Device: c.Device, Kind: c.Kind, About: c.About, First: c.First, Other: c.Other, Since: timestamppb.New(c.Since),
		})
	}
	return m
}
