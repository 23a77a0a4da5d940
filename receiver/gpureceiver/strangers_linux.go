package gpureceiver

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/orb8/orb8/internal/gpu"
)

// aboutProcesses is what a conflict is about where processes use a device of others.
const aboutProcesses = "processes"

// strangers are processes on devices that the kubelet gave to nobody. Where it has given claims whose devices are not known, nothing can
// be said.
func (to *recorder) strangers() (all []conflict) {
	given := map[string]bool{}
	for i := range to.allocations {
		d, known := to.resolve(&to.allocations[i].Device)
		if !known {
			return nil
		}
		given[d.ID], given[d.Parent] = true, true
	}
	for i := range to.observations {
		o := &to.observations[i]
		if o.metric == gpu.MetricProcessMemory && o.container.cgroupID != 0 && !given[o.device.ID] {
			all = append(all, conflict{
				kind: conflictOwner, device: o.device.ID, about: aboutProcesses, other: to.cgroupName(o.container.cgroupID), cgroupID: o.container.cgroupID,
			})
		}
	}
	return all
}

// holder is who was given a device whole.
type holder struct {
	// pod is namespace/pod, containers are those of it that have the device.
	pod        string
	containers []string
}

// holders are by device. What the kubelet gave to several pods, or by shares, is for all of them to use.
func (to *recorder) holders() map[string]holder {
	whole, shared := map[string]holder{}, map[string]bool{}
	for i := range to.allocations {
		a := &to.allocations[i]
		d, known := to.resolve(&a.Device)
		if !known {
			continue
		}
		h, again := whole[d.ID]
		pod := a.Namespace + "/" + a.Pod
		if a.Device.Replica != "" || to.sharing[d.ID] != "" || again && h.pod != pod {
			shared[d.ID] = true
		}
		h.pod = pod
		if c := (container{namespace: a.Namespace, pod: a.Pod, name: a.Container}).String(); !slices.Contains(h.containers, c) {
			h.containers = append(h.containers, c)
		}
		whole[d.ID] = h
	}
	maps.DeleteFunc(whole, func(id string, _ holder) bool { return shared[id] })
	return whole
}

// intruders are processes on a device that the kubelet gave whole to another pod. The kubelet tells names, and a cgroup the UID of its pod:
// where the API server has not told which pod has which, of several pods on the device one at most is the right one.
func (to *recorder) intruders() (all []conflict) {
	whole := to.holders()
	using := map[string][]uint64{}
	for i := range to.observations {
		o := &to.observations[i]
		if _, ok := whole[o.device.ID]; ok && o.metric == gpu.MetricProcessMemory && o.container.cgroupID != 0 {
			using[o.device.ID] = append(using[o.device.ID], o.container.cgroupID)
		}
	}
	for device, cgroups := range using {
		h := whole[device]
		slices.Sort(h.containers)
		c := conflict{kind: conflictOwner, device: device, about: aboutProcesses, first: strings.Join(h.containers, ", ")}
		strange, open := to.sort(h.pod, cgroups)
		for _, id := range strange {
			c.other, c.cgroupID = to.cgroupName(id), id
			all = append(all, c)
		}
		if len(open) > 0 {
			var names []string
			for _, id := range slices.Sorted(slices.Values(open)) {
				names = append(names, to.cgroupName(id))
			}
			c.other, c.cgroupID = "one or more of "+strings.Join(names, ", ")+", which are of several pods", 0
			all = append(all, c)
		}
	}
	return all
}

// sort tells which cgroups are certainly not of a pod, and those of which at least one is not.
func (to *recorder) sort(pod string, cgroups []uint64) (strange, open []uint64) {
	present := false
	uids := map[string]bool{}
	for _, id := range cgroups {
		uid, known := to.inPod[id]
		switch name := to.names[uid]; {
		case !known:
		case uid == "", name != "" && name != pod:
			strange = append(strange, id)
		case name == pod:
			present = true
		default:
			open = append(open, id)
			uids[uid] = true
		}
	}
	switch {
	case present:
		// Whatever their names, theirs is another UID.
		return append(strange, open...), nil
	case len(uids) < 2:
		return strange, nil
	}
	return strange, open
}

// cgroupName is for a person, who finds the cgroup by its id as an inode.
func (to *recorder) cgroupName(id uint64) string {
	return cmp.Or(to.names[to.inPod[id]], fmt.Sprint("cgroup ", id))
}
