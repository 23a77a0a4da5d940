package orb8storageextension

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/otel/metric"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/embedded"
	"github.com/orb8/orb8/extension/orb8storageextension/internal/feed"
	"github.com/orb8/orb8/extension/orb8storageextension/internal/metadata"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// Get returns the store of the storage extension id. The error says what to change in the configuration.
func Get(host component.Host, id component.ID) (storage.Store, error) {
	extension, found := host.GetExtensions()[id]
	if !found {
		return nil, fmt.Errorf("storage: there is no extension %q; configure it under extensions and list it in service::extensions", id)
	}
	store, ok := extension.(storage.Store)
	if !ok {
		return nil, fmt.Errorf("storage: extension %q stores nothing of orb8's; name an %s extension", id, metadata.Type)
	}
	return store, nil
}

// storageExtension is a storage.Store: a backend that keeps, and a feed that hands on what arrives.
type storageExtension struct {
	settings  component.TelemetrySettings
	telemetry *metadata.TelemetryBuilder
	backend   *embedded.Store
	feed      feed.Feed
}

var _ storage.Store = (*storageExtension)(nil)

func newStorageExtension(settings component.TelemetrySettings, cfg *Config) *storageExtension {
	return &storageExtension{
		settings: settings,
		backend: embedded.New(embedded.Settings{
			Retention: cfg.Embedded.Retention,
			MaxBytes:  uint64(cfg.Embedded.MaxBytes),
			Now:       time.Now,
		}),
	}
}

// Start makes the store's state observable. The store itself needs no start.
func (e *storageExtension) Start(context.Context, component.Host) error {
	telemetry, err := metadata.NewTelemetryBuilder(e.settings)
	if err != nil {
		return fmt.Errorf("cannot create the metrics of the store: %w", err)
	}
	e.telemetry = telemetry
	observe := func(value func(storage.StoreStatus) uint64) metric.Int64Callback {
		return func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(value(e.status().Store)))
			return nil
		}
	}
	return errors.Join(
		telemetry.RegisterStorageRecordsCallback(observe(func(s storage.StoreStatus) uint64 { return s.Records })),
		telemetry.RegisterStorageSizeCallback(observe(func(s storage.StoreStatus) uint64 { return s.Bytes })),
		telemetry.RegisterStorageEvictedRecordsCallback(observe(func(s storage.StoreStatus) uint64 { return s.EvictedRecords })),
		telemetry.RegisterStorageSubscriberDropsCallback(observe(func(s storage.StoreStatus) uint64 { return s.SubscriberDrops })),
	)
}

func (e *storageExtension) Shutdown(context.Context) error {
	if e.telemetry != nil {
		e.telemetry.Shutdown()
	}
	return nil
}

func (e *storageExtension) WriteFlows(_ context.Context, records []flow.Record) error {
	e.backend.WriteFlows(records)
	e.feed.PublishFlows(records)
	return nil
}

func (e *storageExtension) WriteLookups(_ context.Context, lookups []flow.Lookup) error {
	e.backend.WriteLookups(lookups)
	e.feed.PublishLookups(lookups)
	return nil
}

func (e *storageExtension) WriteEvents(_ context.Context, events []flow.Event) error {
	e.feed.PublishEvents(events)
	return nil
}

func (e *storageExtension) WriteStatus(_ context.Context, status flow.NetworkStatus) error {
	e.backend.WriteStatus(status)
	return nil
}

func (e *storageExtension) WriteSyscalls(_ context.Context, counts []syscalls.Counts) error {
	e.backend.WriteSyscalls(counts)
	return nil
}

func (e *storageExtension) WriteSyscallEvents(_ context.Context, events []syscalls.Event) error {
	e.feed.PublishSyscalls(events)
	return nil
}

func (e *storageExtension) WriteAnomalies(_ context.Context, anomalies []syscalls.Anomaly) error {
	e.backend.WriteAnomalies(anomalies)
	e.feed.PublishAnomalies(anomalies)
	return nil
}

func (e *storageExtension) WriteSyscallStatus(_ context.Context, status syscalls.Status) error {
	e.backend.WriteSyscallStatus(status)
	return nil
}

func (e *storageExtension) QueryFlows(ctx context.Context, query storage.FlowQuery) (storage.FlowResult, error) {
	return e.backend.QueryFlows(ctx, query)
}

func (e *storageExtension) QueryLookups(ctx context.Context, query storage.LookupQuery) (storage.LookupResult, error) {
	return e.backend.QueryLookups(ctx, query)
}

func (e *storageExtension) QuerySyscalls(ctx context.Context, query storage.SyscallQuery) (storage.SyscallResult, error) {
	return e.backend.QuerySyscalls(ctx, query)
}

func (e *storageExtension) QueryAnomalies(ctx context.Context, query storage.AnomalyQuery) (storage.AnomalyResult, error) {
	return e.backend.QueryAnomalies(ctx, query)
}

func (e *storageExtension) Status(context.Context) (storage.Status, error) {
	return e.status(), nil
}

func (e *storageExtension) status() storage.Status {
	status := e.backend.Status()
	status.Store.Subscribers, status.Store.SubscriberDrops = e.feed.Stats()
	return status
}

func (e *storageExtension) Subscribe(selection storage.EventSelection) storage.Subscription {
	return e.feed.Subscribe(selection)
}
