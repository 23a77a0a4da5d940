// Package orb8storeexporter writes flow records, events and node status to the store of an orb8_storage extension.
package orb8storeexporter

//go:generate go tool -modfile=../../internal/tools/go.mod mdatagen metadata.yaml
