package embedded

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// anomaly returns one of an instant, with what was seen.
func anomaly(second int) syscalls.Anomaly {
	n := syscalls.Anomaly{
		Time: at(second), Node: "node-a", Workload: "image:shop/cart", Rule: "sensitive_syscall", Severity: syscalls.SeverityCritical,
		Identity: flow.Identity{CgroupID: 7, Cgroup: "/pod/c1", Pod: "cart-0", Process: "sh", PID: 4711},
		Call:     openat, Message: fmt.Sprintf("sh opened a file at %d", second),
		Evidence: &syscalls.Event{
			Time: at(second).Add(-time.Millisecond), Node: "node-a", Call: openat, TID: 4712, Sampling: 1,
			Identity:  flow.Identity{Process: "sh", PID: 4711},
			Arguments: []syscalls.Argument{{Name: "pathname", Value: "/etc/shadow\n"}, {Name: "flags", Value: "O_RDONLY"}},
		},
	}
	return n
}

func queryAnomalies(t *testing.T, s *Store, q storage.AnomalyQuery) storage.AnomalyResult {
	t.Helper()
	result, err := s.QueryAnomalies(t.Context(), q)
	require.NoError(t, err)
	return result
}

func TestAnomaliesComeBackAsTheyWere(t *testing.T) {
	s, c := newTestStore(MinBytes)
	c.set(100)
	rate := syscalls.Anomaly{
		Time: at(9), Node: "node-b", Workload: "unit:nginx.service", Rule: "rate", Severity: syscalls.SeverityInfo, Call: nobody,
		Message: "far more than ever", Calls: 1000, Rate: 100, Baseline: 0.25, Identity: flow.Identity{Unit: "nginx.service"},
	}
	bare := anomaly(11)
	bare.Evidence.Arguments = nil
	s.WriteAnomalies(context.Background(), []syscalls.Anomaly{rate, bare, anomaly(10)})
	result := queryAnomalies(t, s, storage.AnomalyQuery{})
	assert.Equal(t, []syscalls.Anomaly{bare, anomaly(10), rate}, result.Anomalies, "newest first")
	assert.Equal(t, 3, result.Matched)
	assert.EqualValues(t, 3, s.Status().Store.Records)
}

func TestAnomalyQueries(t *testing.T) {
	s, c := newTestStore(MinBytes)
	c.set(1000)
	for second := range 3 * anomalyChunkRows / 2 {
		s.WriteAnomalies(context.Background(), []syscalls.Anomaly{anomaly(second)})
	}
	late := anomaly(25)
	late.Message, late.Severity = "late", syscalls.SeverityInfo
	s.WriteAnomalies(context.Background(), []syscalls.Anomaly{late})
	s.WriteSyscallStatus(context.Background(), callStatus("node-a", 0, 50, 3))

	messages := func(q storage.AnomalyQuery) (messages []string, matched int) {
		result := queryAnomalies(t, s, q)
		for _, n := range result.Anomalies {
			messages = append(messages, n.Message)
		}
		return messages, result.Matched
	}
	got, matched := messages(storage.AnomalyQuery{Since: at(24), Until: at(26)})
	assert.Equal(t, []string{"late", "sh opened a file at 25", "sh opened a file at 24"}, got, "until is not in the range")
	assert.Equal(t, 3, matched)
	got, matched = messages(storage.AnomalyQuery{Limit: 1, Selection: storage.AnomalySelection{Deny: []storage.AnomalyFilter{{MinSeverity: syscalls.SeverityCritical}}}})
	assert.Equal(t, []string{"late"}, got)
	assert.Equal(t, 1, matched)
	got, matched = messages(storage.AnomalyQuery{Limit: 1})
	assert.Equal(t, []string{"sh opened a file at 191"}, got)
	assert.Equal(t, 193, matched)
	assert.Equal(t, storage.Loss{Calls: 3, Events: 6}, queryAnomalies(t, s, storage.AnomalyQuery{}).Lost)
}

func TestAnomaliesHaveAShareOfTheMemory(t *testing.T) {
	s, c := newTestStore(MinBytes)
	const written = 5000
	for i := range written {
		c.set(i / 10)
		s.WriteAnomalies(context.Background(), []syscalls.Anomaly{anomaly(i)})
		require.LessOrEqual(t, s.anomalies.bytes, uint64(MinBytes/anomalyShare))
	}
	result := queryAnomalies(t, s, storage.AnomalyQuery{})
	require.NotZero(t, result.Lost.EvictedRecords)
	assert.EqualValues(t, written, uint64(result.Matched)+result.Lost.EvictedRecords, "every anomaly is there or counted")
	assert.Zero(t, querySyscalls(t, s, storage.SyscallQuery{}).Lost)
}
