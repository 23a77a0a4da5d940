package gpureceiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"go.uber.org/zap"
	k8s "k8s.io/client-go/kubernetes"

	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/kubernetes"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/dcgm"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/metadata"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/podresources"
)

// noNumber is the number of a GPU or compute instance that is none, or is not known.
const noNumber = -1

// knownDevice is a device that a source sees, and the numbers that others may name it by.
type knownDevice struct {
	gpu.Device
	gpuInstance, computeInstance int
}

// labelled is a container that dcgm-exporter names for a device.
type labelled struct {
	device gpu.Device
	owner  dcgm.Owner
}

func (l *labelled) container() container {
	return container{namespace: l.owner.Namespace, pod: l.owner.Pod, name: l.owner.Container}
}

// attribution is what a recorder gathers to tell which container has which device.
type attribution struct {
	known map[string]knownDevice
	// provisional are the IDs that were made up of numbers, for want of a UUID.
	provisional map[string]bool
	// unseen are the devices that the kubelet tells of and no source sees: their numbers are not known.
	unseen   map[string]bool
	labelled []labelled
	// allocations are the kubelet's, if it has answered.
	allocations []podresources.Allocation
	answered    bool
	// inPod is the pod's UID of a cgroup that uses a device: empty of what is in no pod. names are those of pods, by UID, as far as the API
	// server has told.
	inPod map[uint64]string
	names map[string]string
	// strategy is how the node shares its GPUs, where it is known.
	strategy string
	// disagreements are of two sources on one value.
	disagreements []conflict
}

func newAttribution() attribution {
	return attribution{known: map[string]knownDevice{}, provisional: map[string]bool{}, unseen: map[string]bool{}, inPod: map[uint64]string{}}
}

// know says that a source sees a device, and the numbers of a MIG instance. The first source's word counts.
func (a *attribution) know(d gpu.Device, gpuInstance, computeInstance int) {
	if _, ok := a.known[d.ID]; !ok {
		a.known[d.ID] = knownDevice{d, gpuInstance, computeInstance}
	}
}

// find returns the device with the UUID, or the instance of it with the number.
func (a *attribution) find(uuid string, gpuInstance int) (gpu.Device, bool) {
	if gpuInstance == noNumber {
		d, ok := a.known[uuid]
		return d.Device, ok
	}
	for _, d := range a.known {
		if d.Parent == uuid && d.gpuInstance == gpuInstance {
			return d.Device, true
		}
	}
	return gpu.Device{}, false
}

// resolve returns the device that the kubelet names. One that nobody else sees is known by its ID alone.
func (a *attribution) resolve(d *podresources.Device) (gpu.Device, bool) {
	switch {
	case d.UUID != "":
		if known, ok := a.known[d.UUID]; ok {
			return known.Device, true
		}
		a.unseen[d.UUID] = true
		return gpu.Device{ID: d.UUID}, true
	case d.Parent != "":
		for _, known := range a.known {
			if known.Parent == d.Parent && known.gpuInstance == d.GPUInstance && (known.computeInstance == noNumber || known.computeInstance == d.ComputeInstance) {
				return known.Device, true
			}
		}
		id := fmt.Sprintf("MIG-%s/%d/%d", d.Parent, d.GPUInstance, d.ComputeInstance)
		if known, ok := a.known[id]; ok {
			return known.Device, true
		}
		a.unseen[id] = true
		return gpu.Device{ID: id, Parent: d.Parent}, true
	case d.Minor != podresources.None:
		for _, known := range a.known {
			if known.Index == uint32(d.Minor) && known.gpuInstance == d.GPUInstance {
				return known.Device, true
			}
		}
	}
	return gpu.Device{}, false
}

// podResources asks the kubelet which container has which device.
type podResources struct {
	r      *gpuReceiver
	client *podresources.Client
	// slices is nil where no Kubernetes API is configured.
	slices *podresources.Slices
}

func (r *gpuReceiver) newPodResources() source { return &podResources{r: r} }

func (*podResources) close() error { return nil }

func (s *podResources) open() error {
	var claims podresources.Resolver
	if k := s.r.cfg.PodResources.Kubernetes.Get(); k != nil {
		api, err := kubernetes.RESTConfig(k.AuthType, k.Context)
		if err != nil {
			return fmt.Errorf("kubernetes: %w", err)
		}
		client, err := k8s.NewForConfig(api)
		if err != nil {
			return fmt.Errorf("kubernetes: %w", err)
		}
		host, _ := os.Hostname() // it has a name where it matters: in a pod, or on a node
		s.slices = podresources.NewSlices(client, cmp.Or(k.NodeName, os.Getenv("NODE_NAME"), host), func(err error) {
			s.r.set.Logger.Warn("GPUs of claims, or how GPUs are shared, are not known", zap.Error(err))
		})
		claims = s.slices
	}
	s.client = podresources.NewClient(s.r.cfg.PodResources.Socket, claims)
	return nil
}

func (s *podResources) scrape(ctx context.Context, to *recorder) error {
	if s.client == nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	all, err := s.client.Allocations(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return absence{err}
	}
	if err != nil {
		return err
	}
	to.allocations, to.answered = all, true
	if s.slices != nil {
		to.strategy = s.slices.Strategy(ctx)
		to.names = s.slices.Pods(ctx, slices.Collect(maps.Values(to.inPod)))
	}
	if len(all) > 0 {
		return nil
	}
	capacity, err := s.client.Capacity(ctx)
	if err == nil && capacity != nil && len(capacity) == 0 {
		err = absence{errors.New("the kubelet has no GPU to give: is the device plugin of the GPUs running?")}
	}
	return err
}

// attribute makes allocations of what the sources know of containers, once all of them have been asked.
func (to *recorder) attribute() {
	to.nameInstances()
	for i := range to.labelled {
		to.labelled[i].shares(to)
	}
	if !to.answered {
		for i := range to.labelled {
			to.allocateLabelled(&to.labelled[i])
		}
		return
	}
	for i := range to.allocations {
		to.allocate(&to.allocations[i])
	}
}

// nameInstances gives MIG instances their UUIDs that dcgm-exporter knows by numbers alone: where the exporter and the kubelet name the same
// container, and it has one of each.
func (to *recorder) nameInstances() {
	if len(to.provisional) == 0 {
		return
	}
	byKubelet, byLabel := map[container][]string{}, map[container][]string{}
	for i := range to.allocations {
		a := &to.allocations[i]
		if d := &a.Device; d.UUID != "" && len(d.UUID) > 4 && d.UUID[:4] == "MIG-" {
			if _, seen := to.known[d.UUID]; !seen {
				c := container{namespace: a.Namespace, pod: a.Pod, name: a.Container}
				byKubelet[c] = append(byKubelet[c], d.UUID)
			}
		}
	}
	for i := range to.labelled {
		if l := &to.labelled[i]; to.provisional[l.device.ID] {
			byLabel[l.container()] = append(byLabel[l.container()], l.device.ID)
		}
	}
	names := map[string]string{}
	for c, ids := range byLabel {
		if uuids := byKubelet[c]; len(ids) == 1 && len(uuids) == 1 {
			names[ids[0]] = uuids[0]
		}
	}
	to.rename(names)
}

// rename gives devices other IDs.
func (to *recorder) rename(names map[string]string) {
	if len(names) == 0 {
		return
	}
	clear(to.seen)
	for i := range to.observations {
		o := &to.observations[i]
		o.device.ID = cmp.Or(names[o.device.ID], o.device.ID)
		to.seen[o.place()] = i
	}
	for i := range to.labelled {
		d := &to.labelled[i].device
		d.ID = cmp.Or(names[d.ID], d.ID)
	}
	for from, id := range names {
		d := to.known[from]
		delete(to.known, from)
		delete(to.provisional, from)
		d.ID = id
		to.known[id] = d
	}
}

// allocate records whom the kubelet gave a device.
func (to *recorder) allocate(a *podresources.Allocation) {
	more := []metadata.MetricAttributeOption{metadata.WithGpuAllocationResourceMetricAttribute(a.Resource)}
	if a.Device.Replica != "" {
		more = append(more, metadata.WithGpuAllocationReplicaMetricAttribute(a.Device.Replica))
	}
	part := a.Resource + " " + a.Device.ID
	if c := a.Claim; c != nil {
		more = append(more, metadata.WithGpuAllocationClaimMetricAttribute(c.Namespace+"/"+c.Name))
		part = c.Namespace + "/" + c.Name + " " + c.Pool + "/" + c.Device
	}
	d, _ := to.resolve(&a.Device)
	if a.Device.Replica != "" && to.strategy != "" && d.ID != "" {
		to.share(d.ID, to.strategy)
	}
	to.add(observation{
		metric: gpu.MetricAllocation, part: part, device: d, container: container{namespace: a.Namespace, pod: a.Pod, name: a.Container},
		value: 1, more: more,
	})
}

// allocateLabelled records whom dcgm-exporter names for a device.
func (to *recorder) allocateLabelled(l *labelled) {
	var more []metadata.MetricAttributeOption
	if l.owner.Replica != "" {
		more = append(more, metadata.WithGpuAllocationReplicaMetricAttribute(l.owner.Replica))
	}
	if c := &l.owner.Claim; c.Name != "" {
		more = append(more, metadata.WithGpuAllocationResourceMetricAttribute(c.Driver), metadata.WithGpuAllocationClaimMetricAttribute(c.Namespace+"/"+c.Name))
	}
	to.add(observation{
		metric: gpu.MetricAllocation, part: l.owner.Replica + " " + l.owner.Claim.Name, device: l.device, container: l.container(), value: 1, more: more,
	})
}
