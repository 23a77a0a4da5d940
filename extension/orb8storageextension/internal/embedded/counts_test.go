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

var (
	read   = syscalls.Call{ABI: syscalls.X86_64, Number: 0}
	openat = syscalls.Call{ABI: syscalls.X86_64, Number: 257}
	open32 = syscalls.Call{ABI: syscalls.I386, Number: 5}
	nobody = syscalls.Call{ABI: syscalls.X86_64, Number: -7}
)

// counts returns what container n of node-a called in the interval of ten seconds that ends at an instant.
func counts(n, end int, calls ...syscalls.Count) syscalls.Counts {
	return syscalls.Counts{
		Start: at(end - 10), End: at(end), Node: "node-a", Calls: calls,
		Identity: flow.Identity{CgroupID: uint64(n), Cgroup: fmt.Sprintf("/pod/c%d", n), Container: fmt.Sprintf("c%d", n)},
	}
}

func querySyscalls(t *testing.T, s *Store, q storage.SyscallQuery) storage.SyscallResult {
	t.Helper()
	result, err := s.QuerySyscalls(t.Context(), q)
	require.NoError(t, err)
	return result
}

func callStatus(node string, started, time int, lost uint64) syscalls.Status {
	return syscalls.Status{Node: node, Started: at(started), Time: at(time), Interval: 10e9, LostCalls: lost, LostEvents: 2 * lost, Kernel: "6.18"}
}

func TestSyscallsAreSummed(t *testing.T) {
	s, c := newTestStore(MinBytes)
	c.set(100)
	slow := func(bucket int, calls uint64) *syscalls.Latency {
		l := &syscalls.Latency{Sum: time.Duration(calls) * time.Millisecond}
		l.Buckets[0], l.Buckets[bucket] = 1, calls
		return l
	}
	first := counts(1, 10, syscalls.Count{Call: read, Calls: 1 << 60, Errors: map[string]uint64{"EAGAIN": 2, "EINTR": 1}, Latency: slow(27, 300)},
		syscalls.Count{Call: openat, Calls: 5})
	second := counts(1, 20, syscalls.Count{Call: openat, Calls: 7}, syscalls.Count{Call: open32, Calls: 3},
		syscalls.Count{Call: read, Calls: 1, Errors: map[string]uint64{"EAGAIN": 4}, Latency: slow(3, 1)}, syscalls.Count{Call: nobody, Calls: 3})
	second.Identity.Pod, second.LostCalls = "cart-0", 9
	other := counts(2, 20, syscalls.Count{Call: read, Calls: 12})
	s.WriteSyscalls(context.Background(), []syscalls.Counts{second, first, other})

	result := querySyscalls(t, s, storage.SyscallQuery{})
	sum := &syscalls.Latency{Sum: 301 * time.Millisecond}
	sum.Buckets[0], sum.Buckets[27], sum.Buckets[3] = 2, 300, 1
	row := func(c *syscalls.Counts, start, end int, lost uint64, n syscalls.Count) storage.Syscall {
		return storage.Syscall{Start: at(start), End: at(end), Node: "node-a", Identity: c.Identity, Lost: lost, Count: n}
	}
	assert.Equal(t, []storage.Syscall{
		row(&second, 0, 20, 9, syscalls.Count{Call: read, Calls: 1<<60 + 1, Errors: map[string]uint64{"EAGAIN": 6, "EINTR": 1}, Latency: sum}),
		row(&other, 10, 20, 0, syscalls.Count{Call: read, Calls: 12}),
		row(&second, 0, 20, 9, syscalls.Count{Call: openat, Calls: 12}),
		row(&second, 10, 20, 9, syscalls.Count{Call: nobody, Calls: 3}),
		row(&second, 10, 20, 9, syscalls.Count{Call: open32, Calls: 3}),
	}, result.Syscalls, "most calls first, then by container and name; the newest identity; ABIs apart")
	assert.Equal(t, 5, result.Matched)
	assert.EqualValues(t, 3, s.Status().Store.Records)
	assert.Empty(t, query(t, s, storage.FlowQuery{}).Flows)
}

func TestSyscallQueries(t *testing.T) {
	s, c := newTestStore(MinBytes)
	c.set(100)
	for end := 10; end <= 50; end += 10 {
		s.WriteSyscalls(context.Background(), []syscalls.Counts{counts(1, end, syscalls.Count{Call: read, Calls: uint64(end)}), counts(2, end, syscalls.Count{Call: openat, Calls: 1})})
	}
	calls := func(q storage.SyscallQuery) (calls []uint64) {
		for _, row := range querySyscalls(t, s, q).Syscalls {
			calls = append(calls, row.Calls)
		}
		return calls
	}
	assert.Equal(t, []uint64{150, 5}, calls(storage.SyscallQuery{}))
	assert.Equal(t, []uint64{20 + 30, 2}, calls(storage.SyscallQuery{Since: at(10), Until: at(30)}), "an interval that ended at since, or starts at until, is out")
	assert.Equal(t, []uint64{20 + 30, 2}, calls(storage.SyscallQuery{Since: at(19), Until: at(21)}), "one of which an instant is in the range is in it")
	assert.Equal(t, []uint64{5}, calls(storage.SyscallQuery{Selection: storage.SyscallSelection{Allow: []storage.SyscallFilter{{Syscalls: []string{"openat"}}}}}))
	limited := querySyscalls(t, s, storage.SyscallQuery{Limit: 1})
	assert.Len(t, limited.Syscalls, 1)
	assert.Equal(t, 2, limited.Matched)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.QuerySyscalls(ended, storage.SyscallQuery{})
	assert.ErrorIs(t, err, context.Canceled)
}

// A call that began before the range may return in it.
func TestACallThatOnlyReturnedIsARow(t *testing.T) {
	s, c := newTestStore(MinBytes)
	c.set(100)
	late := &syscalls.Latency{Sum: time.Hour}
	late.Buckets[27] = 1
	s.WriteSyscalls(context.Background(), []syscalls.Counts{counts(1, 10, syscalls.Count{Call: read, Errors: map[string]uint64{"EINTR": 1}, Latency: late})})
	result := querySyscalls(t, s, storage.SyscallQuery{})
	require.Len(t, result.Syscalls, 1)
	assert.Equal(t, syscalls.Count{Call: read, Errors: map[string]uint64{"EINTR": 1}, Latency: late}, result.Syscalls[0].Count)
}

func TestCallersWithoutACgroupAreToldByIdentity(t *testing.T) {
	s, c := newTestStore(MinBytes)
	c.set(100)
	a, b := counts(0, 10, syscalls.Count{Call: read, Calls: 2}), counts(0, 10, syscalls.Count{Call: read, Calls: 3})
	b.Identity.Container = "other"
	elsewhere := counts(0, 10, syscalls.Count{Call: read, Calls: 4})
	elsewhere.Node = "node-b"
	s.WriteSyscalls(context.Background(), []syscalls.Counts{a, b, elsewhere, a})
	var calls []uint64
	for _, row := range querySyscalls(t, s, storage.SyscallQuery{}).Syscalls {
		calls = append(calls, row.Calls)
	}
	assert.Equal(t, []uint64{4, 4, 3}, calls)
}

func TestCountsHaveAShareOfTheMemory(t *testing.T) {
	s, c := newTestStore(MinBytes)
	var written uint64
	for i := range 40 {
		c.set(10 * i)
		batch := fleet(200, 60, 10*i)
		s.WriteSyscalls(context.Background(), batch)
		written += uint64(len(batch))
		s.WriteFlows(context.Background(), many(100, 10*i))
		require.LessOrEqual(t, s.counts.bytes, uint64(MinBytes/countsShare), "after %d intervals", i+1)
	}
	result := querySyscalls(t, s, storage.SyscallQuery{})
	require.NotZero(t, result.Lost.EvictedRecords)
	assert.Equal(t, written, s.counts.records+result.Lost.EvictedRecords, "every record is there or counted")
	assert.True(t, result.Oldest.After(at(0)))
	assert.Zero(t, query(t, s, storage.FlowQuery{}).Lost.EvictedRecords, "flows make no room for counts")
	assert.Equal(t, result.Lost.EvictedRecords, s.Status().Store.EvictedRecords)
	for _, row := range result.Syscalls {
		require.Less(t, row.Calls, uint64(40*200))
		require.Zero(t, row.Calls%200, "whole counts")
	}
}

func TestCountsExpire(t *testing.T) {
	s, c := newTestStore(64 << 20)
	s.WriteSyscalls(context.Background(), []syscalls.Counts{counts(1, 0, syscalls.Count{Call: read, Calls: 1})})
	c.set(hour + 1)
	assert.Empty(t, querySyscalls(t, s, storage.SyscallQuery{}).Syscalls)
	s.WriteSyscallStatus(context.Background(), callStatus("node-a", 0, hour, 0))
	assert.Zero(t, s.Status().Store.Records)
	assert.Zero(t, s.Status().Store.Bytes)
}

func TestOneReceiverAlone(t *testing.T) {
	s, c := newTestStore(MinBytes)
	c.set(10)
	flows, calls := status("flows", 0, 10, 3), callStatus("calls", 0, 10, 5)
	s.WriteStatus(context.Background(), flows)
	s.WriteSyscallStatus(context.Background(), calls)
	assert.Equal(t, []storage.NodeStatus{
		{Node: "calls", Kernel: "6.18", Started: at(0), LastSeen: at(10), Syscalls: &calls},
		{Node: "flows", Started: at(0), LastSeen: at(10), Network: &flows},
	}, s.Status().Nodes)

	c.set(100)
	assert.Equal(t, []string{"flows"}, query(t, s, storage.FlowQuery{}).MissingNodes)
	assert.Equal(t, storage.Loss{Packets: 3, Bytes: 300, Events: 6}, query(t, s, storage.FlowQuery{}).Lost)
	result := querySyscalls(t, s, storage.SyscallQuery{})
	assert.Equal(t, []string{"calls"}, result.MissingNodes)
	assert.Equal(t, storage.Loss{Calls: 5, Events: 10}, result.Lost)
	assert.Zero(t, querySyscalls(t, s, storage.SyscallQuery{Since: at(50)}).Lost)
}

func TestAReceiverThatEndedIsForgotten(t *testing.T) {
	s, c := newTestStore(MinBytes)
	s.WriteStatus(context.Background(), status("node-a", 0, 0, 0))
	for second := 0; second <= hour+10; second += 10 {
		c.set(second)
		s.WriteSyscallStatus(context.Background(), callStatus("node-a", 0, second, 0))
	}
	nodes := s.Status().Nodes
	require.Len(t, nodes, 1)
	assert.False(t, nodes[0].Missing)
	assert.Nil(t, nodes[0].Network)
	assert.NotNil(t, nodes[0].Syscalls)
	assert.Empty(t, query(t, s, storage.FlowQuery{}).MissingNodes)
}

func TestAQueryMayRunWhileCountsAreWritten(t *testing.T) {
	s, _ := newTestStore(MinBytes)
	batch := fleet(20, 10, 10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 500 {
			s.WriteSyscalls(context.Background(), batch)
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		result, err := s.QuerySyscalls(context.Background(), storage.SyscallQuery{})
		require.NoError(t, err)
		for _, row := range result.Syscalls {
			require.Zero(t, row.Calls%uint64(batch[0].Calls[0].Calls), "whole counts")
		}
	}
}

// fleet returns an interval of so many containers that make so many calls each.
func fleet(containers, calls, end int) []syscalls.Counts {
	all := make([]syscalls.Counts, containers)
	for i := range all {
		all[i] = counts(i+1, end)
		all[i].Identity.ContainerID = fmt.Sprintf("%064d", i)
		all[i].Identity.Pod, all[i].Identity.Namespace = fmt.Sprintf("web-%d", i), "shop"
		for n := range calls {
			all[i].Calls = append(all[i].Calls, syscalls.Count{Call: syscalls.Call{ABI: syscalls.X86_64, Number: int32(n * 5)}, Calls: 200})
		}
	}
	return all
}

func BenchmarkWriteSyscalls(b *testing.B) {
	s, c := newTestStore(64 << 20)
	c.set(0)
	batch := fleet(200, 60, 0)
	b.ReportAllocs()
	for b.Loop() {
		s.WriteSyscalls(context.Background(), batch)
	}
	n := float64(b.N * len(batch) * 60)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/n, "ns/count")
	b.ReportMetric(float64(s.counts.bytes)/float64(s.counts.records*60), "bytes/count")
}

// Ten minutes of 200 containers that make 60 calls each, told every second.
func BenchmarkQuerySyscalls10m(b *testing.B) {
	const seconds = 600
	s, c := newTestStore(512 << 20)
	for second := range seconds {
		c.set(second)
		s.WriteSyscalls(context.Background(), fleet(200, 60, second))
	}
	b.ReportAllocs()
	for b.Loop() {
		result, err := s.QuerySyscalls(b.Context(), storage.SyscallQuery{Limit: 100})
		if err != nil || result.Matched != 200*60 || result.Syscalls[0].Calls != 200*seconds {
			b.Fatal(result.Matched, err)
		}
	}
	b.ReportMetric(float64(s.counts.bytes)/1e6, "MB")
}
