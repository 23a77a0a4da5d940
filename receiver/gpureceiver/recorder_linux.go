package gpureceiver

import (
	"fmt"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/receiver/gpureceiver/internal/metadata"
)

const vendor = "NVIDIA"

// container is whom something was measured for: by its cgroup where that is known, else by names. The zero value is nobody: what was
// measured is the whole device's.
type container struct {
	cgroupID             uint64
	namespace, pod, name string
}

// observation is one value that a source saw.
type observation struct {
	// metric is its name, as in metadata.yaml.
	metric string
	// part is the value of the metric's own attribute, such as the task of hw.gpu.utilization.
	part string
	// device has no ID where it is not known. What one observation of a scrape says about a device is said of all of them.
	device    gpu.Device
	container container
	// value is in the metric's unit.
	value float64
	// more are further attributes, such as the resource of gpu.allocation; they do not tell observations apart.
	more []metadata.MetricAttributeOption
}

// place is what tells observations apart.
type place struct {
	metric, part, device string
	container            container
}

// recorder gathers what the sources see in one scrape, all of it at one time.
type recorder struct {
	at           time.Time
	observations []observation
	seen         map[place]int
	// began is when counters of containers began that this collector keeps itself.
	began map[container]time.Time
	// sharing is how devices are shared, by their ID.
	sharing map[string]string
	attribution
	further []func(md pmetric.Metrics, at pcommon.Timestamp)
}

func newRecorder(at time.Time) *recorder {
	return &recorder{at: at, seen: map[place]int{}, began: map[container]time.Time{}, sharing: map[string]string{}, attribution: newAttribution()}
}

func (o *observation) place() place {
	return place{metric: o.metric, part: o.part, device: o.device.ID, container: o.container}
}

// add takes a value, unless a source before has told the same: it returns that one's value, and whether there is one.
func (r *recorder) add(o observation) (before float64, known bool) {
	p := o.place()
	if i, ok := r.seen[p]; ok {
		return r.observations[i].value, true
	}
	if o.device.ID != "" {
		r.know(o.device, noNumber, noNumber)
	}
	r.seen[p] = len(r.observations)
	r.observations = append(r.observations, o)
	return 0, false
}

// begin says since when the counters of a container count.
func (r *recorder) begin(of container, at time.Time) { r.began[of] = at }

// share says that containers share a device by a strategy: time-slicing or mps.
func (r *recorder) share(id, strategy string) { r.sharing[id] = strategy }

// append has a function add what mdatagen has no builder for, such as histograms, to what is emitted.
func (r *recorder) append(f func(md pmetric.Metrics, at pcommon.Timestamp)) {
	r.further = append(r.further, f)
}

// emit makes metrics of what was recorded: those of devices under the resource of the node, and those of each container under its own.
// Counters that the driver keeps have no start, as nobody knows it; those of this receiver, and of containers, have one.
func (r *recorder) emit(mb *metadata.MetricsBuilder, started time.Time) pmetric.Metrics {
	at := pcommon.NewTimestampFromTime(r.at)
	devices := map[string][]metadata.MetricAttributeOption{}
	containers := map[container][]*observation{}
	var order []container
	own := false
	for i := range r.observations {
		o := &r.observations[i]
		switch {
		case o.container != container{}:
			if _, ok := containers[o.container]; !ok {
				order = append(order, o.container)
			}
			containers[o.container] = append(containers[o.container], o)
		case o.metric == gpu.MetricXIDErrors:
			own = true
		default:
			r.record(mb, at, o, devices)
		}
	}
	mb.EmitForResource(metadata.WithStartTimeOverride(0))
	if own {
		for i := range r.observations {
			if o := &r.observations[i]; o.metric == gpu.MetricXIDErrors {
				r.record(mb, at, o, devices)
			}
		}
		mb.EmitForResource(metadata.WithStartTimeOverride(pcommon.NewTimestampFromTime(started)))
	}
	for _, c := range order {
		for _, o := range containers[c] {
			r.record(mb, at, o, devices)
		}
		var begin pcommon.Timestamp
		if t, ok := r.began[c]; ok {
			begin = pcommon.NewTimestampFromTime(t)
		}
		mb.EmitForResource(metadata.WithResource(c.resource(mb)), metadata.WithStartTimeOverride(begin))
	}
	md := mb.Emit(metadata.WithStartTimeOverride(0))
	for _, f := range r.further {
		f(md, at)
	}
	return md
}

func (r *recorder) record(mb *metadata.MetricsBuilder, at pcommon.Timestamp, o *observation, devices map[string][]metadata.MetricAttributeOption) {
	options, ok := devices[o.device.ID]
	if !ok && o.device.ID != "" {
		options = deviceOptions(&o.device, r.sharing[o.device.ID], !r.unseen[o.device.ID])
		devices[o.device.ID] = options
	}
	if len(o.more) > 0 {
		options = append(options[:len(options):len(options)], o.more...)
	}
	write, ok := writers[o.metric]
	if !ok {
		panic(fmt.Sprintf("metric %q is not in metadata.yaml", o.metric))
	}
	write(mb, at, o, options)
}

// resource is by what pod_enrichment finds the container, or what it is called.
func (c container) resource(mb *metadata.MetricsBuilder) pcommon.Resource {
	rb := mb.NewResourceBuilder()
	if c.cgroupID != 0 {
		rb.SetOrb8CgroupID(int64(c.cgroupID))
	}
	for _, s := range []struct {
		set   func(string)
		value string
	}{{rb.SetK8sNamespaceName, c.namespace}, {rb.SetK8sPodName, c.pod}, {rb.SetK8sContainerName, c.name}} {
		if s.value != "" {
			s.set(s.value)
		}
	}
	return rb.Emit()
}

// deviceOptions are the attributes of a device. A MIG instance has the index and the address of its GPU.
func deviceOptions(d *gpu.Device, sharing string, numbered bool) []metadata.MetricAttributeOption {
	options := []metadata.MetricAttributeOption{
		metadata.WithHwIDMetricAttribute(d.ID), metadata.WithHwTypeMetricAttribute(gpu.TypeGPU), metadata.WithHwVendorMetricAttribute(vendor),
	}
	if numbered {
		options = append(options, metadata.WithHwNameMetricAttribute("GPU "+strconv.FormatUint(uint64(d.Index), 10)),
			metadata.WithGpuIndexMetricAttribute(int64(d.Index)))
	}
	for _, o := range []struct {
		option func(string) metadata.MetricAttributeOption
		value  string
	}{
		{metadata.WithHwModelMetricAttribute, d.Model}, {metadata.WithHwParentMetricAttribute, d.Parent},
		{metadata.WithGpuPciBdfMetricAttribute, d.PCIAddress}, {metadata.WithGpuMigProfileMetricAttribute, d.MIGProfile},
		{metadata.WithGpuSharingStrategyMetricAttribute, sharing},
	} {
		if o.value != "" {
			options = append(options, o.option(o.value))
		}
	}
	return options
}
