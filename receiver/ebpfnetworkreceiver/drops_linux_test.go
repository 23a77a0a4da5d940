package ebpfnetworkreceiver

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/sharedcomponent"
	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/metadata"
)

// sendToNobody sends n datagrams to a port of the loopback that is closed, and returns whose they are.
func sendToNobody(t *testing.T, n int) (from, to netip.AddrPort) {
	t.Helper()
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	to = server.LocalAddr().(*net.UDPAddr).AddrPort()
	require.NoError(t, server.Close())
	client, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer client.Close()
	for range n {
		_, err := client.WriteToUDPAddrPort(nil, to)
		require.NoError(t, err)
	}
	return client.LocalAddr().(*net.UDPAddr).AddrPort(), to
}

func TestDropsAreReported(t *testing.T) {
	cfg := kernelConfig(t)
	f, set := NewFactory(), receivertest.NewNopSettings(metadata.Type)
	logs, metrics := &consumertest.LogsSink{}, &consumertest.MetricsSink{}
	r, err := f.CreateLogs(t.Context(), set, cfg, logs)
	require.NoError(t, err)
	_, err = f.CreateMetrics(t.Context(), set, cfg, metrics)
	require.NoError(t, err)
	require.NoError(t, r.Start(t.Context(), componenttest.NewNopHost()))
	t.Cleanup(func() { assert.NoError(t, r.Shutdown(context.Background())) })
	source := r.(*sharedcomponent.Component[*networkReceiver]).Inner.drops.source
	testutil.Require(t, "drops", source != nil, "drops cannot be counted here")
	from, to := sendToNobody(t, 9)
	var packets int64
	require.Eventually(t, func() bool {
		packets = 0
		eachLog(logs, flow.EventNameDrop, func(_ plog.ResourceLogs, lr plog.LogRecord) {
			if attr := lr.Attributes().AsRaw(); attr["source.port"] == int64(from.Port()) && attr["destination.port"] == int64(to.Port()) {
				assert.Equal(t, "no_socket", attr["orb8.drop.reason"])
				assert.Equal(t, "udp", attr["network.transport"])
				assert.NotZero(t, lr.Timestamp())
				packets += attr["orb8.drop.packets"].(int64)
			}
		})
		return packets >= 9
	}, patience, 10*time.Millisecond)
	assert.EqualValues(t, 9, packets)
	require.NoError(t, r.Shutdown(t.Context()))

	var status flow.NetworkStatus
	eachLog(logs, flow.EventNameStatus, func(res plog.ResourceLogs, lr plog.LogRecord) {
		status = flow.StatusFrom(res.Resource(), lr)
	})
	assert.GreaterOrEqual(t, status.Drops["no_socket"], uint64(9))
	assert.NotContains(t, status.Unavailable, "drops")
	all := metrics.AllMetrics()
	assert.EqualValues(t, status.Drops["no_socket"], dropPoints(all[len(all)-1])["no_socket"])
}

// dropPoints sums the points of orb8.network.drops by reason.
func dropPoints(md pmetric.Metrics) map[string]int64 {
	sums := map[string]int64{}
	for _, rm := range md.ResourceMetrics().All() {
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			if m.Name() != "orb8.network.drops" {
				continue
			}
			for _, dp := range m.Sum().DataPoints().All() {
				reason, _ := dp.Attributes().Get("orb8.drop.reason")
				sums[reason.Str()] += dp.IntValue()
			}
		}
	}
	return sums
}

func TestDropsAreLeftOutWhereTheyAreNotWanted(t *testing.T) {
	cfg := kernelConfig(t)
	cfg.Drops.Enabled = false
	sink := &consumertest.LogsSink{}
	r := startLogs(t, cfg, sink)
	sendToNobody(t, 3)
	require.NoError(t, r.Shutdown(t.Context()))
	eachLog(sink, flow.EventNameDrop, func(_ plog.ResourceLogs, lr plog.LogRecord) {
		assert.Fail(t, "a drop", "%v", lr.Attributes().AsRaw())
	})
}

var (
	start   = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	dropped = flow.Drop{
		Reason: "no_socket", Packets: 2, CgroupID: 77, Transport: flow.UDP,
		Source: netip.MustParseAddrPort("10.0.0.1:4000"), Destination: netip.MustParseAddrPort("10.0.0.2:53"),
	}
)

func (c *dropCounter) take(at time.Time, drops ...flow.Drop) {
	for _, d := range drops {
		d.Time = at
		c.add(&d)
	}
	c.end(at)
}

func TestDropsAddUp(t *testing.T) {
	c := newDropCounter(nil, start)
	other, unknown := dropped, flow.Drop{Reason: "no_socket", Packets: 5}
	other.Destination, other.Packets = netip.MustParseAddrPort("10.0.0.3:53"), 1
	c.take(start.Add(time.Second), dropped, other, unknown)
	c.take(start.Add(2*time.Second), dropped, flow.Drop{Reason: "missed", Packets: 1})

	assert.Equal(t, map[string]uint64{"no_socket": 10, "missed": 1}, c.totals)
	mb := metadata.NewMetricsBuilder(metadata.NewDefaultMetricsBuilderConfig(), receivertest.NewNopSettings(metadata.Type))
	c.record(mb, pcommon.NewTimestampFromTime(start.Add(2*time.Second)))
	type point struct {
		cgroup            int64
		reason, transport string
	}
	got := map[point]int64{}
	for _, rm := range mb.Emit().ResourceMetrics().All() {
		var p point
		if id, ok := rm.Resource().Attributes().Get(flow.AttrCgroupID); ok {
			p.cgroup = id.Int()
		}
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			for _, dp := range m.Sum().DataPoints().All() {
				assert.GreaterOrEqual(t, dp.StartTimestamp().AsTime(), start)
				assert.Less(t, dp.StartTimestamp(), dp.Timestamp())
				p.reason, p.transport = dp.Attributes().AsRaw()["orb8.drop.reason"].(string), ""
				if transport, ok := dp.Attributes().Get("network.transport"); ok {
					p.transport = transport.Str()
				}
				got[p] = dp.IntValue()
			}
		}
	}
	assert.Equal(t, map[point]int64{
		{77, "no_socket", "udp"}: 5, {0, "no_socket", ""}: 5, {0, "missed", ""}: 1,
	}, got)
}

func TestSilentSeriesOfDropsEnd(t *testing.T) {
	c := newDropCounter(nil, start)
	late := dropped
	late.Reason = "netfilter_drop"
	c.take(start.Add(time.Second), dropped)
	c.take(start.Add(seriesTimeout), late)
	assert.Len(t, c.series, 2)
	c.take(start.Add(time.Second + seriesTimeout))
	assert.Len(t, c.series, 1)
	assert.Equal(t, map[string]uint64{"no_socket": 2, "netfilter_drop": 2}, c.totals, "sums since the start stay")

	c.take(start.Add(2*seriesTimeout), dropped)
	for k, s := range c.series {
		if k.reason == dropped.Reason {
			assert.Equal(t, start.Add(time.Second+seriesTimeout), s.start, "a new series, from the last report on")
			assert.EqualValues(t, 2, s.packets)
		}
	}
}

func BenchmarkDropsAddUp(b *testing.B) {
	c := newDropCounter(nil, start)
	b.ReportAllocs()
	for b.Loop() {
		c.add(&dropped)
	}
}
