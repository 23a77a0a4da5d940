package ebpfnetworkreceiver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/metadata"
)

// refuse is a DNS server that answers every query with REFUSED, and leaves those for silence.example.com unanswered.
func refuse(t *testing.T) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	done := make(chan struct{})
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		<-done
	})
	go func() {
		defer close(done)
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || m.Questions[0].Name.String() == "silence.example.com." {
				continue
			}
			m.Response, m.RCode = true, dnsmessage.RCodeRefused
			if answer, err := m.Pack(); err == nil {
				_, _ = conn.WriteToUDPAddrPort(answer, from)
			}
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// query asks the server and, if it is to answer, waits until it has.
func query(t *testing.T, server netip.AddrPort, name string, answered bool) {
	t.Helper()
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(server))
	require.NoError(t, err)
	defer conn.Close()
	b, err := (&dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 77},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}).Pack()
	require.NoError(t, err)
	_, err = conn.Write(b)
	require.NoError(t, err)
	if answered {
		_, err = conn.Read(make([]byte, 512))
		require.NoError(t, err)
	}
}

func TestLookupsOfTheKernel(t *testing.T) {
	cfg := kernelConfig(t)
	server := refuse(t)
	cfg.DNS.Ports, cfg.DNS.Timeout = []uint16{server.Port()}, minDNSTimeout
	f := NewFactory()
	set := receivertest.NewNopSettings(metadata.Type)
	logs, metrics := &consumertest.LogsSink{}, &consumertest.MetricsSink{}
	lr, err := f.CreateLogs(t.Context(), set, cfg, logs)
	require.NoError(t, err)
	mr, err := f.CreateMetrics(t.Context(), set, cfg, metrics)
	require.NoError(t, err)
	require.NoError(t, lr.Start(t.Context(), componenttest.NewNopHost()))
	require.NoError(t, mr.Start(t.Context(), componenttest.NewNopHost()))
	t.Cleanup(func() { assert.NoError(t, lr.Shutdown(context.Background())) })

	query(t, server, "www.example.com", true)
	query(t, server, "silence.example.com", false)
	lookups := func() map[string]flow.Lookup {
		seen := map[string]flow.Lookup{}
		eachLog(logs, flow.EventNameLookup, func(res plog.ResourceLogs, lr plog.LogRecord) {
			l, err := flow.LookupFrom(res.Resource(), lr)
			require.NoError(t, err)
			seen[l.Name+" "+l.Direction.String()] = l
		})
		return seen
	}
	require.Eventually(t, func() bool { return len(lookups()) == 4 }, patience, 10*time.Millisecond)
	for key, rcode := range map[string]string{
		"www.example.com egress": "REFUSED", "www.example.com ingress": "REFUSED",
		"silence.example.com egress": flow.RCodeTimeout, "silence.example.com ingress": flow.RCodeTimeout,
	} {
		l := lookups()[key]
		assert.Equal(t, rcode, l.RCode, key)
		assert.Equal(t, "A", l.Type, key)
		assert.Equal(t, server, l.Server.Addr, key)
		assert.EqualValues(t, 1, l.Queries, key)
		assert.Positive(t, l.Latency, key)
		assert.EqualValues(t, os.Getpid(), l.Local().Identity.PID, key)
		assert.NotZero(t, l.Local().Identity.CgroupID, key)
		assert.WithinDuration(t, time.Now(), l.Time, time.Minute, key)
	}
	assert.GreaterOrEqual(t, lookups()["silence.example.com egress"].Latency, minDNSTimeout)

	counted := func() map[string]int64 {
		counts := map[string]int64{}
		if all := metrics.AllMetrics(); len(all) > 0 {
			eachPoint(all[len(all)-1], "orb8.dns.lookups", func(dp pmetric.NumberDataPoint) {
				a := dp.Attributes().AsRaw()
				counts[a["orb8.flow.direction"].(string)+" "+a["orb8.dns.question.type"].(string)+" "+a["orb8.dns.response_code"].(string)] = dp.IntValue()
			})
		}
		return counts
	}
	want := map[string]int64{"egress A REFUSED": 1, "ingress A REFUSED": 1, "egress A timeout": 1, "ingress A timeout": 1}
	require.Eventually(t, func() bool { return assert.ObjectsAreEqual(want, counted()) }, patience, 10*time.Millisecond)
	var seconds float64
	eachPoint(metrics.AllMetrics()[len(metrics.AllMetrics())-1], "orb8.dns.lookup.duration", func(dp pmetric.NumberDataPoint) {
		seconds += dp.DoubleValue()
		assert.Less(t, dp.StartTimestamp(), dp.Timestamp())
	})
	assert.GreaterOrEqual(t, seconds, 2*minDNSTimeout.Seconds())
}

func eachPoint(md pmetric.Metrics, name string, f func(pmetric.NumberDataPoint)) {
	for _, rm := range md.ResourceMetrics().All() {
		for _, m := range rm.ScopeMetrics().At(0).Metrics().All() {
			if m.Name() == name {
				for _, dp := range m.Sum().DataPoints().All() {
					f(dp)
				}
			}
		}
	}
}

func TestWithoutDNS(t *testing.T) {
	cfg := kernelConfig(t)
	server := refuse(t)
	cfg.DNS = DNSConfig{Ports: []uint16{server.Port()}}
	sink := &consumertest.LogsSink{}
	r := startLogs(t, cfg, sink)
	query(t, server, "www.example.com", true)
	require.NoError(t, r.Shutdown(t.Context()))
	eachLog(sink, flow.EventNameLookup, func(plog.ResourceLogs, plog.LogRecord) { t.Error("a lookup") })
}

func TestLookupSeries(t *testing.T) {
	c := newLookupCounter(time.Second)
	now := time.Now()
	lookup := func(cgroup uint64, kind, rcode string) *flow.Lookup {
		return &flow.Lookup{
			Time: now.Add(-time.Minute), Direction: flow.Egress, Type: kind, RCode: rcode, Latency: 250 * time.Millisecond,
			Client: flow.Endpoint{Identity: flow.Identity{CgroupID: cgroup}},
		}
	}
	for range 3 {
		c.add(lookup(7, "A", "NOERROR"), now)
	}
	// Anybody may send any number: they make one series.
	c.add(lookup(7, "TYPE61", "NOERROR"), now)
	c.add(lookup(7, "TYPE62", "NOERROR"), now)
	c.add(lookup(7, "A", "RCODE12"), now)
	c.add(lookup(8, "A", "NOERROR"), now.Add(-seriesTimeout))

	mb := metadata.NewMetricsBuilder(metadata.NewDefaultMetricsBuilderConfig(), receivertest.NewNopSettings(metadata.Type))
	c.record(mb, now)
	md := mb.Emit()
	counts, seconds := map[string]int64{}, map[string]float64{}
	label := func(dp pmetric.NumberDataPoint) string {
		a := dp.Attributes().AsRaw()
		return a["orb8.dns.question.type"].(string) + " " + a["orb8.dns.response_code"].(string)
	}
	eachPoint(md, "orb8.dns.lookups", func(dp pmetric.NumberDataPoint) { counts[label(dp)] = dp.IntValue() })
	eachPoint(md, "orb8.dns.lookup.duration", func(dp pmetric.NumberDataPoint) { seconds[label(dp)] = dp.DoubleValue() })
	assert.Equal(t, map[string]int64{"A NOERROR": 3, "other NOERROR": 2, "A other": 1}, counts, "a silent cgroup's series are gone")
	assert.Equal(t, map[string]float64{"A NOERROR": 0.75, "other NOERROR": 0.5, "A other": 0.25}, seconds)
	discarded := 0
	eachPoint(md, "orb8.dns.discarded", func(pmetric.NumberDataPoint) { discarded++ })
	assert.Equal(t, 3, discarded, "malformed, unmatched, overflow: 0 is a value")
}
