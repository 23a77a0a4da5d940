//go:generate go tool -modfile=../../internal/tools/go.mod mdatagen metadata.yaml

// Package ebpfsyscallreceiver counts every system call of this host in the kernel, by cgroup, and reports counts, events and
// metrics.
package ebpfsyscallreceiver
