package gpureceiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/nvml"
)

// nvmlSource is NVIDIA's management library.
type nvmlSource struct {
	source *nvml.Source
	events *eventLog
	// cgroups tells the cgroups of processes; nil until a GPU has one.
	cgroups processes
	open    func() (processes, error)
}

// processes is cgroup.Processes.
type processes interface {
	Find(pid uint32) (id uint64, path string, err error)
}

// openProcesses finds the hierarchy of the whole host.
func openProcesses() (processes, error) {
	mount, err := cgroup.FindMount("")
	if err != nil {
		return nil, err
	}
	if mount.Partial {
		return nil, fmt.Errorf("%s shows only a part of the host's cgroups: mount the host's /sys/fs/cgroup", mount.Path)
	}
	return cgroup.NewProcesses(mount.Path)
}

func newNVMLSource(cfg *NVMLConfig, events *eventLog) *nvmlSource {
	s := &nvmlSource{events: events, open: openProcesses}
	opts := nvml.Options{LibraryPaths: cfg.LibraryPaths, OnEvent: events.add}
	switch cfg.Hold {
	case HoldAlways:
		opts.Hold = nvml.HoldAlways
	case HoldNever:
		opts.Hold = nvml.HoldNever
	}
	s.source = nvml.New(opts)
	return s
}

func (s *nvmlSource) close() error { return s.source.Close() }

func (s *nvmlSource) scrape(_ context.Context, to *recorder) error {
	snapshot, err := s.source.Snapshot(to.at)
	if snapshot == nil {
		if errors.Is(err, nvml.ErrAbsent) {
			return absence{err}
		}
		return err
	}
	errs := []error{err}
	for i := range snapshot.Devices {
		d := &snapshot.Devices[i]
		described := describe(d)
		to.know(described, instanceNumber(d.GPUInstance), instanceNumber(d.ComputeInstance))
		for _, v := range d.Values {
			to.add(observation{metric: v.Metric, part: v.Part, device: described, value: v.Value})
		}
		errs = append(errs, s.attribute(to, described, d.Processes))
	}
	s.events.seen(snapshot.Devices, to.at)
	return errors.Join(errs...)
}

func describe(d *nvml.Device) gpu.Device {
	return gpu.Device{
		ID: d.UUID, Parent: d.Parent, Index: uint32(d.Index), Model: d.Model, PCIAddress: d.PCI, MIGProfile: d.Profile,
	}
}

func instanceNumber(id uint32) int {
	if id == nvml.None {
		return noNumber
	}
	return int(id)
}

// use is what the processes of one container do to a device.
type use struct {
	memory  float64
	engines map[string]float64
}

// attribute sums up a device's processes by their cgroups. Those that ended meanwhile are nobody's.
func (s *nvmlSource) attribute(to *recorder, d gpu.Device, all []nvml.Process) error {
	if len(all) == 0 {
		return nil
	}
	if s.cgroups == nil {
		var err error
		if s.cgroups, err = s.open(); err != nil {
			s.cgroups = nil
			return fmt.Errorf("%d processes of GPU %d cannot be told apart by container: %w", len(all), d.Index, err)
		}
	}
	uses := map[uint64]*use{}
	var order []uint64
	var failed error
	for i := range all {
		id, path, err := s.cgroups.Find(all[i].PID)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			failed = err
			continue
		}
		u := uses[id]
		if u == nil {
			u = &use{}
			uses[id] = u
			order = append(order, id)
			to.inPod[id] = cgroup.Parse(path).PodUID
		}
		u.add(&all[i])
	}
	for _, id := range order {
		c := container{cgroupID: id}
		to.add(observation{metric: gpu.MetricProcessMemory, device: d, container: c, value: uses[id].memory})
		for engine, share := range uses[id].engines {
			// Processes are sampled one by one: together they may seem to do more than there is.
			to.add(observation{metric: gpu.MetricProcessUtilization, part: engine, device: d, container: c, value: min(share, 1)})
		}
	}
	return failed
}

func (u *use) add(p *nvml.Process) {
	u.memory += float64(p.Memory)
	for engine, share := range p.Utilization {
		if u.engines == nil {
			u.engines = map[string]float64{}
		}
		u.engines[engine] += share
	}
}
