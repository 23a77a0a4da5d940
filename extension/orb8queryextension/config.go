package orb8queryextension

import (
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/confighttp"
)

// Config of the query extension.
type Config struct {
	// HTTP is the listener, with its TLS, authentication and CORS. gRPC shares it.
	HTTP confighttp.ServerConfig `mapstructure:",squash"`
	// Storage is the orb8_storage extension to read from.
	Storage component.ID `mapstructure:"storage"`
	// MaxRows is the most flows that a reply holds, whatever the request asks for.
	MaxRows int `mapstructure:"max_rows"`
	// MaxGroups is how many groups, and buckets of groups, an aggregation may have before it is cut to the largest, and how many points
	// the series of GPUs may: what it takes of memory.
	MaxGroups int `mapstructure:"max_groups"`
	// MaxQueries is how many queries are answered at once, and MaxQueuedQueries how many more wait for it. One client has half of
	// either at most.
	MaxQueries       int `mapstructure:"max_queries"`
	MaxQueuedQueries int `mapstructure:"max_queued_queries"`
	// MaxStreams is how many StreamEvents calls may be open at once.
	MaxStreams int `mapstructure:"max_streams"`
	// MaxStreamsPerClient is how many of them one client may have, known by its IP address.
	MaxStreamsPerClient int `mapstructure:"max_streams_per_client"`
	// MaxConnections is how many connections are served at once; more wait to be accepted.
	MaxConnections int `mapstructure:"max_connections"`
	// QueryTimeout bounds every call but StreamEvents.
	QueryTimeout time.Duration `mapstructure:"query_timeout"`
	// UI is the web page, at / of the listener.
	UI UIConfig `mapstructure:"ui"`
}

// UIConfig of the web page.
type UIConfig struct {
	Enabled bool `mapstructure:"enabled"`
}

func createDefaultConfig() component.Config {
	http := confighttp.NewDefaultServerConfig()
	http.NetAddr.Endpoint = "127.0.0.1:9090"
	// Requests are small: a few filters. An empty one takes two bytes to send and half a kilobyte to keep.
	http.MaxRequestBodySize = 64 << 10
	// A reply may follow only after all of the query timeout.
	http.WriteTimeout = time.Minute
	// Who takes longer to say what is wanted holds a connection for nothing.
	http.ReadHeaderTimeout = 10 * time.Second
	http.ReadTimeout = 30 * time.Second
	return &Config{
		HTTP:      http,
		Storage:   component.MustNewID("orb8_storage"),
		MaxRows:   100_000,
		MaxGroups: 500_000,

		MaxQueries:          8,
		MaxQueuedQueries:    64,
		MaxStreams:          64,
		MaxStreamsPerClient: 16,
		MaxConnections:      1024,
		QueryTimeout:        30 * time.Second,
		UI:                  UIConfig{Enabled: true},
	}
}

// Validate names each key that is out of its bounds, its value and the bounds.
func (c *Config) Validate() error {
	var errs error
	if c.HTTP.NetAddr.Endpoint == "" {
		errs = errors.Join(errs, errors.New("endpoint: must not be empty; use HOST:PORT"))
	}
	if c.Storage == (component.ID{}) {
		errs = errors.Join(errs, errors.New("storage: must not be empty; name an orb8_storage extension"))
	}
	for _, bound := range []struct {
		key   string
		value int64
	}{
		{"max_request_body_size", c.HTTP.MaxRequestBodySize},
		{"max_rows", int64(c.MaxRows)},
		{"max_groups", int64(c.MaxGroups)},
		{"max_queries", int64(c.MaxQueries)},
		{"max_streams", int64(c.MaxStreams)},
		{"max_streams_per_client", int64(c.MaxStreamsPerClient)},
		{"max_connections", int64(c.MaxConnections)},
	} {
		if bound.value < 1 {
			errs = errors.Join(errs, fmt.Errorf("%s: %d is too small; use 1 or more", bound.key, bound.value))
		}
	}
	if c.MaxQueuedQueries < 0 {
		errs = errors.Join(errs, fmt.Errorf("max_queued_queries: %d is negative; use 0 (none waits) or more", c.MaxQueuedQueries))
	}
	if c.QueryTimeout <= 0 {
		errs = errors.Join(errs, fmt.Errorf("query_timeout: %s is too short; use more than 0s", c.QueryTimeout))
	}
	return errs
}
