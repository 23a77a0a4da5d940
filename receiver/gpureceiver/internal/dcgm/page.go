// Package dcgm reads what dcgm-exporter tells of GPUs, whichever its version.
package dcgm

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// NoInstance is the GPUInstance of what is no MIG instance.
const NoInstance = -1

// Page is what dcgm-exporter told at one time.
type Page struct {
	// Devices are in the order of their UUIDs, a GPU before its MIG instances.
	Devices []Device
	// Host is the node that the exporter says it is on; empty where it does not.
	Host string
	// Unclear are names of metrics that were left out, as nothing says whether they are percentages or ratios.
	Unclear []string
}

// Device is a GPU or a MIG instance.
type Device struct {
	// UUID is that of the GPU, also of its MIG instances.
	UUID string
	// GPUInstance is the number of the MIG instance on its GPU, or NoInstance.
	GPUInstance int
	// InstanceUUID is that of a MIG instance, where the exporter tells it: for claims alone.
	InstanceUUID string
	// Index is DCGM's number of the GPU, -1 where it is not told.
	Index      int
	PCIAddress string
	Model      string
	MIGProfile string
	// Values are in the order of their Fields and Codes, each once.
	Values []Value
	// Owners are the containers that the exporter names, which may be one of several.
	Owners []Owner
}

// Value is a quantity of a device.
type Value struct {
	Field Field
	Code  string
	Value float64
}

// Owner is a container that has a device, or a part of it.
type Owner struct {
	Namespace, Pod, Container, PodUID string
	// Replica is the part of a shared GPU, as the device plugin numbers it.
	Replica string
	// Claim is of DRA: empty without.
	Claim Claim
	// Shares are what was measured for the container alone.
	Shares []Value
}

// Claim names a device that was allocated by dynamic resource allocation.
type Claim struct{ Namespace, Name, Driver, Pool, Device string }

// blank values stand for those that DCGM does not have. Later exporters leave them out.
const (
	blankInt   = 0x7ffffffffffffff0
	blankFloat = 140737488355328.0
)

func isBlank(v float64) bool {
	return math.IsNaN(v) || math.IsInf(v, 0) || v < 0 || v >= blankInt || v >= blankFloat && v < blankFloat+16
}

// deviceKey tells devices apart.
type deviceKey struct {
	uuid     string
	instance int
}

// ownerKey tells containers and their parts of a device apart.
type ownerKey struct {
	namespace, pod, container, replica string
	claim                              Claim
}

// valueKey tells values of a device apart.
type valueKey struct {
	field Field
	code  string
}

// builder makes a Page of samples.
type builder struct {
	host    string
	devices map[deviceKey]*building
	unclear map[string]bool
}

// building is a device whose samples come one after the other.
type building struct {
	Device
	values map[valueKey]float64
	owners map[ownerKey]*Owner
	// whole are the values of rows without a container.
	whole map[valueKey]bool
	// parts are those of rows with one, of fields that are measured for containers.
	parts []part
}

type part struct {
	owner *Owner
	Value
}

// errForeign says that a page is of something else.
var errForeign = errors.New("there is no metric of dcgm-exporter in it")

// Parse reads a page in Prometheus's text format. Metrics that are nothing to us need not be well-formed.
func Parse(text []byte) (*Page, error) {
	ours, some := selectLines(text)
	if !some {
		return nil, errForeign
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(ours))
	if err != nil {
		return nil, err
	}
	b := builder{devices: map[deviceKey]*building{}, unclear: map[string]bool{}}
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if err := b.family(name, families[name]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return b.page(), nil
}

// selectLines returns the lines of the metrics that we know, and whether any is dcgm-exporter's. The exporter writes a metric of several kinds of
// devices once for each, with its help and type: those are kept once, as the format has it.
func selectLines(text []byte) ([]byte, bool) {
	var ours []byte
	described := map[string]bool{}
	some := false
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		name := string(line[:nameLength(line)])
		comment := ""
		if rest, ok := bytes.CutPrefix(line, []byte("# ")); ok {
			words := bytes.SplitN(rest, []byte(" "), 3)
			if len(words) < 2 {
				continue
			}
			comment, name = string(words[0]), string(words[1])
		}
		some = some || strings.HasPrefix(name, "DCGM_")
		if _, known := metrics[name]; !known {
			continue
		}
		if comment != "" {
			if comment != "HELP" && comment != "TYPE" || described[comment+name] {
				continue
			}
			described[comment+name] = true
		}
		ours = append(append(ours, line...), '\n')
	}
	return ours, some
}

// nameLength returns how long the name of a sample is.
func nameLength(line []byte) int {
	if n := bytes.IndexAny(line, "{ \t"); n >= 0 {
		return n
	}
	return len(line)
}

func (b *builder) family(name string, family *dto.MetricFamily) error {
	f := metrics[name]
	if f.unclear {
		var values []float64
		for _, m := range family.GetMetric() {
			if v := valueOf(m); !isBlank(v) {
				values = append(values, v)
			}
		}
		var known bool
		if f.scale, known = scaleOf(family.GetHelp(), values); !known {
			b.unclear[name] = true
			return nil
		}
	}
	for _, m := range family.GetMetric() {
		if v := valueOf(m); !isBlank(v) {
			if err := b.sample(&f, m.GetLabel(), v*f.scale); err != nil {
				return err
			}
		}
	}
	return nil
}

func valueOf(m *dto.Metric) float64 {
	switch {
	case m.GetGauge() != nil:
		return m.GetGauge().GetValue()
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue()
	case m.GetUntyped() != nil:
		return m.GetUntyped().GetValue()
	}
	return math.NaN()
}

// labels are those of a sample, each found by any of its names.
type labels map[string]string

func (l labels) of(names ...string) string {
	for _, name := range names {
		if value := l[name]; value != "" {
			return value
		}
	}
	return ""
}

func (b *builder) sample(f *field, pairs []*dto.LabelPair, value float64) error {
	l := make(labels, len(pairs))
	for _, pair := range pairs {
		l[pair.GetName()] = pair.GetValue()
	}
	b.host = cmp.Or(b.host, l.of("hostname", "Hostname"))
	uuid := l.of("UUID", "uuid")
	if uuid == "" || l.of("nvlink") != "" {
		return nil // of a link, a switch or a CPU
	}
	d, err := b.device(uuid, l)
	if err != nil {
		return err
	}
	v := Value{Field: f.Field, Code: l.of(f.code), Value: value}
	key := valueKey{v.Field, v.Code}
	owner := d.owner(l)
	switch {
	case owner == nil:
		d.values[key] = value
		d.whole[key] = true
	case f.share:
		d.parts = append(d.parts, part{owner, v})
	default:
		d.values[key] = value // the device's, once for each container
	}
	return nil
}

func (b *builder) device(uuid string, l labels) (*building, error) {
	key := deviceKey{uuid, NoInstance}
	if text := l.of("GPU_I_ID"); text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("GPU_I_ID %q is not the number of a MIG instance", text)
		}
		key.instance = int(n)
	}
	d := b.devices[key]
	if d == nil {
		d = &building{
			Device: Device{UUID: uuid, GPUInstance: key.instance, Index: -1},
			values: map[valueKey]float64{}, owners: map[ownerKey]*Owner{}, whole: map[valueKey]bool{},
		}
		b.devices[key] = d
	}
	d.PCIAddress = cmp.Or(d.PCIAddress, l.of("pci_bus_id"))
	d.Model = cmp.Or(d.Model, l.of("modelName", "model_name"))
	d.MIGProfile = cmp.Or(d.MIGProfile, l.of("GPU_I_PROFILE"))
	if key.instance != NoInstance {
		d.InstanceUUID = cmp.Or(d.InstanceUUID, l.of("dra_mig_device_uuid"))
	}
	if index, err := strconv.ParseUint(l.of("gpu"), 10, 16); err == nil {
		d.Index = int(index)
	}
	return d, nil
}

// owner returns the container that a sample names, in new or old words; nil if none.
func (d *building) owner(l labels) *Owner {
	o := Owner{
		Namespace: l.of("namespace", "pod_namespace"), Pod: l.of("pod", "pod_name"),
		Container: l.of("container", "container_name"), PodUID: l.of("pod_uid"), Replica: l.of("vgpu"),
		Claim: Claim{
			Namespace: l.of("dra_claim_namespace"), Name: l.of("dra_claim_name"), Driver: l.of("dra_driver_name"),
			Pool: l.of("dra_pool_name"), Device: l.of("dra_device_name"),
		},
	}
	if o.Pod == "" {
		return nil
	}
	key := ownerKey{o.Namespace, o.Pod, o.Container, o.Replica, o.Claim}
	if d.owners[key] == nil {
		d.owners[key] = &o
	}
	return d.owners[key]
}

func (b *builder) page() *Page {
	p := &Page{Host: b.host, Unclear: slices.Sorted(maps.Keys(b.unclear))}
	for _, d := range b.devices {
		p.Devices = append(p.Devices, d.finish())
	}
	slices.SortFunc(p.Devices, func(x, y Device) int {
		return cmp.Or(cmp.Compare(x.UUID, y.UUID), cmp.Compare(x.GPUInstance, y.GPUInstance))
	})
	return p
}

// finish sorts what is known of the device. Rows with a container are its part where there is a row without one as well; else they are the device's,
// once for each container.
func (d *building) finish() Device {
	for _, p := range d.parts {
		if key := (valueKey{p.Field, p.Code}); d.whole[key] {
			p.owner.Shares = append(p.owner.Shares, p.Value)
		} else {
			d.values[key] = p.Value.Value
		}
	}
	total := valueKey{field: MemoryTotal}
	if _, told := d.values[total]; !told {
		used, a := d.values[valueKey{field: MemoryUsed}]
		free, b := d.values[valueKey{field: MemoryFree}]
		reserved, c := d.values[valueKey{field: MemoryReserved}]
		if a && b && c {
			d.values[total] = used + free + reserved
		}
	}
	out := d.Device
	for key, v := range d.values {
		out.Values = append(out.Values, Value{key.field, key.code, v})
	}
	slices.SortFunc(out.Values, compareValues)
	for _, o := range d.owners {
		slices.SortFunc(o.Shares, compareValues)
		out.Owners = append(out.Owners, *o)
	}
	slices.SortFunc(out.Owners, func(x, y Owner) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Pod, y.Pod), cmp.Compare(x.Container, y.Container), cmp.Compare(x.Replica, y.Replica))
	})
	return out
}

func compareValues(a, b Value) int {
	return cmp.Or(cmp.Compare(a.Field, b.Field), cmp.Compare(a.Code, b.Code))
}
