package testutil

import (
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFreeAddresses(t *testing.T) {
	var tried int
	addresses := FreeAddresses(t, func(network, address string) (net.Listener, error) {
		if tried++; tried <= 3 {
			return nil, &net.OpError{Op: "listen", Err: syscall.EADDRINUSE}
		}
		return net.Listen(network, address)
	}, 20)
	require.Len(t, addresses, 20)
	assert.GreaterOrEqual(t, tried, 23, "another port is tried for each that is taken")
	for _, address := range addresses {
		l, err := net.Listen("tcp4", address)
		require.NoError(t, err, "they are free again")
		defer l.Close()
		port := netip.MustParseAddrPort(address).Port()
		assert.True(t, firstPort <= port && port <= lastPort, address)
	}
	slices.Sort(addresses)
	assert.Len(t, slices.Compact(addresses), 20)
}
