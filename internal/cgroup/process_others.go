//go:build !linux

package cgroup

// Processes is what it is on Linux.
type Processes struct{}

// NewProcesses fails.
func NewProcesses(string) (*Processes, error) { return nil, errNotLinux }

// Find fails.
func (*Processes) Find(uint32) (uint64, string, error) { return 0, "", errNotLinux }
