package engine

import (
	"encoding/binary"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/bpf/network"
)

// The kernel reserves room for a short payload or a long one: the record ends before the Go type does.
func TestPayloadOf(t *testing.T) {
	const payloadAt = int(unsafe.Offsetof(network.NetworkDnsEvent{}.Payload))
	record := func(room int, length, captured uint32) []byte {
		b := make([]byte, payloadAt+room)
		binary.NativeEndian.PutUint32(b[unsafe.Offsetof(network.NetworkDnsEvent{}.Length):], length)
		binary.NativeEndian.PutUint32(b[unsafe.Offsetof(network.NetworkDnsEvent{}.Captured):], captured)
		copy(b[payloadAt:], "payload")
		return b
	}
	got, err := payloadOf(record(192, 5000, 7))
	require.NoError(t, err)
	assert.Equal(t, Payload{Length: 5000, Captured: []byte("payload")}, got)

	for name, b := range map[string][]byte{
		"more than there is": record(192, 5000, 193),
		"far more":           record(192, 5000, 1<<32-1),
		"no room":            record(0, 1, 1),
		"half a record":      record(0, 0, 0)[:payloadAt-1],
	} {
		_, err := payloadOf(b)
		assert.ErrorContains(t, err, "DNS record", name)
	}
}
