package ebpfsyscallreceiver

import (
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/metadata"
)

// maxBatch is how many events, or entries of counts, go down the pipeline in one piece.
const maxBatch = 4096

// batch gathers log records, those of one cgroup under one resource.
type batch struct {
	version string
	logs    plog.Logs
	scopes  map[uint64]plog.ScopeLogs
	records int
	// entries are those of the maps in its counts.
	entries int
	// calls are those of its counts, and events its events: what is lost if the pipeline refuses it.
	calls, events uint64
}

func newBatch(version string) *batch {
	return &batch{version: version, logs: plog.NewLogs(), scopes: map[uint64]plog.ScopeLogs{}}
}

func (b *batch) full() bool { return b.records >= maxBatch || b.entries >= maxBatch }

func (b *batch) addCounts(c *syscalls.Counts, native syscalls.ABI) {
	c.PutTo(b.next(c.Identity.CgroupID), native)
	for i := range c.Calls {
		b.calls += c.Calls[i].Calls
		b.entries++
		if c.Calls[i].Latency != nil {
			b.entries += syscalls.LatencyBuckets
		}
	}
}

func (b *batch) addEvent(e *syscalls.Event) {
	e.PutTo(b.next(e.Identity.CgroupID))
	b.events++
}

func (b *batch) addStatus(s *syscalls.Status) { s.PutTo(b.next(0)) }

// next appends an empty log record under the resource of a cgroup; 0 is the node itself.
func (b *batch) next(cgroupID uint64) plog.LogRecord {
	scope, ok := b.scopes[cgroupID]
	if !ok {
		rl := b.logs.ResourceLogs().AppendEmpty()
		if cgroupID != 0 {
			rl.Resource().Attributes().PutInt(flow.AttrCgroupID, int64(cgroupID))
		}
		scope = rl.ScopeLogs().AppendEmpty()
		scope.Scope().SetName(metadata.ScopeName)
		scope.Scope().SetVersion(b.version)
		b.scopes[cgroupID] = scope
	}
	b.records++
	return scope.LogRecords().AppendEmpty()
}
