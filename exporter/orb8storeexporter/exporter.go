package orb8storeexporter

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.uber.org/zap"

	"github.com/orb8/orb8/exporter/orb8storeexporter/internal/metadata"
	"github.com/orb8/orb8/extension/orb8storageextension"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// maxBatch bounds the memory that decoded records take on their way to the store: a record takes about 0.5 KiB, and so do two
// counts of a call whose latency is told.
const maxBatch = 512

type storeExporter struct {
	settings  component.TelemetrySettings
	storage   component.ID
	telemetry *metadata.TelemetryBuilder
	writer    storage.Writer
	// batches are *batch and metricBatches *metricBatch that were used and can be again: what they hold is nobody's.
	batches, metricBatches sync.Pool
}

func newStoreExporter(settings component.TelemetrySettings, cfg *Config) (*storeExporter, error) {
	telemetry, err := metadata.NewTelemetryBuilder(settings)
	if err != nil {
		return nil, fmt.Errorf("cannot create the metrics of the exporter: %w", err)
	}
	return &storeExporter{settings: settings, storage: cfg.Storage, telemetry: telemetry}, nil
}

func (e *storeExporter) start(_ context.Context, host component.Host) error {
	store, err := orb8storageextension.Get(host, e.storage)
	if err != nil {
		return err
	}
	e.writer = store
	return nil
}

// consume writes what a batch of logs holds. It fails only when the store does: a log record that is not orb8's, or
// malformed, is counted and must not keep the others out.
func (e *storeExporter) consume(ctx context.Context, logs plog.Logs) error {
	b, _ := e.batches.Get().(*batch)
	if b == nil {
		b = &batch{}
	}
	b.begin(e.writer)
	defer e.batches.Put(b)
	err := b.logs(ctx, logs)
	if b.ignored > 0 {
		e.telemetry.StoreIgnoredRecords.Add(ctx, b.ignored)
	}
	if b.malformed > 0 {
		e.telemetry.StoreMalformedRecords.Add(ctx, b.malformed)
		e.settings.Logger.Debug("Dropped malformed records", zap.Int64("count", b.malformed), zap.NamedError("first", b.first))
	}
	return err
}

// batch is the decoding of one batch of logs.
type batch struct {
	writer    storage.Writer
	flows     []flow.Record
	events    []flow.Event
	lookups   []flow.Lookup
	counts    []syscalls.Counts
	calls     []syscalls.Event
	anomalies []syscalls.Anomaly
	// size is how much of maxBatch they take.
	size int

	ignored, malformed int64
	// first is what is wrong with the first malformed record.
	first error
}

// begin makes the batch as good as new. Its slices keep their room.
func (b *batch) begin(w storage.Writer) {
	*b = batch{
		writer: w, flows: b.flows[:0], events: b.events[:0], lookups: b.lookups[:0],
		counts: b.counts[:0], calls: b.calls[:0], anomalies: b.anomalies[:0],
	}
}

func (b *batch) logs(ctx context.Context, logs plog.Logs) error {
	for _, resource := range logs.ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, record := range scope.LogRecords().All() {
				if err := b.add(ctx, resource.Resource(), record); err != nil {
					return err
				}
			}
		}
	}
	return b.flush(ctx)
}

func (b *batch) add(ctx context.Context, resource pcommon.Resource, record plog.LogRecord) error {
	var err error
	b.size++
	switch record.EventName() {
	case flow.EventNameFlow:
		b.flows, err = decode(b.flows, resource, record, flow.RecordFrom)
	case flow.EventNameEvent:
		b.events, err = decode(b.events, resource, record, flow.EventFrom)
	case flow.EventNameLookup:
		b.lookups, err = decode(b.lookups, resource, record, flow.LookupFrom)
	case flow.EventNameDrop:
		// The store has the sums by reason, in the status.
	case flow.EventNameStatus:
		status := flow.StatusFrom(resource, record)
		if err = check(status.Node, flow.AttrInterval, status.Interval); err == nil {
			return b.writer.WriteStatus(ctx, status)
		}
	case syscalls.EventNameCounts:
		if b.counts, err = decode(b.counts, resource, record, syscalls.CountsFrom); err == nil {
			b.size += len(b.counts[len(b.counts)-1].Calls) / 2
		}
	case syscalls.EventNameEvent:
		b.calls, err = decode(b.calls, resource, record, syscalls.EventFrom)
	case syscalls.EventNameAnomaly:
		b.anomalies, err = decode(b.anomalies, resource, record, syscalls.AnomalyFrom)
	case syscalls.EventNameStatus:
		status := syscalls.StatusFrom(resource, record)
		if err = check(status.Node, syscalls.AttrInterval, status.Interval); err == nil {
			return b.writer.WriteSyscallStatus(ctx, status)
		}
	case gpu.EventNameStatus:
		status := gpu.StatusFrom(resource, record)
		if err = check(status.Node, gpu.AttrInterval, status.Interval); err == nil {
			return b.writer.WriteGPUStatus(ctx, status)
		}
	default:
		b.ignored++
	}
	if err != nil {
		b.malformed++
		if b.first == nil {
			b.first = err
		}
	}
	if b.size >= maxBatch {
		return b.flush(ctx)
	}
	return nil
}

// decode appends what a log record holds.
func decode[T any](to []T, resource pcommon.Resource, record plog.LogRecord, from func(pcommon.Resource, plog.LogRecord) (T, error)) ([]T, error) {
	v, err := from(resource, record)
	if err != nil {
		return to, err
	}
	return append(to, v), nil
}

// check refuses a status that could not be told apart from other nodes', or whose age would mean nothing.
func check(node, intervalKey string, interval time.Duration) error {
	if node == "" {
		return fmt.Errorf("resource attribute %s: missing", flow.AttrNodeName)
	}
	if interval <= 0 {
		return fmt.Errorf("attribute %s: %d is not a positive number of nanoseconds", intervalKey, interval)
	}
	return nil
}

// flush writes what was decoded so far. Events go first: a flow's first packet comes before its first record, and a call before
// the anomaly that it is.
func (b *batch) flush(ctx context.Context) error {
	b.size = 0
	if err := write(ctx, &b.events, b.writer.WriteEvents); err != nil {
		return err
	}
	if err := write(ctx, &b.lookups, b.writer.WriteLookups); err != nil {
		return err
	}
	if err := write(ctx, &b.flows, b.writer.WriteFlows); err != nil {
		return err
	}
	if err := write(ctx, &b.calls, b.writer.WriteSyscallEvents); err != nil {
		return err
	}
	if err := write(ctx, &b.anomalies, b.writer.WriteAnomalies); err != nil {
		return err
	}
	return write(ctx, &b.counts, b.writer.WriteSyscalls)
}

// write hands on what there is, and makes room for more.
func write[T any](ctx context.Context, from *[]T, to func(context.Context, []T) error) error {
	if len(*from) == 0 {
		return nil
	}
	err := to(ctx, *from)
	*from = (*from)[:0]
	return err
}
