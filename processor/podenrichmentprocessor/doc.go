//go:generate go tool -modfile=../../internal/tools/go.mod mdatagen metadata.yaml

// Package podenrichmentprocessor tells which container, pod, workload or systemd unit a cgroup id or an IP address belongs to.
package podenrichmentprocessor
