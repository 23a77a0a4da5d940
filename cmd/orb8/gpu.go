package main

import (
	"bufio"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/gpu"
)

const (
	// gpuRange is how far back `orb8 gpu` looks unless it is told: GPUs are asked once a minute at least.
	gpuRange = 2 * time.Minute
	// maxGPUFilterDevices is how many devices a request names; of more, all are asked for. A collector compares with at most 1024.
	maxGPUFilterDevices = 500
)

func newGPUCommand(a *app) *cobra.Command {
	req := &orb8v1.QueryGpuRequest{}
	output, failures := outputTable, false
	cmd := &cobra.Command{
		Use:   "gpu",
		Short: "Show GPUs: how busy each is, and with which pods",
		Long: `Shows a line for each GPU and MIG instance that has reported in the last 2 minutes, or since --since, and
below it one for each container that has it. UTIL and POWER are means of the range, MEMORY and TEMP are
the newest. What is measured for the whole GPU is a container's only while no other has that GPU; where
several share it, theirs is what was measured for their processes, and - where nothing was.

With --errors a line is an error of a GPU instead, of the last day or since --since: XID errors of the
driver, double-bit errors of memory and rows that were remapped, with who had the GPU then.

` + filterHelp,
		Example: `  # Which pods have GPUs, and do they use them?
  orb8 gpu

  # How busy were the GPUs of one pod in the last hour?
  orb8 gpu --pod ml/train-0 --since 1h

  # What went wrong with the GPUs of a node in the last week?
  orb8 gpu --errors --node worker-1 --since 7d

  # Pods with a GPU that they hardly used, over a day
  orb8 gpu --since 1d -o jsonl | jq -c 'select(.pod and .utilization < 0.05) | [.namespace, .pod, .model, .utilization]'`,
		Args: noArgs,
	}
	cmd.Flags().SortFlags = false
	addTimeFlags(cmd, a, "what was measured", &req.Since, &req.Until)
	filter := addGPUFilters(cmd, a)
	cmd.Flags().BoolVar(&failures, "errors", false, "show what went wrong, and when, instead of what the GPUs did")
	addOutputFlag(cmd, &output, rowOutputs())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := filter.check(); err != nil {
			return err
		}
		if err := checkRange(req); err != nil {
			return err
		}
		req.Allow, req.Deny = filter.allow.gpus(), denied(filter, (*choice).gpus)
		if failures {
			return a.gpuErrors(cmd, req, output)
		}
		return a.queryGPU(cmd, req, output)
	}
	return cmd
}

// addGPUFilters gives a command the flags that choose GPUs.
func addGPUFilters(cmd *cobra.Command, a *app) *filters {
	f := newFilterFlags(cmd, a, "GPUs")
	addList(f, "pod", "", "of this `POD` or NAMESPACE/POD", func(c *choice) *[]string { return &c.flow.Pods }, parseQualified)
	addList(f, "namespace", "", "of this Kubernetes `NAMESPACE`", func(c *choice) *[]string { return &c.flow.Namespaces }, parseName)
	addList(f, "container", "", "of this container `NAME` or id (its first 4 digits or more)",
		func(c *choice) *[]string { return &c.flow.Containers }, parseName)
	f.addNode("of this `NODE`")
	addList(f, "device", "", "with this `UUID`, or one that begins so; a GPU stands for its MIG instances too",
		func(c *choice) *[]string { return &c.devices }, parseName)
	f.completeGPUs()
	return f.filters
}

// completeGPUs makes the shell offer the devices of the last hour, and who had them.
func (f *filterFlags) completeGPUs() {
	for flag, namesOf := range map[string]func(*orb8v1.GpuSeries) []string{
		"device":    func(s *orb8v1.GpuSeries) []string { return []string{s.GetDevice().GetId()} },
		"namespace": func(s *orb8v1.GpuSeries) []string { return []string{s.GetContainer().GetNamespace()} },
		"container": func(s *orb8v1.GpuSeries) []string { return []string{s.GetContainer().GetName()} },
		"pod":       gpuPods,
	} {
		f.completeNames(flag, func(ctx context.Context, _ string) []string { return f.app.seenOnGPUs(ctx, namesOf) })
	}
}

func gpuPods(s *orb8v1.GpuSeries) []string {
	c := s.GetContainer()
	return []string{c.GetPod(), c.GetNamespace() + "/" + c.GetPod()}
}

// seenOnGPUs returns names that the series of the last hour have.
func (a *app) seenOnGPUs(ctx context.Context, namesOf func(*orb8v1.GpuSeries) []string) []string {
	reply, err := call(ctx, a, orb8v1connect.OrbitServiceClient.QueryGpu, &orb8v1.QueryGpuRequest{
		Since: timestamppb.New(a.now().Add(-completionAge)),
		Allow: []*orb8v1.GpuFilter{{Metrics: []string{gpu.MetricAllocation, gpu.MetricUtilization, gpu.MetricMemoryUsage}}},
	})
	if err != nil {
		return nil
	}
	var names []string
	for _, s := range reply.GetSeries() {
		names = append(names, namesOf(s)...)
	}
	slices.Sort(names)
	names = slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == "" || name == "/" })
	return names[:min(len(names), completionNames)]
}

func (c *choice) gpus() []*orb8v1.GpuFilter {
	f := &orb8v1.GpuFilter{
		Pods: c.flow.Pods, Namespaces: c.flow.Namespaces, Containers: c.flow.Containers, Nodes: c.flow.Nodes, Devices: c.devices,
	}
	if proto.Size(f) == 0 {
		return nil
	}
	return []*orb8v1.GpuFilter{f}
}

// deviceMetrics are those of a whole device that a line is made of, containerMetrics those of a container.
func deviceMetrics() []string {
	return []string{
		gpu.MetricUtilization, gpu.MetricSMActivity, gpu.MetricMemoryUsage, gpu.MetricMemoryLimit, gpu.MetricPower, gpu.MetricPowerLimit,
		gpu.MetricEnergy, gpu.MetricTemperature, gpu.MetricXIDErrors,
	}
}

func containerMetrics() []string {
	return []string{gpu.MetricAllocation, gpu.MetricProcessMemory, gpu.MetricProcessUtilization}
}

func (a *app) queryGPU(cmd *cobra.Command, req *orb8v1.QueryGpuRequest, output string) error {
	ctx := cmd.Context()
	ask := proto.CloneOf(req)
	if ask.Since == nil && ask.Until == nil {
		ask.Since = timestamppb.New(a.now().Add(-gpuRange))
	}
	ask.Allow = withMetrics(req.GetAllow(), slices.Concat(deviceMetrics(), containerMetrics()))
	reply, err := call(ctx, a, orb8v1connect.OrbitServiceClient.QueryGpu, ask)
	if err != nil {
		return err
	}
	var all gpuUses
	all.add(reply.GetSeries())
	devices := reply
	if slices.ContainsFunc(req.GetAllow(), ofContainers) && len(all.all) > 0 {
		// The reply has nothing of devices that others have too.
		if devices, err = call(ctx, a, orb8v1connect.OrbitServiceClient.QueryGpu, all.devicesRequest(ask)); err != nil {
			return err
		}
	}
	all.addDevices(devices.GetSeries())
	rows := all.rows()
	out := bufio.NewWriter(cmd.OutOrStdout())
	w := newRowsWriter(out, output, layout{example: jsonGPU{}, columns: gpuColumns}, screenOf(cmd.OutOrStdout()))
	if err := errors.Join(w.add(rows), w.end(), out.Flush()); err != nil {
		return err
	}
	a.reportIntruders(rows)
	if len(rows) == 0 {
		if err := a.reportNoGPU(ctx, req); err != nil {
			return err
		}
	}
	if reply.GetTruncated() {
		a.notice("%s of %s series shown; the collector gives no more at once, so narrow the filters",
			grouped(uint64(len(reply.GetSeries()))), grouped(reply.GetMatched()))
	}
	// The range that nobody asked for may begin before the store does.
	reportGaps(cmd.ErrOrStderr(), "GPUs", req, reply)
	return nil
}

// withMetrics makes filters leave other metrics out.
func withMetrics(filters []*orb8v1.GpuFilter, metrics []string) []*orb8v1.GpuFilter {
	if len(filters) == 0 {
		filters = []*orb8v1.GpuFilter{{}}
	}
	var all []*orb8v1.GpuFilter
	for _, f := range filters {
		one := proto.CloneOf(f)
		one.Metrics = metrics
		all = append(all, one)
	}
	return all
}

// ofContainers tells whether a filter leaves out what is of a whole device that several containers have.
func ofContainers(f *orb8v1.GpuFilter) bool {
	return len(f.GetPods())+len(f.GetNamespaces())+len(f.GetContainers()) > 0
}

// reportNoGPU says why there may be nothing to show, and what to do.
func (a *app) reportNoGPU(ctx context.Context, req *orb8v1.QueryGpuRequest) error {
	if len(req.GetAllow())+len(req.GetDeny()) > 0 {
		a.notice("no GPU matches")
		return nil
	}
	ever, err := call(ctx, a, orb8v1connect.OrbitServiceClient.QueryGpu, &orb8v1.QueryGpuRequest{Limit: 1, Allow: withMetrics(nil, deviceMetrics())})
	if err != nil {
		return err
	}
	if len(ever.GetSeries()) > 0 {
		a.notice("no GPU has reported in this range, but some have in another: ask with --since 1h, or further back")
		return nil
	}
	status, err := call(ctx, a, orb8v1connect.OrbitServiceClient.GetStatus, &orb8v1.GetStatusRequest{})
	if err != nil {
		return err
	}
	for _, line := range noGPULines(status.GetNodes()) {
		a.notice("%s", line)
	}
	return nil
}
