package ebpfsyscallreceiver

import (
	"github.com/orb8/orb8/internal/cgrouplogs"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/metadata"
)

// maxBatch is how many events, or entries of counts, go down the pipeline in one piece.
const maxBatch = 4096

// batch gathers log records.
type batch struct {
	cgrouplogs.Batch
	// entries are those of the maps in its counts.
	entries int
	// calls are those of its counts, and events its events: what is lost if the pipeline refuses it.
	calls, events uint64
}

func newBatch(version string) *batch {
	return &batch{Batch: cgrouplogs.New(metadata.ScopeName, version)}
}

func (b *batch) full() bool { return b.Records >= maxBatch || b.entries >= maxBatch }

func (b *batch) addCounts(c *syscalls.Counts, native syscalls.ABI) {
	c.PutTo(b.Next(c.Identity.CgroupID), native)
	for i := range c.Calls {
		b.calls += c.Calls[i].Calls
		b.entries++
		if c.Calls[i].Latency != nil {
			b.entries += syscalls.LatencyBuckets
		}
	}
}

func (b *batch) addEvent(e *syscalls.Event) {
	e.PutTo(b.Next(e.Identity.CgroupID))
	b.events++
}

func (b *batch) addStatus(s *syscalls.Status) { s.PutTo(b.Next(0)) }
