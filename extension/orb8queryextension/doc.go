// Package orb8queryextension serves orb8.v1.OrbitService from the store of an orb8_storage extension.
package orb8queryextension

//go:generate go tool -modfile=../../internal/tools/go.mod mdatagen metadata.yaml
