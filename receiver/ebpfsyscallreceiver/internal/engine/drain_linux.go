package engine

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	bpf "github.com/orb8/orb8/bpf/syscall"
	"github.com/orb8/orb8/internal/ebpfmap"
	"github.com/orb8/orb8/internal/syscalls"
)

// generation is one of the two sets of what programs write to and user space then reads.
type generation struct {
	first                     uint32 // 0 or 1: which half of the arrays
	rowsUsed, cellsUsed, full *ebpf.Variable
	calls, cells, errnos      *ebpf.Map // tables of what has no row or cell
}

func (e *Engine) generation(n uint32) generation {
	if n == 0 {
		return generation{0, e.vars.RowsUsed0, e.vars.CellsUsed0, e.vars.Overflowed0, e.maps.Overflow0, e.maps.Latency0, e.maps.Errors0}
	}
	return generation{1, e.vars.RowsUsed1, e.vars.CellsUsed1, e.vars.Overflowed1, e.maps.Overflow1, e.maps.Latency1, e.maps.Errors1}
}

// Drain begins a new interval and hands what was counted in the one that ends to yield: one Count a cgroup and call, those of a
// cgroup one after the other, by ABI and number. The Count is valid until yield returns; what it points to is yield's to keep.
// Drain returns what was lost since New. After an error the counts are still there for the next Drain.
func (e *Engine) Drain(yield func(cgroupID uint64, n *syscalls.Count)) (Loss, error) {
	old := e.generation(e.epoch & 1)
	if err := e.vars.Epoch.Set(e.epoch + 1); err != nil {
		return Loss{}, fmt.Errorf("cannot begin a new interval: %w", err)
	}
	e.epoch++
	if err := e.grace.Wait(); err != nil {
		return Loss{}, err
	}
	loss, err := e.Losses()
	if err != nil {
		return loss, err
	}
	if err := e.readTables(old); err != nil {
		return loss, err
	}
	return loss, e.readRows(old, yield)
}

// readTables takes what has no row and no cell out of the kernel.
func (e *Engine) readTables(g generation) error {
	var full uint32
	if err := g.full.Get(&full); err != nil {
		return fmt.Errorf("cannot read whether the tables are empty: %w", err)
	}
	if full == 0 {
		return nil
	}
	s := &e.sums
	if _, err := s.calls.Drain(g.calls, func(k *bpf.SyscallCallKey, n *uint64) {
		s.others(k.Key).at(k.Number).calls += *n
	}); err != nil {
		return err
	}
	if e.layout.latency {
		if _, err := s.cells.Drain(g.cells, func(k *bpf.SyscallCallKey, c *bpf.SyscallCell) {
			s.others(k.Key).at(k.Number).addCell(c)
		}); err != nil {
			return err
		}
		if _, err := s.errnos.Drain(g.errnos, func(k *bpf.SyscallErrorKey, n *uint64) {
			s.others(k.Key).at(k.Number).addErrors(k.Errno, *n)
		}); err != nil {
			return err
		}
	}
	return g.full.Set(uint32(0))
}

// readRows sums and clears the rows of a generation, and their cells.
func (e *Engine) readRows(g generation, yield func(uint64, *syscalls.Count)) error {
	l := &e.layout
	rows, err := used(g.rowsUsed, l.rows)
	if err != nil {
		return err
	}
	if !l.modern {
		rows = l.rows // they are dealt out to the CPUs
	}
	if !l.latency {
		if err := ebpfmap.Window(e.maps.Rows, g.first*l.rowLimit, rows, func(rows []bpf.SyscallRow) {
			e.sums.yield(rows, nil, nil, yield)
			clear(rows)
		}); err != nil {
			return err
		}
		return g.rowsUsed.Set(uint32(0))
	}
	cells, err := used(g.cellsUsed, l.cells)
	if err != nil {
		return err
	}
	var inner [2]error
	outer := ebpfmap.Window(e.maps.Cells, g.first*l.cellLimit, cells, func(cells []bpf.SyscallCell) {
		inner[0] = ebpfmap.Window(e.maps.CellsOfRows, g.first*l.rowLimit, rows, func(ofRows []bpf.SyscallRowCells) {
			inner[1] = ebpfmap.Window(e.maps.Rows, g.first*l.rowLimit, rows, func(rows []bpf.SyscallRow) {
				e.sums.yield(rows, ofRows, cells, yield)
				clear(rows)
				clear(ofRows)
				clear(cells)
			})
		})
	})
	if err := errors.Join(outer, inner[0], inner[1]); err != nil {
		return err
	}
	return errors.Join(g.rowsUsed.Set(uint32(0)), g.cellsUsed.Set(uint32(1)))
}

// used reads how many entries were taken, of a limit that does not keep programs from asking for more.
func used(v *ebpf.Variable, limit uint32) (uint32, error) {
	var n uint32
	if err := v.Get(&n); err != nil {
		return 0, fmt.Errorf("cannot read how many entries are in use: %w", err)
	}
	return min(n, limit), nil
}
