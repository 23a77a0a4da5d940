//go:generate go tool -modfile=../../internal/tools/go.mod mdatagen metadata.yaml

// Package podenrichmentprocessor tells which container, pod or systemd unit of this node a cgroup id belongs to.
package podenrichmentprocessor
