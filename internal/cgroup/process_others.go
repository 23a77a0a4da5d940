//go:build !linux

package cgroup

// Processes is what it is on Linux.
type Processes struct{}

// NewProcesses fails.
func NewProcesses(string) (*Processes, error) { return nil, errNotLinux }

// ID fails.
func (*Processes) ID(uint32) (uint64, error) { return 0, errNotLinux }
