package orb8storeexporter

import (
	"errors"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
)

// Config of the store exporter.
type Config struct {
	// Storage is the orb8_storage extension to write to.
	Storage component.ID `mapstructure:"storage"`
	// Queue decouples the pipeline from the store. Off by default: what it holds in memory is acknowledged and not stored yet.
	Queue configoptional.Optional[exporterhelper.QueueBatchConfig] `mapstructure:"sending_queue"`
}

func createDefaultConfig() component.Config {
	return &Config{
		Storage: component.MustNewID("orb8_storage"),
		Queue:   configoptional.Default(exporterhelper.NewDefaultQueueConfig()),
	}
}

// Validate fails when no storage extension is named.
func (c *Config) Validate() error {
	if c.Storage == (component.ID{}) {
		return errors.New("storage: must not be empty; name an orb8_storage extension")
	}
	return nil
}
