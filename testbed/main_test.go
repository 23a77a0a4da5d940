//go:build linux

// Package testbed tests the built programs from the outside: the real collector, the real CLI, the real kernel.
// `make test` builds them first.
package testbed

import (
	"os"
	"testing"

	"github.com/orb8/orb8/testbed/internal/container"
	"github.com/orb8/orb8/testbed/internal/nameserver"
	"github.com/orb8/orb8/testbed/internal/traffic"
	"github.com/orb8/orb8/testbed/internal/workload"
)

func TestMain(m *testing.M) {
	traffic.RunIfChild()
	workload.RunIfChild()
	nameserver.RunIfChild()
	container.RunIfHook()
	os.Exit(m.Run())
}
