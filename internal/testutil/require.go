// Package testutil is what the tests of several packages share.
package testutil

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// EnvRequire names the environment variable that lists, separated by commas, what a machine is known to have. A test
// that misses something on that list fails instead of being skipped, so that CI cannot pass by testing nothing.
const EnvRequire = "ORB8_REQUIRE"

// Require skips the test with the reason why unless ok, or fails it if EnvRequire lists what.
func Require(t testing.TB, what string, ok bool, why string) {
	t.Helper()
	if ok {
		return
	}
	if slices.Contains(strings.Split(os.Getenv(EnvRequire), ","), what) {
		t.Fatalf("%s lists %s, but %s", EnvRequire, what, why)
	}
	t.Skip(why)
}
