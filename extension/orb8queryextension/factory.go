package orb8queryextension

import (
	"context"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"

	"github.com/orb8/orb8/extension/orb8queryextension/internal/metadata"
)

// NewFactory returns the factory of the orb8_query extension.
func NewFactory() extension.Factory {
	return extension.NewFactory(metadata.Type, createDefaultConfig, create, metadata.ExtensionStability)
}

func create(_ context.Context, set extension.Settings, cfg component.Config) (extension.Extension, error) {
	return &queryExtension{settings: set, config: cfg.(*Config)}, nil
}
