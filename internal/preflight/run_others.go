//go:build !linux

package preflight

import (
	"context"
	"runtime"
)

// Run returns one check, which has failed: eBPF is a part of Linux.
func Run(context.Context, Options) []Check {
	return []Check{{
		Name:   "kernel",
		Status: Fail,
		Detail: "orb8 collects on Linux only, this is " + runtime.GOOS,
		Fix:    "run the collector on a Linux host, and point this command at it with --agent HOST:PORT",
	}}
}
