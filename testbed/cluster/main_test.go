//go:build linux

package cluster

import (
	"fmt"
	"os"
	"testing"
)

// ownerVariable makes the test binary the owner of a cluster, until it is killed.
const ownerVariable = "ORB8_TESTBED_CLUSTER_OWNER"

func TestMain(m *testing.M) {
	if os.Getenv(ownerVariable) != "" {
		os.Args = append(os.Args[:1], "-test.run=^TestOwner$", "-test.timeout=5m")
	}
	os.Exit(m.Run())
}

// TestOwner is the part of TestKilledOwner that is killed.
func TestOwner(t *testing.T) {
	if os.Getenv(ownerVariable) == "" {
		t.Skip("only for TestKilledOwner")
	}
	fmt.Println(Start(t).name)
	select {}
}
