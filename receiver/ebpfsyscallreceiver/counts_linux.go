package ebpfsyscallreceiver

import (
	"iter"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
)

// counts gathers what the kernel counted in one interval, cgroup by cgroup, as the engine hands it out.
type counts struct {
	all     []syscalls.Count
	cgroups []cgroupCounts
	calls   uint64
}

// cgroupCounts are the counts of one cgroup: those of all from the index on, up to the next cgroup's.
type cgroupCounts struct {
	id    uint64
	first int
}

func (c *counts) reset() {
	clear(c.all) // what they point to is in records now
	c.all, c.cgroups, c.calls = c.all[:0], c.cgroups[:0], 0
}

func (c *counts) add(cgroupID uint64, n *syscalls.Count) {
	if last := len(c.cgroups) - 1; last < 0 || c.cgroups[last].id != cgroupID {
		c.cgroups = append(c.cgroups, cgroupCounts{cgroupID, len(c.all)})
	}
	c.all = append(c.all, *n)
	c.calls += n.Calls
}

// of returns the counts of the i-th cgroup.
func (c *counts) of(i int) []syscalls.Count {
	end := len(c.all)
	if i+1 < len(c.cgroups) {
		end = c.cgroups[i+1].first
	}
	return c.all[c.cgroups[i].first:end]
}

// records makes a record of each cgroup's counts, which it borrows.
func (c *counts) records() iter.Seq[syscalls.Counts] {
	return func(yield func(syscalls.Counts) bool) {
		for i, g := range c.cgroups {
			if !yield(syscalls.Counts{Identity: flow.Identity{CgroupID: g.id}, Calls: c.of(i)}) {
				return
			}
		}
	}
}
