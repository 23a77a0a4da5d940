package orb8storageextension

import (
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/component"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/embedded"
)

const minRetention = time.Minute

// Config of the storage extension.
type Config struct {
	// Embedded is the store in the collector's memory.
	Embedded EmbeddedConfig `mapstructure:"embedded"`
}

// EmbeddedConfig bounds the embedded store: whichever bound is met first holds.
type EmbeddedConfig struct {
	// Retention is how long a record is kept, at least 1m.
	Retention time.Duration `mapstructure:"retention"`
	// MaxBytes is the memory that records may take, at least 4 MiB. Queries take more while they run.
	MaxBytes int64 `mapstructure:"max_bytes"`
}

func createDefaultConfig() component.Config {
	return &Config{Embedded: EmbeddedConfig{Retention: time.Hour, MaxBytes: 64 << 20}}
}

// Validate names the key that is out of its bounds, its value and the bounds.
func (c *EmbeddedConfig) Validate() error {
	var errs error
	if c.Retention < minRetention {
		errs = errors.Join(errs, fmt.Errorf("retention: %s is too short; use %s or more", c.Retention, minRetention))
	}
	if c.MaxBytes < embedded.MinBytes {
		errs = errors.Join(errs, fmt.Errorf("max_bytes: %d is too small; use %d or more", c.MaxBytes, embedded.MinBytes))
	}
	return errs
}
