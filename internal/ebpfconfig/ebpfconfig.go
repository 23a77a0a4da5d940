// Package ebpfconfig checks the keys that the receivers which load BPF programs have in common.
package ebpfconfig

import (
	"fmt"
	"time"
)

const (
	minRingBufferSize = 4 << 10
	maxRingBufferSize = 32 << 20
	// MinInterval is the shortest time between two reports.
	MinInterval = 100 * time.Millisecond
)

// CheckRingBufferSize checks ring_buffer_size: the kernel wants a power of two.
func CheckRingBufferSize(bytes uint32) error {
	if bytes < minRingBufferSize || bytes > maxRingBufferSize || bytes&(bytes-1) != 0 {
		return fmt.Errorf("ring_buffer_size: %d is not allowed; use a power of two from %d to %d (bytes)",
			bytes, minRingBufferSize, maxRingBufferSize)
	}
	return nil
}

// CheckInterval checks interval.
func CheckInterval(d time.Duration) error {
	if d < MinInterval {
		return fmt.Errorf("interval: %s is too short; use %s or more", d, MinInterval)
	}
	return nil
}
