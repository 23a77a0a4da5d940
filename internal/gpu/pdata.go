package gpu

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/orb8/orb8/internal/flow"
)

// ErrForeign is what Read says of data points that are of no GPU.
var ErrForeign = errors.New("it is of no GPU")

// attrHostName is the node where it has no name in Kubernetes.
const attrHostName = "host.name"

// Reader reads the metrics of one resource.
type Reader struct {
	node     string
	identity flow.Identity
	// attributes say what is of all data points.
	attributes pcommon.Map
}

// NewReader returns the reader of a resource: its node, and its container if it is one.
func NewReader(resource pcommon.Resource) *Reader {
	a := resource.Attributes()
	return &Reader{
		node: cmp.Or(text(a, flow.AttrNodeName), text(a, attrHostName)), identity: flow.ReadIdentity(a, ""), attributes: a,
	}
}

// Read returns a sample or an error for each data point of a metric: ErrForeign, or one that names what is missing or malformed and
// its value. Of a histogram it is the sum, which is a counter. Data points that say that there is no value are left out.
func (r *Reader) Read(m pmetric.Metric) iter.Seq2[Sample, error] {
	return func(yield func(Sample, error) bool) {
		switch m.Type() {
		case pmetric.MetricTypeGauge:
			r.numbers(m, m.Gauge().DataPoints(), false, yield)
		case pmetric.MetricTypeSum:
			r.numbers(m, m.Sum().DataPoints(), m.Sum().IsMonotonic(), yield)
		case pmetric.MetricTypeHistogram:
			for _, p := range m.Histogram().DataPoints().All() {
				if !r.distribution(m, p, p.HasSum(), p.Sum(), yield) {
					return
				}
			}
		case pmetric.MetricTypeExponentialHistogram:
			for _, p := range m.ExponentialHistogram().DataPoints().All() {
				if !r.distribution(m, p, p.HasSum(), p.Sum(), yield) {
					return
				}
			}
		default:
			r.others(m, yield)
		}
	}
}

// point is what all kinds of data points have.
type point interface {
	Attributes() pcommon.Map
	Timestamp() pcommon.Timestamp
	StartTimestamp() pcommon.Timestamp
	Flags() pmetric.DataPointFlags
}

func (r *Reader) numbers(m pmetric.Metric, points pmetric.NumberDataPointSlice, counter bool, yield func(Sample, error) bool) {
	for _, p := range points.All() {
		value := p.DoubleValue()
		if p.ValueType() == pmetric.NumberDataPointValueTypeInt {
			value = float64(p.IntValue())
		}
		if !r.sample(m, p, counter, value, yield) {
			return
		}
	}
}

func (r *Reader) distribution(m pmetric.Metric, p point, hasSum bool, sum float64, yield func(Sample, error) bool) bool {
	if !hasSum && r.isGPU(m.Name(), p.Attributes()) && !p.Flags().NoRecordedValue() {
		return yield(Sample{}, fmt.Errorf("metric %s: a histogram has no sum", m.Name()))
	}
	return r.sample(m, p, true, sum, yield)
}

// others tells of metrics without values that could be kept.
func (r *Reader) others(m pmetric.Metric, yield func(Sample, error) bool) {
	if m.Type() != pmetric.MetricTypeSummary {
		return
	}
	for _, p := range m.Summary().DataPoints().All() {
		err := ErrForeign
		if r.isGPU(m.Name(), p.Attributes()) {
			err = fmt.Errorf("metric %s: a summary cannot be stored; send a gauge, a sum or a histogram", m.Name())
		}
		if !yield(Sample{}, err) {
			return
		}
	}
}

// sample yields what a data point says, and returns whether to go on.
func (r *Reader) sample(m pmetric.Metric, p point, counter bool, value float64, yield func(Sample, error) bool) bool {
	if !r.isGPU(m.Name(), p.Attributes()) {
		return yield(Sample{}, ErrForeign)
	}
	if p.Flags().NoRecordedValue() {
		return true
	}
	s := Sample{
		Series: Series{Node: r.node, Identity: r.identity, Metric: flow.Text(m.Name()), Unit: flow.Text(m.Unit()), Counter: counter},
		Time:   p.Timestamp().AsTime(), Value: value,
	}
	if counter && p.StartTimestamp() != 0 {
		s.Start = p.StartTimestamp().AsTime()
	}
	if err := r.describe(&s, p); err != nil {
		return yield(Sample{}, fmt.Errorf("metric %s: %w", m.Name(), err))
	}
	return yield(s, nil)
}

// describe reads the attributes of a data point, and checks that there is what tells series apart.
func (r *Reader) describe(s *Sample, p point) error {
	further := map[string]string{}
	for name, v := range r.attributes.All() {
		if _, err := s.Device.read(name, v); err != nil {
			return err
		}
	}
	for name, v := range p.Attributes().All() {
		known, err := s.Device.read(name, v)
		if err != nil {
			return err
		}
		if !known {
			further[flow.Text(name)] = flow.Text(v.AsString())
		}
	}
	s.Attributes = FormatAttributes(further)
	switch {
	case s.Node == "":
		return fmt.Errorf("resource attribute %s: missing", flow.AttrNodeName)
	case s.Device.ID == "" && s.Own():
		return fmt.Errorf("attribute %s: missing, and the resource is no container", AttrID)
	case p.Timestamp() == 0:
		return errors.New("a data point has no time")
	case math.IsNaN(s.Value) || math.IsInf(s.Value, 0):
		return fmt.Errorf("%v is no value", s.Value)
	}
	return nil
}

// read takes an attribute if it says what device it is.
func (d *Device) read(name string, v pcommon.Value) (known bool, err error) {
	switch name {
	case AttrID:
		d.ID = flow.Text(v.AsString())
	case AttrParent:
		d.Parent = flow.Text(v.AsString())
	case AttrModel:
		d.Model = flow.Text(v.AsString())
	case AttrName:
		d.Model = cmp.Or(d.Model, flow.Text(v.AsString()))
	case AttrPCIAddress:
		d.PCIAddress = flow.Text(v.AsString())
	case AttrMIGProfile:
		d.MIGProfile = flow.Text(v.AsString())
	case AttrIndex:
		index, err := strconv.ParseUint(v.AsString(), 10, 32)
		if err != nil {
			return true, fmt.Errorf("attribute %s: %q is not the number of a GPU", AttrIndex, v.AsString())
		}
		d.Index = uint32(index)
	case AttrType, AttrVendor, AttrSharing:
	default:
		return false, nil
	}
	return true, nil
}

// isGPU tells whether a data point is a GPU's: by the name of the metric, or by what the hardware is said to be.
func (r *Reader) isGPU(metric string, a pcommon.Map) bool {
	return strings.HasPrefix(metric, prefixOwn) || strings.HasPrefix(metric, prefixConventions) ||
		cmp.Or(text(a, AttrType), text(r.attributes, AttrType)) == TypeGPU
}

func text(a pcommon.Map, key string) string {
	if v, ok := a.Get(key); ok {
		return flow.Text(v.AsString())
	}
	return ""
}
