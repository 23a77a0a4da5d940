//go:generate go tool -modfile=../../internal/tools/go.mod mdatagen metadata.yaml

// Package ebpfnetworkreceiver counts every packet of every socket or interface of this host in the kernel, per flow,
// and reports flow records, events and metrics.
package ebpfnetworkreceiver
