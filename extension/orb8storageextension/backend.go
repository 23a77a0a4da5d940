package orb8storageextension

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/confighttp"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/embedded"
	"github.com/orb8/orb8/extension/orb8storageextension/internal/engine"
	"github.com/orb8/orb8/extension/orb8storageextension/internal/loki"
	"github.com/orb8/orb8/extension/orb8storageextension/internal/victorialogs"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// backend keeps records. Fresh is true where the live feed is to have them: they have not been stored before.
type backend interface {
	WriteFlows(ctx context.Context, records []flow.Record) (fresh bool, err error)
	WriteLookups(ctx context.Context, lookups []flow.Lookup) (fresh bool, err error)
	WriteSyscalls(ctx context.Context, counts []syscalls.Counts) (fresh bool, err error)
	WriteAnomalies(ctx context.Context, anomalies []syscalls.Anomaly) (fresh bool, err error)
	WriteGPU(ctx context.Context, samples []gpu.Sample) (fresh bool, err error)
	WriteStatus(ctx context.Context, status flow.NetworkStatus) error
	WriteSyscallStatus(ctx context.Context, status syscalls.Status) error
	WriteGPUStatus(ctx context.Context, status gpu.Status) error

	QueryFlows(ctx context.Context, query storage.FlowQuery) (storage.FlowResult, error)
	QueryLookups(ctx context.Context, query storage.LookupQuery) (storage.LookupResult, error)
	QuerySyscalls(ctx context.Context, query storage.SyscallQuery) (storage.SyscallResult, error)
	QueryAnomalies(ctx context.Context, query storage.AnomalyQuery) (storage.AnomalyResult, error)
	QueryGPU(ctx context.Context, query storage.GPUQuery) (storage.GPUResult, error)
	Aggregate(ctx context.Context, query storage.AggregateQuery) (storage.AggregateResult, error)
	Status(ctx context.Context) (storage.Status, error)
	Close() error
}

// local is the embedded store, which always knows its status.
type local struct{ *embedded.Store }

func (l local) Status(context.Context) (storage.Status, error) { return l.Store.Status(), nil }

// Dependencies makes the Collector start what knows the engine's password first, and stop it last.
func (e *storageExtension) Dependencies() []component.ID {
	var http confighttp.ClientConfig
	switch {
	case e.config.VictoriaLogs.HasValue():
		http = e.config.VictoriaLogs.Get().HTTP
	case e.config.Loki.HasValue():
		http = e.config.Loki.Get().Engine.HTTP
	}
	if !http.Auth.HasValue() {
		return nil
	}
	return []component.ID{http.Auth.Get().AuthenticatorID}
}

// openEngine returns the store over the engine that the configuration names, or nil.
func (e *storageExtension) openEngine(ctx context.Context, host component.Host) (backend, error) {
	config := &EngineConfig{}
	open := func(client engine.Client) engine.Engine { return &victorialogs.Engine{Client: client} }
	name := "VictoriaLogs"
	switch {
	case e.config.VictoriaLogs.HasValue():
		config = e.config.VictoriaLogs.Get()
	case e.config.Loki.HasValue():
		name, config = "Loki", &e.config.Loki.Get().Engine
		open = func(client engine.Client) engine.Engine {
			return &loki.Engine{Client: client, PageLines: e.config.Loki.Get().QueryLines}
		}
	default:
		return nil, nil
	}
	writes, err := config.HTTP.ToClient(ctx, host.GetExtensions(), e.settings)
	if err != nil {
		return nil, fmt.Errorf("cannot make a client of %s: %w", name, err)
	}
	// Records are compressed where that is asked for; questions are forms, which servers read only as they are.
	plain := config.HTTP
	plain.Compression = ""
	queries, err := plain.ToClient(ctx, host.GetExtensions(), e.settings)
	if err != nil {
		return nil, fmt.Errorf("cannot make a client of %s: %w", name, err)
	}
	client := engine.Client{Writes: writes, Queries: queries, Endpoint: strings.TrimSuffix(config.HTTP.Endpoint, "/"), Name: name, Key: strings.ToLower(name)}
	return engine.New(engine.Settings{
		Engine: open(client), Retention: config.Retention, MaxQueryRecords: config.maxQueryRecords(), Now: time.Now, Logger: e.settings.Logger,
		Report: func(err error) { e.report(host, "The store takes no records until "+name+" does", err) },
	}), nil
}
