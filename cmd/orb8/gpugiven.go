package main

import (
	"fmt"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/gpu"
)

// given is which pods a device was given to, by the device's UUID.
type given map[string]*givenTo

type givenTo struct {
	pods map[string]bool
	// shared tells that it was given by shares, of which others may have some.
	shared bool
}

// add takes what a series says of who was given a device.
func (g *given) add(s *orb8v1.GpuSeries) {
	if s.GetMetric() != gpu.MetricAllocation || s.GetContainer().GetPod() == "" {
		return
	}
	if *g == nil {
		*g = given{}
	}
	to := (*g)[s.GetDevice().GetId()]
	if to == nil {
		to = &givenTo{pods: map[string]bool{}}
		(*g)[s.GetDevice().GetId()] = to
	}
	to.pods[podOf(s.GetContainer())] = true
	to.shared = to.shared || s.GetAttributes()[gpu.AttrReplica] != ""
}

func podOf(c *orb8v1.Container) string { return c.GetNamespace() + "/" + c.GetPod() }

// holder returns the pod that was given a device whole, where a container of another one uses it. Nothing is said of a container whose pod
// has no name.
func (g given) holder(u *gpuUse) string {
	c := u.container
	if c == nil || c.GetPod() == "" && (c.GetPodUid() != "" || c.GetId() != "") {
		return ""
	}
	to := g[u.device.GetId()]
	if to == nil || to.shared || len(to.pods) != 1 || to.pods[podOf(c)] {
		return ""
	}
	for pod := range to.pods {
		return pod
	}
	return ""
}

// reportedIntruders is how many are told of.
const reportedIntruders = 3

// reportIntruders tells who uses a device that was given to another pod.
func (a *app) reportIntruders(rows []row) {
	n := 0
	for _, r := range rows {
		if r.gpu.holder == "" {
			continue
		}
		if n++; n <= reportedIntruders {
			device := fmt.Sprintf("GPU %d of %s", r.gpu.device.GetIndex(), r.gpu.node)
			if r.gpu.device.GetParent() != "" {
				device = r.gpu.device.GetId() + " of " + r.gpu.node
			}
			a.notice("%s was given to %s, and %s uses it too", device, r.gpu.holder, fullContainerName(r.gpu.container))
		}
	}
	if n > reportedIntruders {
		a.notice("%d more use GPUs that were given to others: -o json has them as givenTo", n-reportedIntruders)
	}
}
