package orb8storageextension

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"

	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/storage/storagetest"
)

// TestContract runs the suite on the embedded store: in memory, with a journal, and with a head so small that all but the last
// write is in blocks.
func TestContract(t *testing.T) {
	for name, change := range map[string]func(*EmbeddedConfig){
		"memory":  func(c *EmbeddedConfig) { c.Directory = "" },
		"journal": func(*EmbeddedConfig) {},
		"blocks":  func(c *EmbeddedConfig) { c.Head.MaxBytes = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			storagetest.Run(t, func(t *testing.T) storagetest.Backend {
				config := createDefaultConfig().(*Config)
				config.Embedded.Directory = t.TempDir()
				change(&config.Embedded)
				start := func(t *testing.T) *storageExtension {
					e := newStorageExtension(componenttest.NewNopTelemetrySettings(), config)
					require.NoError(t, e.Start(t.Context(), componenttest.NewNopHost()))
					return e
				}
				e := start(t)
				t.Cleanup(func() { assert.NoError(t, e.Shutdown(t.Context())) })
				backend := storagetest.Backend{Store: e}
				if config.Embedded.Directory != "" {
					backend.Reopen = func(t *testing.T) storage.Store {
						require.NoError(t, e.Shutdown(t.Context()))
						e = start(t)
						return e
					}
				}
				return backend
			})
		})
	}
}
