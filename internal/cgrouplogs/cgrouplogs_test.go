package cgrouplogs

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
)

func TestACgroupHasOneResource(t *testing.T) {
	b := New("orb8/test", "1.2.3")
	for _, id := range []uint64{7, 0, 7, 1 << 63} {
		b.Next(id).SetEventName("test")
	}
	assert.Equal(t, 4, b.Records)
	assert.Equal(t, 4, b.Logs.LogRecordCount())
	resources := b.Logs.ResourceLogs()
	require.Equal(t, 3, resources.Len())
	var ids []any
	for _, rl := range resources.All() {
		ids = append(ids, rl.Resource().Attributes().AsRaw()[flow.AttrCgroupID])
		require.Equal(t, 1, rl.ScopeLogs().Len())
		scope := rl.ScopeLogs().At(0).Scope()
		assert.Equal(t, "orb8/test", scope.Name())
		assert.Equal(t, "1.2.3", scope.Version())
	}
	assert.Equal(t, []any{int64(7), nil, int64(-1 << 63)}, ids, "the node itself has no cgroup")
	assert.Equal(t, 2, resources.At(0).ScopeLogs().At(0).LogRecords().Len())
}
