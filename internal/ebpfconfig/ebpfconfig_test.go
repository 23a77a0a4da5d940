package ebpfconfig

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestCheckRingBufferSize(t *testing.T) {
	for _, n := range []uint32{4 << 10, 1 << 20, 32 << 20} {
		assert.NoError(t, CheckRingBufferSize(n))
	}
	for _, n := range []uint32{0, 2 << 10, 4<<10 + 1, 3 << 20, 64 << 20, 1<<32 - 1} {
		assert.ErrorContains(t, CheckRingBufferSize(n), "a power of two from 4096 to 33554432 (bytes)")
	}
}

func TestCheckInterval(t *testing.T) {
	assert.NoError(t, CheckInterval(100*time.Millisecond))
	for _, d := range []time.Duration{-time.Second, 0, 99 * time.Millisecond} {
		assert.ErrorContains(t, CheckInterval(d), "use 100ms or more")
	}
}
