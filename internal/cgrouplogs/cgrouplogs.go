// Package cgrouplogs gathers log records of cgroups.
package cgrouplogs

import (
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/flow"
)

// Batch gathers log records, those of one cgroup under one resource.
type Batch struct {
	Logs plog.Logs
	// Records is how many there are.
	Records int

	scope, version string
	scopes         map[uint64]plog.ScopeLogs
}

// New makes an empty batch of records that a scope, in a version, writes.
func New(scope, version string) Batch {
	return Batch{Logs: plog.NewLogs(), scope: scope, version: version, scopes: map[uint64]plog.ScopeLogs{}}
}

// Next appends an empty log record under the resource of a cgroup; 0 is the node itself.
func (b *Batch) Next(cgroupID uint64) plog.LogRecord {
	scope, ok := b.scopes[cgroupID]
	if !ok {
		rl := b.Logs.ResourceLogs().AppendEmpty()
		if cgroupID != 0 {
			rl.Resource().Attributes().PutInt(flow.AttrCgroupID, int64(cgroupID))
		}
		scope = rl.ScopeLogs().AppendEmpty()
		scope.Scope().SetName(b.scope)
		scope.Scope().SetVersion(b.version)
		b.scopes[cgroupID] = scope
	}
	b.Records++
	return scope.LogRecords().AppendEmpty()
}
