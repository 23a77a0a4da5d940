package orb8storageextension

import (
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configoptional"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/embedded"
)

const (
	minRetention = time.Minute
	minHeadAge   = time.Second
)

// Config of the storage extension: of one backend, which is the embedded one if none is named.
type Config struct {
	// Embedded is the store in the collector.
	Embedded EmbeddedConfig `mapstructure:"embedded"`
	// VictoriaLogs is a VictoriaLogs server, or a front end of a cluster.
	VictoriaLogs configoptional.Optional[EngineConfig] `mapstructure:"victorialogs"`
	// Loki is a Loki server.
	Loki configoptional.Optional[LokiConfig] `mapstructure:"loki"`
}

// EmbeddedConfig says where the embedded store keeps records, and bounds it: whichever bound is met first holds.
type EmbeddedConfig struct {
	// Directory is where records are kept; empty is in memory alone, until the collector stops.
	Directory string `mapstructure:"directory"`
	// Retention is how long a record is kept, at least 1m.
	Retention time.Duration `mapstructure:"retention"`
	// MaxBytes is what records may take, at least 4 MiB: of the disk, or of memory where there is no directory. Queries take more
	// while they run.
	MaxBytes int64 `mapstructure:"max_bytes"`
	// Head is what of a directory's records is in memory.
	Head HeadConfig `mapstructure:"head"`
	// MaxQueryRecords is how many records of a directory a query reads, the newest; its answer says from when on it is whole.
	// 0 is all. It bounds the memory that a query takes.
	MaxQueryRecords int64 `mapstructure:"max_query_records"`
	// FsyncInterval is how often what was acknowledged is made to outlive the machine; 0 is before it is acknowledged. It outlives
	// the collector in any case.
	FsyncInterval time.Duration `mapstructure:"fsync_interval"`
}

// HeadConfig bounds the records that are not in a file yet.
type HeadConfig struct {
	// MaxBytes is the memory from which on they go to a file, at least 1 MiB. They take at most four times as much meanwhile.
	MaxBytes int64 `mapstructure:"max_bytes"`
	// MaxAge is how long a record is there at most, at least 1s.
	MaxAge time.Duration `mapstructure:"max_age"`
}

func createDefaultConfig() component.Config {
	return &Config{
		Embedded: EmbeddedConfig{
			Retention: time.Hour, MaxBytes: 64 << 20, Head: HeadConfig{MaxBytes: 16 << 20, MaxAge: 5 * time.Minute}, FsyncInterval: time.Second,
			MaxQueryRecords: 500_000,
		},
		VictoriaLogs: configoptional.Default(defaultEngineConfig()),
		Loki:         configoptional.Default(LokiConfig{Engine: defaultEngineConfig(), QueryLines: 5000}),
	}
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
	if c.MaxQueryRecords < 0 {
		errs = errors.Join(errs, fmt.Errorf("max_query_records: %d is negative; use 0 for no bound", c.MaxQueryRecords))
	}
	if c.FsyncInterval < 0 {
		errs = errors.Join(errs, fmt.Errorf("fsync_interval: %s is negative; use 0 to sync every write", c.FsyncInterval))
	}
	return errs
}

// Validate is as that of EmbeddedConfig.
func (c *HeadConfig) Validate() error {
	var errs error
	if c.MaxBytes < embedded.MinHeadBytes {
		errs = errors.Join(errs, fmt.Errorf("max_bytes: %d is too small; use %d or more", c.MaxBytes, embedded.MinHeadBytes))
	}
	if c.MaxAge < minHeadAge {
		errs = errors.Join(errs, fmt.Errorf("max_age: %s is too short; use %s or more", c.MaxAge, minHeadAge))
	}
	return errs
}
