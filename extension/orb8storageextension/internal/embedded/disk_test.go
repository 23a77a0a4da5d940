package embedded

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// openTestStore opens a store whose upkeep only the test does, unless its head is full.
func openTestStore(t testing.TB, dir string, change ...func(*Settings)) (*Store, *clock) {
	t.Helper()
	c := &clock{}
	settings := Settings{
		Retention: time.Hour, MaxBytes: 1 << 30, Now: func() time.Time { return at(int(c.seconds.Load())) },
		Disk: &DiskSettings{
			Directory: dir, HeadBytes: 64 << 20, HeadAge: 100 * time.Hour, FsyncInterval: time.Hour,
			Logger: zaptest.NewLogger(t), Report: func(err error) { assert.NoError(t, err) },
		},
	}
	for _, f := range change {
		f(&settings)
	}
	s, err := Open(settings)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s, c
}

func seal(t testing.TB, s *Store) {
	t.Helper()
	s.disk.keeping.Lock()
	defer s.disk.keeping.Unlock()
	require.NoError(t, s.disk.seal())
}

func upkeep(t testing.TB, s *Store) {
	t.Helper()
	s.disk.upkeep()
	require.NoError(t, s.disk.index(t.Context()))
	require.NoError(t, s.disk.compact(t.Context()))
}

// corpus is what a small cluster reports: some of all that there is, told a second apart.
func corpus(seconds int) []func(*Store) error { return labelled(seconds, "app=web,tier=front") }

func labelled(seconds int, labels string) []func(*Store) error {
	ctx := context.Background()
	var writes []func(*Store) error
	for i := range seconds {
		sent := with(record(i, i+1), func(r *flow.Record) {
			r.TCPHealth = flow.TCPHealth{HasISNs: true, ClientISN: 7, ServerISN: 9, SRTT: 3 * time.Millisecond, MinRTT: time.Millisecond, Retransmits: 2, ZeroWindows: 1, Handshake: time.Millisecond}
			r.Initiator, r.TCPFlags, r.Connections = flow.InitiatorSource, 18, 1
			r.Destination.Name, r.Interfaces = "db.example", []string{"eth0", "br0"}
			r.Source.Identity = flow.Identity{
				CgroupID: 7, Cgroup: "/kubepods/pod1/c1", ContainerID: "0123abcd", Runtime: "containerd", PodUID: "uid", QOSClass: "burstable",
				Pod: "web-0", Namespace: "shop", Container: "web", Unit: "", Process: "curl", PID: 100,
				Workload: "web", WorkloadKind: "StatefulSet", Service: "front", KubernetesNode: "node-c",
				Labels: labels,
			}
		})
		received := with(sent, func(r *flow.Record) {
			r.Node, r.Direction, r.Destination.Name = "node-b", flow.Ingress, ""
			r.Source.Identity, r.Destination.Identity = flow.Identity{}, flow.Identity{CgroupID: 8, Pod: "db-0", Namespace: "shop"}
		})
		other := with(record(i, i), func(r *flow.Record) {
			r.Transport, r.ICMPType, r.Bytes, r.LostPackets, r.Ended = flow.ICMPv6, 128, 1<<63, uint64(i), i%2 == 0
			r.Source.Addr, r.Destination.Addr = addr("[2001:db8::1]:0"), addr("[2001:db8::2]:0")
			r.Source.Identity = flow.Identity{Unit: fmt.Sprintf("unit-%d.service", i%5)}
		})
		failed := flow.Record{
			Start: at(i), End: at(i), Node: "node-a", Direction: flow.Transit, Transport: 89, Outcome: flow.OutcomeRefused, Packets: 1,
			Source: flow.Endpoint{Addr: addr("10.9.0.1:1")}, Destination: flow.Endpoint{Addr: addr("10.9.0.2:2")},
		}
		lookup := flow.Lookup{
			Time: at(i), Node: "node-a", Direction: flow.Egress, Transport: flow.UDP, Name: fmt.Sprintf("host-%d.example", i%3), Type: "A",
			RCode: "NOERROR", Latency: 5 * time.Millisecond, Queries: 1, Interface: "eth0", Truncated: true,
			Client:  flow.Endpoint{Addr: addr("10.0.0.1:53000"), Identity: flow.Identity{Pod: "web-0", Namespace: "shop", Labels: labels}},
			Server:  flow.Endpoint{Addr: addr("10.0.0.53:53")},
			Answers: []flow.Answer{{Name: "host.example", TTL: time.Minute, Type: "A", Data: "192.0.2.7"}, {Name: "h", Type: "TXT", Data: `"a b"`}},
		}
		calls := syscalls.Counts{
			Start: at(i), End: at(i + 1), Node: "node-a", Identity: flow.Identity{CgroupID: 7, Pod: "web-0", Namespace: "shop"}, LostCalls: 3,
			Calls: []syscalls.Count{
				{Call: syscalls.Call{ABI: syscalls.X86_64, Number: 0}, Calls: 10},
				{Call: syscalls.Call{ABI: syscalls.ARM64, Number: 56}, Calls: 1 << 40, Errors: map[string]uint64{"ENOENT": 3, "EACCES": 1},
					Latency: &syscalls.Latency{Sum: time.Second, Buckets: [syscalls.LatencyBuckets]uint64{3: 5, 27: 1}}},
			},
		}
		n := syscalls.Anomaly{
			Time: at(i), Node: "node-a", Identity: flow.Identity{CgroupID: 7, Pod: "web-0", Process: "sh", PID: 4}, Workload: "shop/web", Rule: "new-call",
			Severity: syscalls.SeverityWarning, Call: syscalls.Call{ABI: syscalls.X86_64, Number: 59}, Message: fmt.Sprint("number ", i), Calls: 2, Rate: 1.5, Baseline: .25,
			Evidence: &syscalls.Event{
				Time: at(i), Node: "node-a", Call: syscalls.Call{ABI: syscalls.X86_64, Number: 59}, TID: 5, Sampling: 1,
				Identity:  flow.Identity{Process: "sh", PID: 4},
				Arguments: []syscalls.Argument{{Name: "pathname", Value: "/bin/sh"}},
			},
		}
		bare := syscalls.Anomaly{Time: at(i), Node: "node-b", Workload: "w", Rule: "rate", Severity: syscalls.SeverityInfo, Call: syscalls.Call{ABI: syscalls.I386, Number: 1}}
		samples := []gpu.Sample{
			{Series: gpu.Series{
				Node: "node-a", Metric: "hw.energy", Unit: "J", Counter: true, Attributes: "a=b",
				Device: gpu.Device{ID: "MIG-0", Parent: "GPU-0", Index: 3, Model: "H100", PCIAddress: "0000:17:00.0", MIGProfile: "1g.10gb"},
			}, Time: at(i), Start: at(i / 7 * 7), Value: float64(i % 7)},
			{Series: gpu.Series{
				Node: "node-a", Device: gpu.Device{ID: "MIG-0", Parent: "GPU-0"}, Metric: gpu.MetricAllocation, Unit: "1",
				Identity: flow.Identity{Pod: fmt.Sprint("train-", i/20), Namespace: "ml"},
			}, Time: at(i), Value: 1},
		}
		writes = append(writes,
			func(s *Store) error { return second(s.WriteFlows(ctx, []flow.Record{sent, other, failed})) },
			func(s *Store) error { return second(s.WriteFlows(ctx, []flow.Record{received})) },
			func(s *Store) error { return second(s.WriteLookups(ctx, []flow.Lookup{lookup})) },
			func(s *Store) error { return second(s.WriteSyscalls(ctx, []syscalls.Counts{calls})) },
			func(s *Store) error { return second(s.WriteAnomalies(ctx, []syscalls.Anomaly{n, bare})) },
			func(s *Store) error { return second(s.WriteGPU(ctx, samples)) },
			func(s *Store) error { return s.WriteStatus(ctx, status("node-a", 0, i, uint64(i))) },
			func(s *Store) error { return s.WriteSyscallStatus(ctx, callStatus("node-b", 0, i, uint64(2*i))) },
			func(s *Store) error {
				return s.WriteGPUStatus(ctx, gpu.Status{
					Node: "node-b", Time: at(i), Started: at(0), Interval: time.Second, Scrapes: uint64(i), Models: map[string]uint32{"Tesla T4": 1},
				})
			},
		)
	}
	return writes
}

func second(_ bool, err error) error { return err }

// answers are what a store says to some of everything that it can be asked.
type answers struct {
	Flows     []storage.FlowResult
	Lookups   []storage.LookupResult
	Syscalls  []storage.SyscallResult
	Anomalies []storage.AnomalyResult
	GPU       []storage.GPUResult
	Nodes     []storage.NodeStatus
	Records   uint64
}

func ask(t testing.TB, s *Store) answers {
	t.Helper()
	ctx := context.Background()
	var a answers
	for _, q := range []storage.FlowQuery{
		{}, {SeparateEnds: true}, {Since: at(10), Until: at(20)}, {Limit: 3},
		{Selection: storage.Selection{Allow: []storage.Filter{{Pods: []string{"shop/web-0"}}}}},
		{Selection: storage.Selection{Allow: []storage.Filter{{Pods: []string{"nobody"}}}}},
	} {
		r, err := s.QueryFlows(ctx, q)
		require.NoError(t, err)
		a.Flows = append(a.Flows, r)
	}
	for _, q := range []storage.LookupQuery{{}, {Since: at(10), Until: at(20)}, {Selection: storage.LookupSelection{Allow: []storage.LookupFilter{{Names: []string{"*-1.example"}}}}, Limit: 2}} {
		r, err := s.QueryLookups(ctx, q)
		require.NoError(t, err)
		a.Lookups = append(a.Lookups, r)
	}
	for _, q := range []storage.SyscallQuery{{}, {Since: at(10), Until: at(20)}} {
		r, err := s.QuerySyscalls(ctx, q)
		require.NoError(t, err)
		a.Syscalls = append(a.Syscalls, r)
	}
	for _, q := range []storage.AnomalyQuery{{}, {Since: at(10), Until: at(20)}, {Limit: 1}} {
		r, err := s.QueryAnomalies(ctx, q)
		require.NoError(t, err)
		a.Anomalies = append(a.Anomalies, r)
	}
	for _, q := range []storage.GPUQuery{{}, {Since: at(10), Until: at(20), Step: 5 * time.Second}, {Limit: 1}} {
		r, err := s.QueryGPU(ctx, q)
		require.NoError(t, err)
		a.GPU = append(a.GPU, r)
	}
	got := s.Status()
	a.Nodes, a.Records = got.Nodes, got.Store.Records
	return a
}

func write(t testing.TB, s *Store, writes []func(*Store) error) {
	t.Helper()
	for _, w := range writes {
		require.NoError(t, w(s))
	}
}

// A store on disk gives the answers of one in memory, wherever the records are.
func TestDiskAnswersAsMemoryDoes(t *testing.T) {
	const seconds = 40
	memory, _ := newTestStore(64 << 20)
	write(t, memory, corpus(seconds))
	want := ask(t, memory)
	require.NotEmpty(t, want.Flows[0].Flows)

	dir := t.TempDir()
	s, _ := openTestStore(t, dir)
	all := corpus(seconds)
	write(t, s, all[:len(all)/3])
	seal(t, s)
	write(t, s, all[len(all)/3:len(all)/2])
	seal(t, s)
	write(t, s, all[len(all)/2:])
	assert.Equal(t, want, ask(t, s), "in blocks and in memory")

	require.NoError(t, s.Close())
	s, _ = openTestStore(t, dir)
	assert.Equal(t, want, ask(t, s), "in blocks and the journal")
	seal(t, s)
	assert.Equal(t, want, ask(t, s), "in blocks")
	segments, err := os.ReadDir(filepath.Join(dir, "journal"))
	require.NoError(t, err)
	assert.Len(t, segments, 1, "what is in blocks is in the journal no more")
	require.NoError(t, s.Close())
	s, _ = openTestStore(t, dir)
	assert.Equal(t, want, ask(t, s), "in blocks, opened again")
	write(t, s, corpus(seconds))
	got := ask(t, s)
	assert.Equal(t, want, got, "and sent again")
}

// What is not in a file yet is neither nothing nor of the files.
func TestStatusTellsTheHeadFromTheFiles(t *testing.T) {
	memory, _ := newTestStore(64 << 20)
	write(t, memory, corpus(10))
	want := memory.Status().Store
	assert.Zero(t, want.HeadBytes, "there are no files")

	s, _ := openTestStore(t, t.TempDir())
	write(t, s, corpus(10))
	got := s.Status().Store
	assert.Equal(t, want.Records, got.Records)
	assert.Zero(t, got.Bytes)
	assert.Equal(t, want.Bytes, got.HeadBytes)
	seal(t, s)
	got = s.Status().Store
	assert.Equal(t, want.Records, got.Records)
	assert.Positive(t, got.Bytes)
	assert.Zero(t, got.HeadBytes)
}

func TestABatchThatIsSentAgainIsStoredOnce(t *testing.T) {
	dir := t.TempDir()
	s, _ := openTestStore(t, dir)
	batch, other := many(100, 1), many(100, 2)
	again := func(when string) {
		t.Helper()
		for i := range batch {
			// What is known of an endpoint may differ the second time.
			batch[i].Source.Identity.Pod = when
		}
		fresh, err := s.WriteFlows(t.Context(), batch)
		require.NoError(t, err)
		assert.False(t, fresh, when)
		assert.EqualValues(t, 200, s.Status().Store.Records, when)
	}
	for _, b := range [][]flow.Record{batch, other} {
		fresh, err := s.WriteFlows(t.Context(), b)
		require.NoError(t, err)
		assert.True(t, fresh)
	}
	again("at once")
	require.NoError(t, s.Close())
	s, _ = openTestStore(t, dir)
	again("after a restart")
	seal(t, s)
	again("after it went to a block")
	require.NoError(t, s.Close())
	s, _ = openTestStore(t, dir)
	again("after that and a restart")
}

func TestBatchesOfAnEarlierSealAreNotTakenForThoseOfTheJournal(t *testing.T) {
	dir := t.TempDir()
	s, _ := openTestStore(t, dir)
	s.WriteFlows(t.Context(), many(10, 1))
	seal(t, s)
	s.WriteFlows(t.Context(), many(10, 2))
	// The state is saved for another reason than a seal.
	require.NoError(t, s.disk.save())
	require.NoError(t, s.Close())
	s, _ = openTestStore(t, dir)
	assert.EqualValues(t, 20, s.Status().Store.Records)
}

func TestOneStoreADirectory(t *testing.T) {
	dir := t.TempDir()
	s, _ := openTestStore(t, dir)
	_, err := Open(s.settings)
	assert.ErrorContains(t, err, "another collector uses it")
	require.NoError(t, s.Close())
	openTestStore(t, dir)
}

func TestRetentionOfBlocks(t *testing.T) {
	dir := t.TempDir()
	s, clock := openTestStore(t, dir)
	write(t, s, corpus(10))
	seal(t, s)
	clock.set(hour / 2)
	s.WriteFlows(t.Context(), many(10, hour/2))
	seal(t, s)
	clock.set(hour + 20)
	upkeep(t, s)
	got := s.Status().Store
	assert.EqualValues(t, 10, got.Records)
	assert.Zero(t, got.EvictedRecords)
	assert.Len(t, blocksOf(t, dir), 1)
	assert.Zero(t, query(t, s, storage.FlowQuery{}).Lost)
}

func TestBlocksTakeNoMoreThanTheirBytes(t *testing.T) {
	dir := t.TempDir()
	const seals, each, bytes = 20, 1000, 100 << 10
	s, clock := openTestStore(t, dir, func(s *Settings) { s.MaxBytes = bytes })
	for i := range seals {
		clock.set(i)
		s.WriteFlows(t.Context(), many(each, i))
		seal(t, s)
		upkeep(t, s)
	}
	got := s.Status().Store
	assert.LessOrEqual(t, got.Bytes, uint64(bytes))
	require.NotZero(t, got.EvictedRecords)
	assert.EqualValues(t, seals*each, got.Records+got.EvictedRecords)
	result := query(t, s, storage.FlowQuery{})
	assert.Equal(t, got.EvictedRecords, result.Lost.EvictedRecords)
	assert.Positive(t, result.Oldest.Sub(at(0)))

	require.NoError(t, s.Close())
	s, _ = openTestStore(t, dir)
	again := query(t, s, storage.FlowQuery{})
	assert.Equal(t, result.Lost, again.Lost, "a restart does not forget what is missing")
	assert.Equal(t, result.Oldest, again.Oldest)
}

func TestSmallBlocksAreMerged(t *testing.T) {
	memory, _ := newTestStore(64 << 20)
	dir := t.TempDir()
	s, _ := openTestStore(t, dir)
	const seals = 17
	all := corpus(seals * 3)
	for i := range seals {
		part := all[i*len(all)/seals : (i+1)*len(all)/seals]
		write(t, memory, part)
		write(t, s, part)
		seal(t, s)
	}
	upkeep(t, s)
	assert.LessOrEqual(t, len(blocksOf(t, dir)), 4*3, "of four kinds, of which 17 were written")
	assert.Equal(t, ask(t, memory), ask(t, s))
	require.NoError(t, s.Close())
	s, _ = openTestStore(t, dir)
	assert.Equal(t, ask(t, memory), ask(t, s))
}

func TestAQueryReadsTheNewestRecords(t *testing.T) {
	s, clock := openTestStore(t, t.TempDir(), func(s *Settings) { s.MaxQueryRecords = 250 })
	for i := range 3 {
		clock.set(10*i + 5)
		s.WriteFlows(t.Context(), many(100, 10*i+5))
		seal(t, s) // three are not merged
	}
	s.WriteFlows(t.Context(), many(100, 40))
	result := query(t, s, storage.FlowQuery{SeparateEnds: true})
	assert.EqualValues(t, 300, sumOf(result), "two blocks of three, and what is in memory")
	assert.Equal(t, at(5), result.Oldest, "what was seen until then is left out")
	assert.Equal(t, at(5), query(t, s, storage.FlowQuery{Since: at(-100)}).Oldest)
	result = query(t, s, storage.FlowQuery{Until: at(10)})
	assert.EqualValues(t, 100, sumOf(result), "those of the range count")
}

// sumOf returns how many records an answer sums.
func sumOf(result storage.FlowResult) (n uint64) {
	for _, f := range result.Flows {
		n += f.Packets / record(0, 0).Packets
	}
	return n
}

// blocksOf returns the names of the blocks of a directory, and filesOf those of all that is beside them too.
func blocksOf(t testing.TB, dir string) []string {
	t.Helper()
	return slices.DeleteFunc(filesOf(t, dir), func(name string) bool { return strings.HasSuffix(name, ".index") })
}

func filesOf(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "blocks"))
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Readers see every batch that was acknowledged once, while blocks are written, merged and dropped.
func TestReadersWhileBlocksComeAndGo(t *testing.T) {
	s, _ := openTestStore(t, t.TempDir(), func(s *Settings) { s.Disk.HeadBytes, s.Disk.FsyncInterval = MinHeadBytes, time.Millisecond })
	const writers, rounds, batch = 2, 60, 512
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range rounds {
				records := many(batch, i)
				for j := range records {
					records[j].Node = fmt.Sprint(w)
				}
				_, err := s.WriteFlows(t.Context(), records)
				assert.NoError(t, err)
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for range 15 {
				result, err := s.QueryFlows(t.Context(), storage.FlowQuery{})
				assert.NoError(t, err)
				var records uint64
				for _, f := range result.Flows {
					records += f.Packets / 10
				}
				assert.Zero(t, records%batch, "%d records are not whole batches", records)
				assert.Zero(t, result.Lost)
			}
		})
	}
	wg.Wait()
	seal(t, s)
	upkeep(t, s)
	var records uint64
	for _, f := range query(t, s, storage.FlowQuery{SeparateEnds: true}).Flows {
		records += f.Packets / 10
	}
	assert.EqualValues(t, writers*rounds*batch, records)
}

func BenchmarkWriteToDisk(b *testing.B) {
	s, _ := openTestStore(b, b.TempDir(), func(s *Settings) { s.Disk.HeadBytes, s.MaxBytes = 8<<20, 64<<20 })
	var second int
	records := identified(8192, 64)
	b.ReportAllocs()
	for b.Loop() {
		second++
		for i := range records {
			records[i].Bytes = uint64(second)
		}
		for batch := range slices.Chunk(records, 512) {
			if _, err := s.WriteFlows(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(records)), "ns/record")
}
