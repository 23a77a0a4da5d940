package orb8storageextension

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"

	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/storage/storagetest"
	"github.com/orb8/orb8/testbed/backends"
)

// tenants numbers the tests: each has a server for itself, as far as it can see.
var tenants atomic.Uint32

// tenant begins where those of an earlier run on the same machine did not: servers keep nothing, but nobody needs to know.
func tenant() map[string]any {
	n := tenants.Add(1)
	return map[string]any{"AccountID": fmt.Sprint(n), "ProjectID": "7", "X-Scope-OrgID": fmt.Sprintf("test-%d", n)}
}

// openEngine starts an extension over a server, with a tenant's headers.
func openEngine(t testing.TB, backend, endpoint string, headers map[string]any) *storageExtension {
	t.Helper()
	config := createDefaultConfig().(*Config)
	require.NoError(t, confmap.NewFromStringMap(map[string]any{backend: map[string]any{
		"endpoint": endpoint, "headers": headers, "compression": "zstd",
	}}).Unmarshal(config))
	require.NoError(t, confmap.Validate(config))
	e := newStorageExtension(componenttest.NewNopTelemetrySettings(), config)
	require.NoError(t, e.Start(t.Context(), componenttest.NewNopHost()))
	t.Cleanup(func() { assert.NoError(t, e.Shutdown(context.Background())) })
	return e
}

func TestContractOfVictoriaLogs(t *testing.T) {
	server := backends.VictoriaLogs(t)
	prompt := server.Prompt(&backends.Flusher{Flush: server.Flush})
	storagetest.Run(t, func(t *testing.T) storagetest.Backend {
		headers := tenant()
		open := func(t *testing.T) storage.Store { return openEngine(t, "victorialogs", prompt, headers) }
		return storagetest.Backend{Store: open(t), Reopen: open}
	})
}

// TestContractOfACluster reads at the front end that did not take the records.
func TestContractOfACluster(t *testing.T) {
	cluster := backends.VictoriaLogsCluster(t)
	flusher := &backends.Flusher{Flush: cluster.Flush}
	prompt := [...]string{cluster.Gateways[0].Prompt(flusher), cluster.Gateways[1].Prompt(flusher)}
	storagetest.Run(t, func(t *testing.T) storagetest.Backend {
		headers := tenant()
		gateways := 0
		open := func(t *testing.T) storage.Store {
			gateways++
			return openEngine(t, "victorialogs", prompt[gateways%2], headers)
		}
		return storagetest.Backend{Store: open(t), Reopen: open, Slow: true}
	})
}

func TestContractOfLoki(t *testing.T) {
	server := backends.Loki(t)
	storagetest.Run(t, func(t *testing.T) storagetest.Backend {
		headers := tenant()
		open := func(t *testing.T) storage.Store { return openEngine(t, "loki", server.URL, headers) }
		return storagetest.Backend{Store: open(t), Reopen: open}
	})
}
