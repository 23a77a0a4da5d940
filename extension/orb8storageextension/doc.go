// Package orb8storageextension keeps what the agents report: the orb8_store exporter writes to it and the orb8_query
// extension reads from it.
package orb8storageextension

//go:generate go tool -modfile=../../internal/tools/go.mod mdatagen metadata.yaml
