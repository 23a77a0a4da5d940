package engine

import (
	"fmt"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"

	bpf "github.com/orb8/orb8/bpf/syscall"
)

// What a generation has room for by default, whatever the number of CPUs. A row is 2 KiB, 3 KiB with latency, and a cell 128
// bytes: 16 MiB for both generations, 28 MiB with latency, and 1 MiB for the calls under way of so many threads.
const (
	defaultRows     = 4096
	defaultOverflow = 16384
	defaultCells    = 16384
	defaultStarts   = 16384
)

// layout is how large the maps are.
type layout struct {
	modern, latency bool
	// rows and cells may be used, of a generation's rowLimit and cellLimit, which fill whole pages.
	rows, rowLimit, cells, cellLimit uint32
	rowsPerCPU                       uint32
	overflow, starts                 uint32
}

// fit fills in the sizes.
func (l *layout) fit(opts Options) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("cannot count the CPUs: %w", err)
	}
	or := func(n, otherwise uint32) uint32 {
		if n == 0 {
			return otherwise
		}
		return n
	}
	l.rows, l.overflow = or(opts.rows, defaultRows), or(opts.overflow, defaultOverflow)
	l.cells, l.starts = or(opts.cells, defaultCells), or(opts.starts, defaultStarts)
	l.rowsPerCPU = l.rows / uint32(cpus)
	l.rowLimit = wholePages(l.rows, unsafe.Sizeof(bpf.SyscallRowCells{})) // then its rows do, too
	l.cellLimit = wholePages(l.cells, unsafe.Sizeof(bpf.SyscallCell{}))
	return nil
}

// wholePages rounds a number of entries up, so that the next generation's begin with a page.
func wholePages(n uint32, size uintptr) uint32 {
	perPage := uint32(uintptr(os.Getpagesize()) / size)
	return (n + perPage - 1) / perPage * perPage
}

func (l *layout) apply(spec *ebpf.CollectionSpec) {
	size := func(n uint32, names ...string) {
		for _, name := range names {
			spec.Maps[name].MaxEntries = n
		}
	}
	size(2*l.rowLimit, "rows")
	size(l.overflow, "overflow_0", "overflow_1")
	if l.latency {
		size(2*l.rowLimit, "cells_of_rows")
		size(2*l.cellLimit, "cells")
		size(l.starts, "starts")
		size(l.overflow, "latency_0", "latency_1", "errors_0", "errors_1")
		return
	}
	size(1, "cells_of_rows", "cells", "starts", "latency_0", "latency_1", "errors_0", "errors_1")
	// Old kernels have no such storage, and would not load a program that merely names it.
	spec.Maps["crowded"].Type, spec.Maps["crowded"].Flags, spec.Maps["crowded"].MaxEntries = ebpf.Array, 0, 1
}
