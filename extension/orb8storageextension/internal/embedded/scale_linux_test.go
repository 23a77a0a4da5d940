package embedded

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

// What BenchmarkScale stores: an hour of a cluster of 50 nodes, whose pods each talk to some others.
const (
	scaleNodes = 50
	scalePods  = 2000
	// scalePeers is how many servers a pod has.
	scalePeers      = 20
	scaleNamespaces = 20
	scaleSeconds    = 3600
	scaleBatch      = 500
)

func scalePod(i int) flow.Identity {
	return flow.Identity{
		CgroupID:    uint64(1000 + i),
		Cgroup:      fmt.Sprintf("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod%032x.slice/cri-containerd-%064x.scope", i, i),
		ContainerID: fmt.Sprintf("%064x", i), Runtime: "containerd", PodUID: fmt.Sprintf("8f9f4fc8-0000-0000-0000-%012x", i),
		QOSClass: "burstable", Pod: fmt.Sprintf("web-%d", i), Namespace: fmt.Sprintf("team-%d", i%scaleNamespaces), Container: "main",
		Process: "server", PID: uint32(10000 + i),
	}
}

// scaleBatchOf fills a batch with the records from number n on: connections, each seen at both its ends.
func scaleBatchOf(batch []flow.Record, pods []flow.Identity, n, total int) {
	for i := range batch {
		number := n + i
		connection := number / 2
		chance := mix(uint64(connection), 1)
		client := int(chance % scalePods)
		server := int(mix(uint64(client), chance>>16%scalePeers) % scalePods)
		start := epoch.Add(time.Duration(number) * (scaleSeconds * time.Second / time.Duration(total)))
		port := uint16(32768 + chance>>40%28000)
		address := func(pod int) netip.Addr {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], 0x0a000000|uint32(pod))
			return netip.AddrFrom4(b)
		}
		r := flow.Record{
			Start: start, End: start.Add(time.Duration(connection%4000) * time.Millisecond), Direction: flow.Egress, Transport: flow.TCP,
			Node:        fmt.Sprintf("node-%d", client%scaleNodes),
			Source:      flow.Endpoint{Addr: netip.AddrPortFrom(address(client), port), Identity: pods[client]},
			Destination: flow.Endpoint{Addr: netip.AddrPortFrom(address(server), 8080), Identity: flow.Identity{Pod: pods[server].Pod, Namespace: pods[server].Namespace}},
			TCPFlags:    0x1b, Bytes: uint64(500 + connection*31%100000), Packets: uint64(5 + connection%100), Connections: 1,
			TCPHealth: flow.TCPHealth{
				HasISNs: true, ClientISN: uint32(connection * 2654435761), ServerISN: uint32(connection*40503 + 1),
				SRTT: time.Duration(100+connection%900) * time.Microsecond, MinRTT: 90 * time.Microsecond,
			},
			Initiator: flow.InitiatorSource, Ended: true, Outcome: flow.OutcomeClosed,
		}
		if number%2 == 1 {
			r.Direction, r.Node, r.SRTT = flow.Ingress, fmt.Sprintf("node-%d", server%scaleNodes), 0
			r.Source.Identity = flow.Identity{Pod: pods[client].Pod, Namespace: pods[client].Namespace}
			r.Destination.Identity = pods[server]
		}
		batch[i] = r
	}
}

// BenchmarkScale stores ORB8_SCALE records (a million if it is not set) by way of a head of ORB8_HEAD bytes (the default of the
// configuration), and asks for some of them ORB8_RUNS times each (10): first alone, and then while 50,000 records a second arrive. It runs once.
func BenchmarkScale(b *testing.B) {
	total, runs := number(b, "ORB8_SCALE", 1_000_000), number(b, "ORB8_RUNS", 10)
	s, clock := openTestStore(b, b.TempDir(), func(s *Settings) {
		s.MaxBytes, s.Retention, s.Disk.HeadBytes = 16<<30, 24*time.Hour, uint64(number(b, "ORB8_HEAD", 16<<20))
		s.Disk.FsyncInterval = time.Second
	})
	pods := make([]flow.Identity, scalePods)
	for i := range pods {
		pods[i] = scalePod(i)
	}
	batch := make([]flow.Record, scaleBatch)
	began, used := time.Now(), processorTime(b)
	var making time.Duration
	write := func(n int) {
		from := time.Now()
		scaleBatchOf(batch, pods, n, total)
		making += time.Since(from)
		clock.set(n * scaleSeconds / total)
		_, err := s.WriteFlows(b.Context(), batch)
		require.NoError(b, err)
	}
	var n int
	for ; n < total; n += len(batch) {
		write(n)
	}
	head := s.disk.head()
	b.ReportMetric(float64(total)/time.Since(began).Seconds(), "records/s")
	upkeep(b, s)
	b.ReportMetric(float64(total)/(processorTime(b)-used-making).Seconds(), "records/s/core")
	reportStore(b, s, head)

	for name, run := range scaleQueries(b, s) {
		took, cpu := measured(b, runs, run)
		b.Logf("%s alone: %s, p50 %s, p99 %s, processor %s", name, run(), percentile(took, 50), percentile(took, 99), percentile(cpu, 50))
		b.ReportMetric(percentile(cpu, 50).Seconds()*1e3, name+"-cpu-ms")
	}
	ctx, stop := context.WithCancel(b.Context())
	var writing sync.WaitGroup
	from := n
	writing.Go(func() {
		tick := time.NewTicker(time.Second * scaleBatch / 50_000)
		defer tick.Stop()
		for ; ctx.Err() == nil; n += len(batch) {
			write(n)
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	started := time.Now()
	for name, run := range scaleQueries(b, s) {
		took, _ := measured(b, runs, run)
		b.Logf("%s: %s, p50 %s, p99 %s", name, run(), percentile(took, 50), percentile(took, 99))
		b.ReportMetric(percentile(took, 50).Seconds()*1e3, name+"-p50-ms")
		b.ReportMetric(percentile(took, 99).Seconds()*1e3, name+"-p99-ms")
	}
	stop()
	writing.Wait()
	b.ReportMetric(float64(n-from)/time.Since(started).Seconds(), "records/s-meanwhile")
	b.ReportMetric(0, "ns/op")
}

func number(b *testing.B, variable string, otherwise int) int {
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(b, err)
	return n
}

func reportStore(b *testing.B, s *Store, head uint64) {
	got := s.Status().Store
	var inHead, onDisk, indexes uint64
	s.mu.RLock()
	inHead = s.flows.records
	for _, f := range s.flows.blocks {
		onDisk += f.Meta.Rows
		indexes += f.Stored() - f.Size
	}
	blocks := len(s.flows.blocks)
	s.mu.RUnlock()
	b.ReportMetric(float64(got.Bytes-indexes)/float64(onDisk), "block-B/record")
	b.ReportMetric(float64(indexes)/float64(onDisk), "index-B/record")
	b.Logf("head %d bytes, %d records; %d records in %d blocks, %d bytes", head, inHead, onDisk, blocks, got.Bytes)
	b.ReportMetric(float64(residentMemory(b))/1e6, "MB-rss")
}

// scaleQueries are what is asked, and what came of it.
func scaleQueries(b *testing.B, s *Store) map[string]func() string {
	flows := func(q storage.FlowQuery) func() string {
		return func() string {
			result, err := s.QueryFlows(b.Context(), q)
			require.NoError(b, err)
			return fmt.Sprintf("%d of %d", len(result.Flows), result.Matched)
		}
	}
	return map[string]func() string{
		"pod-newest-100": flows(storage.FlowQuery{Selection: storage.Selection{Allow: []storage.Filter{{Pods: []string{"team-7/web-1007"}}}}, Limit: 100}),
		"namespace-5m": flows(storage.FlowQuery{
			Selection: storage.Selection{Allow: []storage.Filter{{Namespaces: []string{"team-3"}}}}, Limit: 1000,
			Since: at(1800), Until: at(2100),
		}),
		"top-20-talkers": func() string {
			result, err := s.Aggregate(b.Context(), storage.AggregateQuery{By: []string{"source.pod", "destination.pod"}, Measures: []string{"bytes"}, Top: 20})
			require.NoError(b, err)
			return fmt.Sprintf("%d of %d groups", len(result.Groups), result.Matched)
		},
		"miss": flows(storage.FlowQuery{Selection: storage.Selection{Allow: []storage.Filter{{Pods: []string{"nobody"}}}}, Limit: 100}),
	}
}

func measured(b *testing.B, runs int, run func() string) (took, cpu []time.Duration) {
	for range runs {
		from, used := time.Now(), processorTime(b)
		run()
		took, cpu = append(took, time.Since(from)), append(cpu, processorTime(b)-used)
	}
	slices.Sort(took)
	slices.Sort(cpu)
	return took, cpu
}

func percentile(sorted []time.Duration, percent int) time.Duration {
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)].Round(10 * time.Microsecond)
}

func processorTime(t testing.TB) time.Duration {
	var usage syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func residentMemory(t testing.TB) uint64 {
	text, err := os.ReadFile("/proc/self/statm")
	require.NoError(t, err)
	var size, resident uint64
	_, err = fmt.Sscan(string(text), &size, &resident)
	require.NoError(t, err)
	return resident * uint64(os.Getpagesize())
}
