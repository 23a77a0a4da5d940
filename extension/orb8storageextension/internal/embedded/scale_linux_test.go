package embedded

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

// What BenchmarkScale stores: an hour of a cluster of 50 nodes, whose pods talk to any other.
const (
	scaleNodes      = 50
	scalePods       = 2000
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
		client, server := connection*7919%scalePods, connection*104729%scalePods
		start := epoch.Add(time.Duration(number) * scaleSeconds * time.Second / time.Duration(total))
		port := uint16(32768 + connection%28000)
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

// BenchmarkScale stores ORB8_SCALE records (a million if it is not set), and asks for some of them. It runs once.
func BenchmarkScale(b *testing.B) {
	total := 1_000_000
	if text := os.Getenv("ORB8_SCALE"); text != "" {
		var err error
		total, err = strconv.Atoi(text)
		require.NoError(b, err)
	}
	ctx := context.Background()
	s, clock := openTestStore(b, b.TempDir(), func(s *Settings) {
		s.MaxBytes, s.Retention, s.Disk.HeadBytes = 16<<30, 2*time.Hour, 64<<20
		s.Disk.FsyncInterval = time.Second
	})
	pods := make([]flow.Identity, scalePods)
	for i := range pods {
		pods[i] = scalePod(i)
	}
	batch := make([]flow.Record, scaleBatch)
	began, used := time.Now(), processorTime(b)
	var making time.Duration
	for n := 0; n < total; n += len(batch) {
		from := time.Now()
		scaleBatchOf(batch, pods, n, total)
		making += time.Since(from)
		clock.set(n * scaleSeconds / total)
		_, err := s.WriteFlows(ctx, batch)
		require.NoError(b, err)
	}
	head := s.disk.head()
	b.ReportMetric(float64(total)/time.Since(began).Seconds(), "records/s")
	upkeep(b, s)
	b.ReportMetric(float64(total)/(processorTime(b)-used-making).Seconds(), "records/s/core")
	got := s.Status().Store
	var inHead, onDisk uint64
	s.mu.RLock()
	inHead = s.flows.records
	for _, f := range s.flows.blocks {
		onDisk += f.Meta.Rows
	}
	s.mu.RUnlock()
	b.ReportMetric(float64(got.Bytes)/float64(onDisk), "disk-B/record")
	b.Logf("head %d bytes, %d records; %d records in %d blocks, %d bytes", head, inHead, onDisk, len(s.flows.blocks), got.Bytes)
	b.ReportMetric(float64(residentMemory(b))/1e6, "MB-rss")

	queries := map[string]storage.FlowQuery{
		"pod-newest-100": {Selection: storage.Selection{Allow: []storage.Filter{{Pods: []string{"team-7/web-1007"}}}}, Limit: 100},
		"namespace-5m": {
			Selection: storage.Selection{Allow: []storage.Filter{{Namespaces: []string{"team-3"}}}}, Limit: 1000,
			Since: at(1800), Until: at(2100),
		},
		"miss": {Selection: storage.Selection{Allow: []storage.Filter{{Pods: []string{"nobody"}}}}, Limit: 100},
	}
	for name, q := range queries {
		var took, cpu []time.Duration
		for range 5 {
			from, used := time.Now(), processorTime(b)
			result, err := s.QueryFlows(ctx, q)
			require.NoError(b, err)
			took, cpu = append(took, time.Since(from)), append(cpu, processorTime(b)-used)
			b.Logf("%s: %d of %d in %s", name, len(result.Flows), result.Matched, took[len(took)-1])
		}
		slices.Sort(took)
		slices.Sort(cpu)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1e3, name+"-ms")
		b.ReportMetric(float64(cpu[len(cpu)/2].Microseconds())/1e3, name+"-cpu-ms")
	}
	b.ReportMetric(0, "ns/op")
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
