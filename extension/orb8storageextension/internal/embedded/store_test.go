package embedded

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

const hour = 3600

func TestRetention(t *testing.T) {
	s, clock := newTestStore(64 << 20)
	s.WriteFlows(context.Background(), []flow.Record{record(0, 0)})
	assert.Equal(t, at(0), query(t, s, storage.FlowQuery{}).Oldest, "a new store covers the time since its start")

	clock.set(hour)
	assert.Len(t, query(t, s, storage.FlowQuery{}).Flows, 1, "as old as the retention")
	clock.set(hour + 1)
	result := query(t, s, storage.FlowQuery{Since: at(-10)})
	assert.Empty(t, result.Flows, "older than the retention, though nothing was written since")
	assert.Equal(t, at(1), result.Oldest)
	assert.Zero(t, result.Lost, "what retention drops is not lost")

	s.WriteStatus(context.Background(), status("node-a", 0, hour+1, 0))
	got := s.Status().Store
	assert.Zero(t, got.Records)
	assert.Zero(t, got.Bytes)
	assert.Zero(t, got.EvictedRecords)
}

func TestRetentionDropsWholeChunks(t *testing.T) {
	s, clock := newTestStore(64 << 20)
	s.WriteFlows(context.Background(), many(chunkRows, 0))
	clock.set(hour / 2)
	s.WriteFlows(context.Background(), many(chunkRows, hour/2))
	require.EqualValues(t, 2*chunkRows, s.Status().Store.Records)
	twoChunks := s.Status().Store.Bytes

	clock.set(hour + 1)
	s.WriteFlows(context.Background(), []flow.Record{record(hour, hour)})
	got := s.Status().Store
	assert.EqualValues(t, chunkRows+1, got.Records)
	assert.LessOrEqual(t, got.Bytes, twoChunks, "the memory of a chunk is given back")
	assert.Zero(t, got.EvictedRecords)
	assert.Equal(t, chunkRows+1, query(t, s, storage.FlowQuery{}).Matched)
}

func TestEvictionByBytes(t *testing.T) {
	s, clock := newTestStore(MinBytes)
	const written = 20
	for i := range written {
		clock.set(10 * i)
		s.WriteFlows(context.Background(), many(chunkRows, 10*i))
		require.LessOrEqual(t, s.Status().Store.Bytes, uint64(MinBytes), "after %d chunks", i+1)
	}
	got := s.Status().Store
	assert.Equal(t, "embedded", got.Backend)
	assert.EqualValues(t, MinBytes, got.MaxBytes)
	assert.EqualValues(t, written*chunkRows, got.Records+got.EvictedRecords, "every record is there or counted")
	require.NotZero(t, got.EvictedRecords)
	require.Zero(t, got.EvictedRecords%chunkRows)

	evictedChunks := int(got.EvictedRecords / chunkRows)
	newestEvicted := 10 * (evictedChunks - 1)
	assert.Equal(t, at(newestEvicted), got.Oldest)
	all := query(t, s, storage.FlowQuery{})
	assert.Equal(t, got.EvictedRecords, all.Lost.EvictedRecords)
	assert.Equal(t, got.Oldest, all.Oldest)
	one := query(t, s, storage.FlowQuery{Since: at(0), Until: at(1)})
	assert.EqualValues(t, chunkRows, one.Lost.EvictedRecords, "only the chunk whose time is in the range")
	kept := query(t, s, storage.FlowQuery{Since: at(newestEvicted + 1)})
	assert.Zero(t, kept.Lost, "nothing of this range is missing")
	assert.Equal(t, chunkRows, kept.Matched)

	clock.set(10*written + hour)
	s.WriteFlows(context.Background(), []flow.Record{record(10*written, 10*written)})
	assert.Zero(t, query(t, s, storage.FlowQuery{}).Lost, "they would have expired by now")
	assert.Equal(t, got.EvictedRecords, s.Status().Store.EvictedRecords, "the total since the start stays")
}

func TestSkewedClockDoesNotMoveTheEdge(t *testing.T) {
	s, clock := newTestStore(MinBytes)
	for i := range 20 {
		clock.set(i)
		s.WriteFlows(context.Background(), many(chunkRows, 100*hour))
	}
	require.NotZero(t, s.Status().Store.EvictedRecords)
	assert.LessOrEqual(t, s.Status().Store.Oldest, at(20))
}

func TestBytesGrowWithWhatIsNew(t *testing.T) {
	s, _ := newTestStore(MinBytes)
	s.WriteFlows(context.Background(), []flow.Record{record(0, 0)})
	first := s.Status().Store.Bytes
	s.WriteFlows(context.Background(), []flow.Record{record(0, 0)})
	assert.Equal(t, first, s.Status().Store.Bytes, "a known identity takes nothing")
	s.WriteFlows(context.Background(), []flow.Record{with(record(0, 0), func(r *flow.Record) { r.Source.Identity.PID++ })})
	assert.Equal(t, first+identityBytes, s.Status().Store.Bytes, "its strings are known")
	s.WriteFlows(context.Background(), []flow.Record{with(record(0, 0), func(r *flow.Record) { r.Interfaces = []string{"eth0"} })})
	assert.Equal(t, first+identityBytes+stringBytes+4, s.Status().Store.Bytes)
}

func TestStoreKeepsNoMessageAlive(t *testing.T) {
	s, _ := newTestStore(MinBytes)
	message := strings.Repeat("x", 1000) + "eth0"
	s.WriteFlows(context.Background(), []flow.Record{with(record(0, 0), func(r *flow.Record) { r.Interfaces = []string{message[1000:]} })})
	got := query(t, s, storage.FlowQuery{}).Flows[0].Interfaces[0]
	assert.Equal(t, "eth0", got)
	assert.NotSame(t, unsafe.StringData(message[1000:]), unsafe.StringData(got))
}

func TestWriterMayReuseItsSlice(t *testing.T) {
	s, _ := newTestStore(MinBytes)
	records := []flow.Record{record(0, 0)}
	s.WriteFlows(context.Background(), records)
	records[0] = flow.Record{}
	assert.Equal(t, []flow.Record{record(0, 0)}, rows(query(t, s, storage.FlowQuery{})))
}

func TestNodeStatus(t *testing.T) {
	s, clock := newTestStore(MinBytes)
	clock.set(11)
	a, b := status("node-a", 0, 10, 1), status("node-b", 0, 10, 0)
	s.WriteStatus(context.Background(), b)
	s.WriteStatus(context.Background(), a)
	clock.set(21)
	newer := status("node-a", 0, 20, 2)
	s.WriteStatus(context.Background(), newer)
	s.WriteStatus(context.Background(), a) // arrives late, and is ignored
	assert.Equal(t, []storage.NodeStatus{
		{Node: "node-a", Started: at(0), LastSeen: at(21), Network: &newer},
		{Node: "node-b", Started: at(0), LastSeen: at(11), Network: &b},
	}, s.Status().Nodes)
}

func TestMissingNodes(t *testing.T) {
	s, clock := newTestStore(MinBytes)
	clock.set(1000)
	s.WriteStatus(context.Background(), status("gone", 0, 1000, 0))
	clock.set(1100)
	s.WriteStatus(context.Background(), status("here", 0, 1100, 0))
	missing := func() []string {
		var names []string
		for _, n := range s.Status().Nodes {
			if n.Missing {
				names = append(names, n.Node)
			}
		}
		return names
	}

	clock.set(1130)
	assert.Equal(t, []string{"gone"}, missing())
	assert.Equal(t, []string{"gone"}, query(t, s, storage.FlowQuery{}).MissingNodes)
	assert.Equal(t, []string{"gone"}, query(t, s, storage.FlowQuery{Until: at(9999)}).MissingNodes, "the future does not count")
	assert.Empty(t, query(t, s, storage.FlowQuery{Until: at(1030)}).MissingNodes, "at that time it was there")
	clock.set(1131)
	assert.Equal(t, []string{"gone", "here"}, missing(), "three intervals are over")

	clock.set(1001 + hour)
	assert.Equal(t, []string{"here"}, query(t, s, storage.FlowQuery{}).MissingNodes, "after the retention a node is forgotten")
	s.WriteStatus(context.Background(), status("here", 0, 1001+hour, 0))
	assert.Len(t, s.Status().Nodes, 1)
}

func TestReadersSeeWholeWritesWhileWritersGoOn(t *testing.T) {
	s, clock := newTestStore(MinBytes)
	clock.set(10)
	const writers, rounds, batch = 3, 40, 512
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			records := many(batch, 5)
			for i := range records {
				records[i].Node = fmt.Sprint(w)
			}
			for range rounds {
				s.WriteFlows(context.Background(), records)
				s.WriteStatus(context.Background(), status(fmt.Sprint(w), 0, 5, 0))
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for range rounds {
				result, err := s.QueryFlows(t.Context(), storage.FlowQuery{})
				if !assert.NoError(t, err) {
					return
				}
				var records uint64
				for _, f := range result.Flows {
					records += f.Packets / 10
				}
				assert.Zero(t, records%batch, "a reader saw %d records: not whole batches, of which a chunk holds eight", records)
				s.Status()
			}
		})
	}
	wg.Wait()
	got := s.Status().Store
	assert.EqualValues(t, writers*rounds*batch, got.Records+got.EvictedRecords)
}

func BenchmarkAppend(b *testing.B) {
	for _, bench := range []struct {
		name    string
		records []flow.Record
	}{
		{"containers=64", identified(8192, 64)},
		{"processes=8192", identified(8192, 8192)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := New(Settings{Retention: time.Hour, MaxBytes: 64 << 20, Now: time.Now})
			b.ReportAllocs()
			for b.Loop() {
				for batch := range slices.Chunk(bench.records, 512) {
					s.WriteFlows(context.Background(), batch)
				}
			}
			n := float64(b.N * len(bench.records))
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/n, "ns/record")
			got := s.Status().Store
			b.ReportMetric(float64(got.Bytes)/float64(got.Records), "bytes/record")
		})
	}
}

func BenchmarkQuery200kRecords(b *testing.B) {
	const n = 200_000
	selection := storage.Selection{Allow: []storage.Filter{{Containers: []string{"container-7"}}}}
	for _, bench := range []struct {
		name      string
		flows     int
		selection storage.Selection
		limit     int
	}{
		{"flows=200000,limit=100", n, storage.Selection{}, 100},
		{"flows=2000,limit=100", n / 100, storage.Selection{}, 100},
		{"flows=200000,one container", n, selection, 100},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := New(Settings{Retention: time.Hour, MaxBytes: 256 << 20, Now: func() time.Time { return at(10) }})
			records := identified(bench.flows, 64)
			for range n / bench.flows {
				s.WriteFlows(context.Background(), records)
			}
			b.ReportAllocs()
			for b.Loop() {
				result, err := s.QueryFlows(b.Context(), storage.FlowQuery{Selection: bench.selection, Limit: bench.limit})
				if err != nil || len(result.Flows) != bench.limit {
					b.Fatal(len(result.Flows), err)
				}
			}
		})
	}
}

// identified returns n records of n flows by so many identities.
func identified(n, identities int) []flow.Record {
	records := many(n, 5)
	for i := range records {
		id := &records[i].Source.Identity
		k := i % identities
		*id = flow.Identity{
			CgroupID:    uint64(k % 64),
			Cgroup:      fmt.Sprintf("/kubepods.slice/kubepods-burstable.slice/cri-containerd-%064d.scope", k%64),
			ContainerID: fmt.Sprintf("%064d", k%64),
			Runtime:     "containerd",
			PodUID:      fmt.Sprintf("8f9f4fc8-0000-0000-0000-%012d", k%64),
			Pod:         fmt.Sprintf("web-%d", k%64),
			Namespace:   "shop",
			Container:   fmt.Sprintf("container-%d", k%64),
			Process:     "nginx",
			PID:         uint32(k),
		}
	}
	return records
}
