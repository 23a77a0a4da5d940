package orb8storageextension

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"time"

	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/confmap"
)

// EngineConfig says which server keeps the records, and bounds what a query reads of it.
type EngineConfig struct {
	// HTTP has the endpoint, TLS, authentication, headers (of the tenant, for one), and timeout of a request.
	HTTP confighttp.ClientConfig `mapstructure:",squash"`
	// Retention is how far back queries look, at least 1m. How long records are kept is the server's to decide.
	Retention time.Duration `mapstructure:"retention"`
	// MaxQueryRecords is how many records a query reads, the newest; its answer says from when on it is whole. 0 is all. It bounds
	// the memory that a query takes.
	MaxQueryRecords int64 `mapstructure:"max_query_records"`
}

// LokiConfig is EngineConfig and what Loki alone has.
type LokiConfig struct {
	Engine EngineConfig `mapstructure:",squash"`
	// QueryLines is how many lines an answer of Loki's has at most: its max_entries_limit_per_query, or less.
	QueryLines int `mapstructure:"query_lines"`
}

func defaultEngineConfig() EngineConfig {
	config := EngineConfig{HTTP: confighttp.NewDefaultClientConfig(), Retention: 24 * time.Hour, MaxQueryRecords: 500_000}
	config.HTTP.Timeout = 30 * time.Second
	return config
}

// Unmarshal refuses a second backend: embedded has defaults, so that only here it is known whether it was asked for. `embedded: null`
// takes it out of a configuration that this one is merged over.
func (c *Config) Unmarshal(conf *confmap.Conf) error {
	var asked []string
	for _, key := range []string{"embedded", "victorialogs", "loki"} {
		if conf.IsSet(key) && (key != "embedded" || conf.Get(key) != nil) {
			asked = append(asked, key)
		}
	}
	if len(asked) > 1 {
		return fmt.Errorf("%s and %s are there: use one of embedded, victorialogs and loki", asked[0], asked[1])
	}
	return conf.Unmarshal(c)
}

// Validate names the key that is out of its bounds, its value and the bounds.
func (c *EngineConfig) Validate() error {
	var errs error
	if u, err := url.Parse(c.HTTP.Endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		errs = errors.Join(errs, fmt.Errorf("endpoint: %q is no address; use http:// or https:// and a host", c.HTTP.Endpoint))
	}
	if c.Retention < minRetention {
		errs = errors.Join(errs, fmt.Errorf("retention: %s is too short; use %s or more", c.Retention, minRetention))
	}
	if c.MaxQueryRecords < 0 {
		errs = errors.Join(errs, fmt.Errorf("max_query_records: %d is negative; use 0 for no bound", c.MaxQueryRecords))
	}
	return errs
}

// Validate is as that of EngineConfig.
func (c *LokiConfig) Validate() error {
	if c.QueryLines < 2 {
		return fmt.Errorf("query_lines: %d is too small; use 2 or more", c.QueryLines)
	}
	return nil
}

func (c *EngineConfig) maxQueryRecords() int {
	if c.MaxQueryRecords == 0 {
		return math.MaxInt32
	}
	return int(min(c.MaxQueryRecords, math.MaxInt32))
}
