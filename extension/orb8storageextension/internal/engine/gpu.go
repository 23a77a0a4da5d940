package engine

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/journal"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/storage"
)

// eventSample is the event of a GPU's sample. It travels to the collector as a metric, which no log engine takes.
const eventSample = "orb8.gpu.sample"

// Attributes of a sample. Engines know none of its metric's own.
const (
	attrMetric     = "metric"
	attrUnit       = "unit"
	attrAttributes = "attributes"
	attrCounter    = "counter"
	attrStart      = "start"
	attrValue      = "value"
	attrDevice     = "device"
	attrParent     = "device.parent"
	attrIndex      = "device.index"
	attrModel      = "device.model"
	attrPCI        = "device.pci_address"
	attrMIG        = "device.mig_profile"
)

func (b *batch) sample(s *gpu.Sample) {
	a := b.add(s.Node, &s.Identity, journal.SampleID(s).String(), func(lr plog.LogRecord) { putSample(lr, s) }, nil)
	a.PutStr(attrMetric, s.Metric)
}

func putSample(lr plog.LogRecord, s *gpu.Sample) {
	lr.SetTimestamp(pcommon.NewTimestampFromTime(s.Time))
	a := lr.Attributes()
	for _, text := range []struct{ key, value string }{
		{attrMetric, s.Metric}, {attrUnit, s.Unit}, {attrAttributes, s.Attributes}, {attrDevice, s.Device.ID}, {attrParent, s.Device.Parent},
		{attrModel, s.Device.Model}, {attrPCI, s.Device.PCIAddress}, {attrMIG, s.Device.MIGProfile},
	} {
		if text.value != "" {
			a.PutStr(text.key, text.value)
		}
	}
	a.PutInt(attrIndex, int64(s.Device.Index))
	a.PutBool(attrCounter, s.Counter)
	if !s.Start.IsZero() {
		a.PutInt(attrStart, s.Start.UnixNano())
	}
	a.PutDouble(attrValue, s.Value)
}

func (l *line) sample() (gpu.Sample, error) {
	a := l.record.Attributes()
	text := func(key string) string {
		v, _ := a.Get(key)
		return v.Str()
	}
	value, ok := a.Get(attrValue)
	if !ok || value.Type() != pcommon.ValueTypeDouble || text(attrMetric) == "" {
		return gpu.Sample{}, errors.New("its metric or value is missing")
	}
	s := gpu.Sample{
		Series: gpu.Series{
			Identity: flow.ReadIdentity(l.resource.Attributes(), ""), Metric: text(attrMetric), Unit: text(attrUnit), Attributes: text(attrAttributes),
			Device: gpu.Device{
				ID: text(attrDevice), Parent: text(attrParent), Model: text(attrModel), PCIAddress: text(attrPCI), MIGProfile: text(attrMIG),
			},
		},
		Time: l.record.Timestamp().AsTime(), Value: value.Double(),
	}
	l.process(&s.Identity)
	if v, ok := l.resource.Attributes().Get(flow.AttrNodeName); ok {
		s.Node = v.Str()
	}
	if v, ok := a.Get(attrIndex); ok {
		s.Device.Index = uint32(v.Int())
	}
	if v, ok := a.Get(attrCounter); ok {
		s.Counter = v.Bool()
	}
	if v, ok := a.Get(attrStart); ok {
		s.Start = time.Unix(0, v.Int()).UTC()
	}
	return s, nil
}

// WriteGPU is WriteFlows of samples.
func (s *Store) WriteGPU(ctx context.Context, samples []gpu.Sample) (fresh bool, err error) {
	b := newBatch(eventSample)
	for i := range samples {
		b.sample(&samples[i])
	}
	return s.write(ctx, b)
}

// QueryGPU answers a query; see storage.Reader.
func (s *Store) QueryGPU(ctx context.Context, query storage.GPUQuery) (storage.GPUResult, error) {
	done, err := s.turn(ctx)
	if err != nil {
		return storage.GPUResult{}, err
	}
	defer done()
	v, err := s.view(ctx, query.From(), query.Until, s.allStatuses, func(v *view) error { return v.samples(ctx, &query.Selection) })
	if err != nil {
		return storage.GPUResult{}, err
	}
	result, err := v.store.QueryGPU(ctx, query)
	v.cover(&result.Coverage)
	return result, err
}

// samples reads all samples of the nodes that a selection asks for: whose a device was, samples of other metrics tell.
func (v *view) samples(ctx context.Context, selection *storage.GPUSelection) error {
	var where Any
	for i := range selection.Allow {
		f := &selection.Allow[i]
		if len(f.Nodes) == 0 {
			where = nil
			break
		}
		where = append(where, All{{Fields: []string{AttrNode}, Equal: texts(f.Nodes, nodeValue)}})
	}
	f := newFound[gpu.Sample](v)
	if err := f.read(ctx, eventSample, 0, where, (*line).sample); err != nil {
		return err
	}
	return f.write(ctx, v.store.WriteGPU)
}
