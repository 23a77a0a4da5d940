package testutil

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
	"testing"
)

// Ports that FreeAddresses takes: below those that Linux gives to clients (ip_local_port_range, 32768 and up unless changed) and
// below those of Kubernetes' node ports. A port that the kernel picked could be a client's before the program it is for listens on it.
const (
	firstPort = 20000
	lastPort  = 29999
)

// FreeAddress returns an address of this process's network namespace as FreeAddresses does.
func FreeAddress(t testing.TB) string {
	t.Helper()
	return FreeAddresses(t, net.Listen, 1)[0]
}

// FreeAddresses returns n addresses (host:port) of 127.0.0.1, no two alike, that nobody listens on, for programs that must be told
// where to listen. The function listens as net.Listen does, in the network namespace that the programs will run in.
func FreeAddresses(t testing.TB, listen func(network, address string) (net.Listener, error), n int) (addresses []string) {
	t.Helper()
	const attempts = 1000
	for range attempts {
		if len(addresses) == n {
			return addresses
		}
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		l, err := listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatalf("cannot look for a free port: %v", err)
		}
		defer l.Close() // after the last is found, so that they differ
		addresses = append(addresses, l.Addr().String())
	}
	t.Fatalf("found %d of %d free ports from %d to %d in %d attempts", len(addresses), n, firstPort, lastPort, attempts)
	return nil
}
