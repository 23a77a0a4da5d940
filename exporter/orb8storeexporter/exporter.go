package orb8storeexporter

import (
	"context"
	"fmt"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.uber.org/zap"

	"github.com/orb8/orb8/exporter/orb8storeexporter/internal/metadata"
	"github.com/orb8/orb8/extension/orb8storageextension"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

// maxBatch bounds the memory that decoded records take on their way to the store: a record takes about 0.5 KiB.
const maxBatch = 512

type storeExporter struct {
	settings  component.TelemetrySettings
	storage   component.ID
	telemetry *metadata.TelemetryBuilder
	writer    storage.Writer
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
	b := batch{
		writer: e.writer,
		flows:  make([]flow.Record, 0, min(maxBatch, logs.LogRecordCount())),
	}
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
	writer  storage.Writer
	flows   []flow.Record
	events  []flow.Event
	lookups []flow.Lookup

	ignored, malformed int64
	// first is what is wrong with the first malformed record.
	first error
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
	switch record.EventName() {
	case flow.EventNameFlow:
		var r flow.Record
		if r, err = flow.RecordFrom(resource, record); err == nil {
			b.flows = append(b.flows, r)
		}
	case flow.EventNameEvent:
		var event flow.Event
		if event, err = flow.EventFrom(resource, record); err == nil {
			b.events = append(b.events, event)
		}
	case flow.EventNameLookup:
		var lookup flow.Lookup
		if lookup, err = flow.LookupFrom(resource, record); err == nil {
			b.lookups = append(b.lookups, lookup)
		}
	case flow.EventNameDrop:
		// The store has the sums by reason, in the status.
	case flow.EventNameStatus:
		status := flow.StatusFrom(resource, record)
		if err = check(&status); err == nil {
			return b.writer.WriteStatus(ctx, status)
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
	if len(b.flows)+len(b.events)+len(b.lookups) >= maxBatch {
		return b.flush(ctx)
	}
	return nil
}

// check refuses a status that could not be told apart from other nodes', or whose age would mean nothing.
func check(s *flow.NetworkStatus) error {
	if s.Node == "" {
		return fmt.Errorf("resource attribute %s: missing", flow.AttrNodeName)
	}
	if s.Interval <= 0 {
		return fmt.Errorf("attribute %s: %d is not a positive number of nanoseconds", flow.AttrInterval, s.Interval)
	}
	return nil
}

// flush writes what was decoded so far. Events go first: a flow's first packet comes before its first record.
func (b *batch) flush(ctx context.Context) error {
	if len(b.events) > 0 {
		if err := b.writer.WriteEvents(ctx, b.events); err != nil {
			return err
		}
		b.events = b.events[:0]
	}
	if len(b.lookups) > 0 {
		if err := b.writer.WriteLookups(ctx, b.lookups); err != nil {
			return err
		}
		b.lookups = b.lookups[:0]
	}
	if len(b.flows) > 0 {
		if err := b.writer.WriteFlows(ctx, b.flows); err != nil {
			return err
		}
		b.flows = b.flows[:0]
	}
	return nil
}
