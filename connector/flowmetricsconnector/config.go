package flowmetricsconnector

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/collector/component"
)

// Config is what the user says about the flow_metrics connector.
type Config struct {
	// Dimensions tell the series apart: source, destination, direction, transport.
	Dimensions []string `mapstructure:"dimensions"`
	// MaxSeries is how many series are kept apart. What comes beyond is summed up as "other".
	MaxSeries int `mapstructure:"max_series"`
	// Expiry is how long a series is kept after its last flow record.
	Expiry time.Duration `mapstructure:"expiry"`
	// Interval is the time between two reports of all series.
	Interval time.Duration `mapstructure:"interval"`
}

// The dimensions.
const (
	dimSource      = "source"
	dimDestination = "destination"
	dimDirection   = "direction"
	dimTransport   = "transport"
)

// maxSeriesLimit keeps a typing error from taking all memory: so many take 200 MB while they are reported.
const maxSeriesLimit = 100_000

func allDimensions() []string {
	return []string{dimSource, dimDestination, dimDirection, dimTransport}
}

func createDefaultConfig() component.Config {
	return &Config{
		Dimensions: allDimensions(),
		MaxSeries:  10_000,
		Expiry:     10 * time.Minute,
		Interval:   10 * time.Second,
	}
}

// Validate names the key that is wrong, its value and what is allowed.
func (c *Config) Validate() error {
	if len(c.Dimensions) == 0 {
		return fmt.Errorf("dimensions: is empty; use one or more of %s", strings.Join(allDimensions(), ", "))
	}
	for i, d := range c.Dimensions {
		if !slices.Contains(allDimensions(), d) {
			return fmt.Errorf("dimensions: %q is not one; use %s", d, strings.Join(allDimensions(), ", "))
		}
		if slices.Contains(c.Dimensions[:i], d) {
			return fmt.Errorf("dimensions: %q is there twice; name it once", d)
		}
	}
	if c.MaxSeries < 1 || c.MaxSeries > maxSeriesLimit {
		return fmt.Errorf("max_series: %d is out of range; use 1 to %d", c.MaxSeries, maxSeriesLimit)
	}
	if c.Interval < 100*time.Millisecond || c.Interval > time.Hour {
		return fmt.Errorf("interval: %s is out of range; use 100ms to 1h", c.Interval)
	}
	if c.Expiry < c.Interval {
		return fmt.Errorf("expiry: %s is less than interval (%s); use that or more, so that every series is reported",
			c.Expiry, c.Interval)
	}
	return nil
}
