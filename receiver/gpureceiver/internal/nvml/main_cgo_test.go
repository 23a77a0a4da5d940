//go:build linux && cgo

package nvml

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/orb8/orb8/internal/fakenvml"
)

// fake is the library that this process loads; empty where it cannot be built.
var fake string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if _, err := exec.LookPath("gcc"); err != nil {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "fakenvml")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	var defines []string
	if os.Getenv(oldDriver) != "" {
		defines = append(defines, "OLD_DRIVER")
	}
	if fake, err = fakenvml.Build(dir, defines...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
