package ebpfnetworkreceiver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/ebpfconfig"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/sharedcomponent"
	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/metadata"
)

// patience is how long a test waits for what the kernel or the receiver does in its own time. To close an interval takes a grace
// period of the kernel, and where many others run that has been seen to take 10 s.
const patience = time.Minute

func kernelConfig(t *testing.T) *Config {
	t.Helper()
	testutil.Require(t, "bpf", os.Geteuid() == 0, "loading BPF programs needs root")
	cfg := createDefaultConfig().(*Config)
	cfg.Interval = ebpfconfig.MinInterval
	cfg.SelfTraffic = true // the test's own sockets are what is watched
	cfg.Attach.CgroupPath = inOwnCgroup(t)
	return cfg
}

func startLogs(t *testing.T, cfg *Config, next consumer.Logs) receiver.Logs {
	t.Helper()
	r, err := NewFactory().CreateLogs(t.Context(), receivertest.NewNopSettings(metadata.Type), cfg, next)
	require.NoError(t, err)
	require.NoError(t, r.Start(t.Context(), componenttest.NewNopHost()))
	t.Cleanup(func() { assert.NoError(t, r.Shutdown(context.Background())) })
	return r
}

// sendDatagrams sends n datagrams of 100 bytes over the loopback and returns the address they went to.
func sendDatagrams(t *testing.T, n int) netip.AddrPort {
	t.Helper()
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer server.Close()
	client, err := net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr))
	require.NoError(t, err)
	defer client.Close()
	for range n {
		_, err := client.Write(make([]byte, 100))
		require.NoError(t, err)
	}
	require.NoError(t, server.SetReadDeadline(time.Now().Add(10*time.Second)))
	for range n { // a packet that comes when the socket is closed has nobody to be counted for
		_, err := server.Read(make([]byte, 100))
		require.NoError(t, err)
	}
	return server.LocalAddr().(*net.UDPAddr).AddrPort()
}

// inOwnCgroup moves the test's process to a cgroup of its own, and back when the test ends, and returns where that is: who
// watches it alone sees the test's sockets, and nothing that others of the machine send.
func inOwnCgroup(t *testing.T) string {
	t.Helper()
	mount, err := cgroup.FindMount("")
	require.NoError(t, err)
	text, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	_, home, found := strings.Cut("\n"+string(text), "\n0::")
	require.True(t, found, "%s", text)
	home, _, _ = strings.Cut(home, "\n")
	move := func(dir string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0))
	}
	dir, err := os.MkdirTemp(mount.Path, "orb8-receiver-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.Remove(dir)) })
	move(dir)
	t.Cleanup(func() { move(filepath.Join(mount.Path, home)) })
	return dir
}

// eachLog calls f for every log record of the given event name.
func eachLog(sink *consumertest.LogsSink, name string, f func(plog.ResourceLogs, plog.LogRecord)) {
	for _, logs := range sink.AllLogs() {
		for _, resource := range logs.ResourceLogs().All() {
			for _, scope := range resource.ScopeLogs().All() {
				for _, record := range scope.LogRecords().All() {
					if record.EventName() == name {
						f(resource, record)
					}
				}
			}
		}
	}
}

func TestWhatIsInFlightAtShutdownIsReported(t *testing.T) {
	cfg := kernelConfig(t)
	cfg.Interval = time.Hour // nothing is reported before the end
	cfg.IdleTimeout = time.Hour
	sink := &consumertest.LogsSink{}
	r := startLogs(t, cfg, sink)
	server := sendDatagrams(t, 7)
	require.NoError(t, r.Shutdown(t.Context()))

	seen := map[flow.Direction]flow.Record{}
	eachLog(sink, flow.EventNameFlow, func(res plog.ResourceLogs, lr plog.LogRecord) {
		rec, err := flow.RecordFrom(res.Resource(), lr)
		require.NoError(t, err)
		if rec.Destination.Addr == server {
			seen[rec.Direction] = rec
		}
	})
	require.Len(t, seen, 2, "the sender's record and the receiver's")
	for direction, rec := range seen {
		assert.EqualValues(t, 7, rec.Packets, direction)
		assert.EqualValues(t, 7*128, rec.Bytes, direction)
		assert.EqualValues(t, 1, rec.Connections, direction)
		assert.EqualValues(t, os.Getpid(), rec.Local().Identity.PID, direction)
		assert.NotZero(t, rec.Local().Identity.CgroupID, direction)
	}

	events := 0
	eachLog(sink, flow.EventNameEvent, func(res plog.ResourceLogs, lr plog.LogRecord) {
		e, err := flow.EventFrom(res.Resource(), lr)
		require.NoError(t, err)
		if e.Destination.Addr == server {
			assert.Equal(t, flow.EventNew, e.Kind)
			events++
		}
	})
	assert.Equal(t, 2, events)
}

func TestFlowIsNewInOneIntervalOnly(t *testing.T) {
	for _, mode := range []string{modeCgroup, modeTC} {
		t.Run(mode, func(t *testing.T) {
			cfg := kernelConfig(t)
			cfg.Attach.Mode, cfg.Attach.Interfaces.Include = mode, []string{"lo"}
			sink := &consumertest.LogsSink{}
			r := startLogs(t, cfg, sink)
			server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			require.NoError(t, err)
			defer server.Close()
			client, err := net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr))
			require.NoError(t, err)
			defer client.Close()
			of := func(r *flow.Record) bool { return r.Destination.Addr.String() == server.LocalAddr().String() }

			records := 0
			require.Eventually(t, func() bool {
				_, err := client.Write([]byte("x"))
				require.NoError(t, err)
				records = 0
				eachLog(sink, flow.EventNameFlow, func(res plog.ResourceLogs, lr plog.LogRecord) {
					rec, err := flow.RecordFrom(res.Resource(), lr)
					require.NoError(t, err)
					if of(&rec) && rec.Direction == flow.Egress {
						records++
					}
				})
				return records >= 5
			}, 10*time.Second, cfg.Interval/2, "records of five intervals")
			require.NoError(t, r.Shutdown(t.Context()))

			events := map[flow.Direction]int{}
			eachLog(sink, flow.EventNameEvent, func(res plog.ResourceLogs, lr plog.LogRecord) {
				e, err := flow.EventFrom(res.Resource(), lr)
				require.NoError(t, err)
				if of(&e.Record) {
					events[e.Direction]++
				}
			})
			assert.Equal(t, map[flow.Direction]int{flow.Egress: 1, flow.Ingress: 1}, events)
		})
	}
}

func TestOwnTrafficIsLeftOut(t *testing.T) {
	cfg := kernelConfig(t)
	cfg.SelfTraffic = false
	before, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer before.Close()
	listener, err := net.Listen("tcp4", "127.0.0.1:0") // with MPTCP, where the kernel has it: Go's default
	require.NoError(t, err)
	defer listener.Close()
	sink := &consumertest.LogsSink{}
	r := startLogs(t, cfg, sink)
	server := sendDatagrams(t, 3)
	_, err = before.WriteToUDPAddrPort([]byte("x"), before.LocalAddr().(*net.UDPAddr).AddrPort())
	require.NoError(t, err)
	client, err := net.Dial("tcp4", listener.Addr().String())
	require.NoError(t, err)
	accepted, err := listener.Accept()
	require.NoError(t, err)
	for range 3 { // longer than an interval: every generation of the flow table must know them
		_, err := client.Write(make([]byte, 1000))
		require.NoError(t, err)
		time.Sleep(cfg.Interval)
	}
	require.NoError(t, client.Close())
	require.NoError(t, accepted.Close())
	require.NoError(t, r.Shutdown(t.Context()))

	eachLog(sink, flow.EventNameFlow, func(res plog.ResourceLogs, lr plog.LogRecord) {
		rec, err := flow.RecordFrom(res.Resource(), lr)
		require.NoError(t, err)
		for _, addr := range []netip.AddrPort{rec.Source.Addr, rec.Destination.Addr} {
			assert.NotEqual(t, listener.Addr().String(), addr.String(), "an accepted connection: %+v", rec)
		}
		assert.NotEqual(t, server, rec.Destination.Addr, "a socket made after the start")
		assert.NotEqual(t, before.LocalAddr().(*net.UDPAddr).AddrPort(), rec.Destination.Addr, "a socket made before the start")
	})
}

func TestStatusAndMetricsEveryInterval(t *testing.T) {
	cfg := kernelConfig(t)
	cfg.ProbeStats = true
	f := NewFactory()
	set := receivertest.NewNopSettings(metadata.Type)
	logs, metrics := &consumertest.LogsSink{}, &consumertest.MetricsSink{}
	lr, err := f.CreateLogs(t.Context(), set, cfg, logs)
	require.NoError(t, err)
	mr, err := f.CreateMetrics(t.Context(), set, cfg, metrics)
	require.NoError(t, err)
	require.Same(t, lr, mr, "the programs must be loaded once for both pipelines")
	require.NoError(t, lr.Start(t.Context(), componenttest.NewNopHost()))
	require.NoError(t, mr.Start(t.Context(), componenttest.NewNopHost()))
	sendDatagrams(t, 5)
	require.Eventually(t, func() bool { return len(metrics.AllMetrics()) > 2 }, patience, 10*time.Millisecond)
	require.NoError(t, lr.Shutdown(t.Context()))
	require.NoError(t, mr.Shutdown(t.Context()))

	var status flow.NetworkStatus
	var rated float64
	eachLog(logs, flow.EventNameStatus, func(res plog.ResourceLogs, lr plog.LogRecord) {
		since := status.Time
		status = flow.StatusFrom(res.Resource(), lr)
		if since.IsZero() {
			since = status.Started
		}
		rated += status.PacketsPerSecond * status.Time.Sub(since).Seconds()
	})
	assert.InDelta(t, status.Packets, rated, 0.01, "rates, each for its time, are all packets")
	costs := map[string]flow.ProbeCost{}
	for _, c := range status.Probes {
		costs[c.Program] = c
	}
	for _, program := range []string{"cgroup_egress", "cgroup_ingress"} {
		assert.GreaterOrEqual(t, costs[program].Runs, uint64(5))
		assert.Positive(t, costs[program].RunTime)
	}
	assert.Contains(t, costs, "sock_create")
	assert.NotContains(t, costs, "tc_to_host", "it has not run")
	assert.Equal(t, "cgroup", status.AttachMode)
	assert.EqualValues(t, 2, status.AttachPoints)
	assert.EqualValues(t, 10, status.Packets, "five sent, five received")
	assert.Zero(t, status.LostPackets)
	assert.EqualValues(t, 1<<20, status.RingBufferBytes)
	assert.Equal(t, ebpfconfig.MinInterval, status.Interval)
	assert.NotEmpty(t, status.Kernel)

	// The last metrics say the same as the last status.
	all := metrics.AllMetrics()
	var packets int64
	for _, rm := range all[len(all)-1].ResourceMetrics().All() {
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			if m.Name() != "orb8.network.flow.packets" {
				continue
			}
			assert.True(t, m.Sum().IsMonotonic())
			for _, dp := range m.Sum().DataPoints().All() {
				assert.NotZero(t, dp.StartTimestamp())
				assert.Less(t, dp.StartTimestamp(), dp.Timestamp())
				packets += dp.IntValue()
			}
		}
	}
	assert.EqualValues(t, status.Packets, packets)
}

func TestRefusedRecordsAreLostAndCounted(t *testing.T) {
	cfg := kernelConfig(t)
	cfg.Interval = time.Hour
	cfg.IdleTimeout = time.Hour
	r, err := NewFactory().CreateLogs(t.Context(), receivertest.NewNopSettings(metadata.Type), cfg,
		consumertest.NewErr(errors.New("memory is short")))
	require.NoError(t, err)
	require.NoError(t, r.Start(t.Context(), componenttest.NewNopHost()))
	sendDatagrams(t, 5)
	nr := r.(*sharedcomponent.Component[*networkReceiver]).Inner
	require.NoError(t, r.Shutdown(t.Context()))
	assert.GreaterOrEqual(t, nr.lostPackets, uint64(10))
	assert.GreaterOrEqual(t, nr.lostBytes, uint64(10*128))
}

func TestOverflowIsMergedAndBounded(t *testing.T) {
	cfg := createDefaultConfig().(*Config)
	cfg.FlowTableSize = 2
	r, err := newNetworkReceiver(receivertest.NewNopSettings(metadata.Type), cfg)
	require.NoError(t, err)
	for i := range 6 {
		k := udpOut
		k.Sport = uint16(i % 3)
		r.addOverflow(&network.NetworkEvent{Key: k, Flow: network.NetworkFlow{
			Packets: 1, Bytes: 100, FirstNs: uint64(10 + i), LastNs: uint64(10 + i),
		}})
	}
	require.Equal(t, 2, r.overflow.len())
	first := udpOut
	first.Sport = 0
	sum, ok := r.overflow.take(&first)
	assert.True(t, ok)
	assert.Equal(t, network.NetworkFlow{Packets: 2, Bytes: 200, FirstNs: 10, LastNs: 13}, sum)
	assert.EqualValues(t, 2, r.lostPackets)
	assert.EqualValues(t, 200, r.lostBytes)
}

func TestMergeKnowsASYNThatWasSentAgain(t *testing.T) {
	one := network.NetworkFlow{Packets: 1, Connections: 1, ClientIsn: 5}
	assert.EqualValues(t, 1, merge(one, one).Connections)
	assert.EqualValues(t, 2, merge(one, network.NetworkFlow{Packets: 1, Connections: 1, ClientIsn: 6}).Connections)
}

// statusHost keeps the statuses that are reported to it.
type statusHost struct {
	component.Host
	events []*componentstatus.Event
}

func (h *statusHost) Report(e *componentstatus.Event) { h.events = append(h.events, e) }

func TestAHostThatCannotBeWatchedIsAPermanentError(t *testing.T) {
	cfg := kernelConfig(t)
	cfg.Attach.Mode = modeCgroup
	cfg.Attach.CgroupPath = "/proc"
	r, err := NewFactory().CreateLogs(t.Context(), receivertest.NewNopSettings(metadata.Type), cfg, consumertest.NewNop())
	require.NoError(t, err)
	host := &statusHost{Host: componenttest.NewNopHost()}
	err = r.Start(t.Context(), host)
	require.ErrorContains(t, err, "/proc")
	require.Len(t, host.events, 1)
	assert.Equal(t, componentstatus.StatusPermanentError, host.events[0].Status())
	assert.NoError(t, r.Shutdown(t.Context()))
}

func TestShutdownWithoutStart(t *testing.T) {
	r, err := NewFactory().CreateLogs(t.Context(), receivertest.NewNopSettings(metadata.Type), createDefaultConfig(), consumertest.NewNop())
	require.NoError(t, err)
	assert.NoError(t, r.Shutdown(t.Context()))
}
