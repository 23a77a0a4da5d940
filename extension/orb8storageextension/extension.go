package orb8storageextension

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/extension/extensioncapabilities"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/embedded"
	"github.com/orb8/orb8/extension/orb8storageextension/internal/feed"
	"github.com/orb8/orb8/extension/orb8storageextension/internal/metadata"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/residency"
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
	config    *Config
	backend   backend
	// embedded is the backend where it is that one.
	embedded *embedded.Store
	feed     feed.Feed
}

var (
	_ storage.Store                         = (*storageExtension)(nil)
	_ extensioncapabilities.PipelineWatcher = (*storageExtension)(nil)
	_ extensioncapabilities.Dependent       = (*storageExtension)(nil)
)

func newStorageExtension(settings component.TelemetrySettings, cfg *Config) *storageExtension {
	e := &storageExtension{settings: settings, config: cfg}
	if e.config.Embedded.Directory == "" {
		e.use(embedded.New(e.bounds()))
	}
	return e
}

// use makes the embedded store the backend.
func (e *storageExtension) use(store *embedded.Store) {
	e.embedded, e.backend = store, local{store}
}

func (e *storageExtension) bounds() embedded.Settings {
	return embedded.Settings{
		Retention: e.config.Embedded.Retention, MaxBytes: uint64(e.config.Embedded.MaxBytes),
		MaxQueryRecords: uint64(e.config.Embedded.MaxQueryRecords), Now: time.Now,
	}
}

// Start opens the store where it has a directory, or is elsewhere, and makes its state observable. It waits for no server.
func (e *storageExtension) Start(ctx context.Context, host component.Host) error {
	if store, err := e.openEngine(ctx, host); err != nil {
		return err
	} else if store != nil {
		e.embedded, e.backend = nil, store
		return e.observe()
	}
	if config := &e.config.Embedded; config.Directory != "" {
		settings := e.bounds()
		settings.Disk = &embedded.DiskSettings{
			Directory: config.Directory, HeadBytes: uint64(config.Head.MaxBytes), HeadAge: config.Head.MaxAge,
			FsyncInterval: config.FsyncInterval, Logger: e.settings.Logger,
			Report: func(err error) { e.report(host, "The store takes no records until it can write to its directory", err) },
		}
		store, err := embedded.Open(settings)
		if err != nil {
			return err
		}
		e.use(store)
	}
	return e.observe()
}

// report makes the component's status tell that nothing can be stored, or can again. Queries are answered all the while.
func (e *storageExtension) report(host component.Host, failed string, err error) {
	if err == nil {
		e.settings.Logger.Info("The store takes records again")
		componentstatus.ReportStatus(host, componentstatus.NewEvent(componentstatus.StatusOK))
		return
	}
	e.settings.Logger.Error(failed, zap.Error(err))
	componentstatus.ReportStatus(host, componentstatus.NewRecoverableErrorEvent(err))
}

func (e *storageExtension) observe() error {
	telemetry, err := metadata.NewTelemetryBuilder(e.settings)
	if err != nil {
		return fmt.Errorf("cannot create the metrics of the store: %w", err)
	}
	e.telemetry = telemetry
	observe := func(value func(storage.StoreStatus) uint64) metric.Int64Callback {
		return func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(value(e.embedded.Status().Store)))
			return nil
		}
	}
	drops := telemetry.RegisterStorageSubscriberDropsCallback(func(_ context.Context, o metric.Int64Observer) error {
		_, dropped := e.feed.Stats()
		o.Observe(int64(dropped))
		return nil
	})
	if e.embedded == nil { // a server tells of itself
		return drops
	}
	return errors.Join(
		drops,
		telemetry.RegisterStorageRecordsCallback(observe(func(s storage.StoreStatus) uint64 { return s.Records })),
		telemetry.RegisterStorageSizeCallback(observe(func(s storage.StoreStatus) uint64 { return s.Bytes })),
		telemetry.RegisterStorageEvictedRecordsCallback(observe(func(s storage.StoreStatus) uint64 { return s.EvictedRecords })),
	)
}

// Ready is called when every component has started: what only that took can leave memory to records.
func (e *storageExtension) Ready() error {
	if err := residency.DropFilePages(); err != nil {
		e.settings.Logger.Warn("The pages of the program's file that only its start took stay in memory", zap.Error(err))
	}
	return nil
}

// NotReady does nothing: what arrives until Shutdown is stored.
func (e *storageExtension) NotReady() error { return nil }

func (e *storageExtension) Shutdown(context.Context) error {
	if e.telemetry != nil {
		e.telemetry.Shutdown()
	}
	if e.backend == nil {
		return nil
	}
	return e.backend.Close()
}

func (e *storageExtension) WriteFlows(ctx context.Context, records []flow.Record) error {
	fresh, err := e.backend.WriteFlows(ctx, records)
	if fresh {
		e.feed.PublishFlows(records)
	}
	return err
}

func (e *storageExtension) WriteLookups(ctx context.Context, lookups []flow.Lookup) error {
	fresh, err := e.backend.WriteLookups(ctx, lookups)
	if fresh {
		e.feed.PublishLookups(lookups)
	}
	return err
}

func (e *storageExtension) WriteEvents(_ context.Context, events []flow.Event) error {
	e.feed.PublishEvents(events)
	return nil
}

func (e *storageExtension) WriteStatus(ctx context.Context, status flow.NetworkStatus) error {
	return e.backend.WriteStatus(ctx, status)
}

func (e *storageExtension) WriteSyscalls(ctx context.Context, counts []syscalls.Counts) error {
	_, err := e.backend.WriteSyscalls(ctx, counts)
	return err
}

func (e *storageExtension) WriteSyscallEvents(_ context.Context, events []syscalls.Event) error {
	e.feed.PublishSyscalls(events)
	return nil
}

func (e *storageExtension) WriteAnomalies(ctx context.Context, anomalies []syscalls.Anomaly) error {
	fresh, err := e.backend.WriteAnomalies(ctx, anomalies)
	if fresh {
		e.feed.PublishAnomalies(anomalies)
	}
	return err
}

func (e *storageExtension) WriteGPU(ctx context.Context, samples []gpu.Sample) error {
	_, err := e.backend.WriteGPU(ctx, samples)
	return err
}

func (e *storageExtension) WriteSyscallStatus(ctx context.Context, status syscalls.Status) error {
	return e.backend.WriteSyscallStatus(ctx, status)
}

func (e *storageExtension) WriteGPUStatus(ctx context.Context, status gpu.Status) error {
	return e.backend.WriteGPUStatus(ctx, status)
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

func (e *storageExtension) Aggregate(ctx context.Context, query storage.AggregateQuery) (storage.AggregateResult, error) {
	return e.backend.Aggregate(ctx, query)
}

func (e *storageExtension) QueryGPU(ctx context.Context, query storage.GPUQuery) (storage.GPUResult, error) {
	return e.backend.QueryGPU(ctx, query)
}

func (e *storageExtension) Status(ctx context.Context) (storage.Status, error) {
	status, err := e.backend.Status(ctx)
	status.Store.Subscribers, status.Store.SubscriberDrops = e.feed.Stats()
	return status, err
}

func (e *storageExtension) Subscribe(selection storage.EventSelection) storage.Subscription {
	return e.feed.Subscribe(selection)
}
