package flow

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

func TestDropAsALogRecord(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	tests := map[string]struct {
		drop Drop
		want map[string]any
	}{
		"detailed": {
			Drop{
				Time: at, Reason: "socket_rcvbuff", Packets: 7, Transport: UDP, CgroupID: 42,
				Source: netip.MustParseAddrPort("10.0.0.1:4000"), Destination: netip.MustParseAddrPort("10.0.0.2:53"),
			},
			map[string]any{
				"orb8.drop.reason": "socket_rcvbuff", "orb8.drop.packets": int64(7), "network.transport": "udp", "network.type": "ipv4",
				"source.address": "10.0.0.1", "source.port": int64(4000), "destination.address": "10.0.0.2", "destination.port": int64(53),
			},
		},
		"ipv6 without ports": {
			Drop{
				Time: at, Reason: "no_socket", Packets: 1, Transport: ICMPv6,
				Source: netip.MustParseAddrPort("[fe80::1]:0"), Destination: netip.MustParseAddrPort("[ff02::1]:0"),
			},
			map[string]any{
				"orb8.drop.reason": "no_socket", "orb8.drop.packets": int64(1), "network.transport": "ipv6-icmp", "network.type": "ipv6",
				"source.address": "fe80::1", "source.port": int64(0), "destination.address": "ff02::1", "destination.port": int64(0),
			},
		},
		"a reason alone": {
			Drop{Time: at, Reason: "missed", Packets: 3},
			map[string]any{"orb8.drop.reason": "missed", "orb8.drop.packets": int64(3)},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			lr := plog.NewLogRecord()
			tt.drop.PutTo(lr)
			assert.Equal(t, "orb8.network.drop", lr.EventName())
			assert.Equal(t, at, lr.Timestamp().AsTime())
			assert.Equal(t, tt.want, lr.Attributes().AsRaw())
		})
	}
}

func TestStatusCarriesRatesDropsProbesAndWhatIsUnavailable(t *testing.T) {
	for name, want := range map[string]NetworkStatus{
		"none": {},
		"all": {
			Drops:       map[string]uint64{"no_socket": 1 << 40, "missed": 1},
			Unavailable: map[string]string{"process names": "the kernel is too old"},
			Probes:      []ProbeCost{{"cgroup_egress", 1 << 40, time.Hour}, {"dropped", 1, 0}},

			PacketsPerSecond: 0.5, BytesPerSecond: 1e9,
		},
	} {
		t.Run(name, func(t *testing.T) {
			lr := plog.NewLogRecord()
			want.PutTo(lr)
			got := StatusFrom(pcommon.NewResource(), lr)
			assert.Equal(t, want.Drops, got.Drops)
			assert.Equal(t, want.Unavailable, got.Unavailable)
			assert.Equal(t, want.Probes, got.Probes)
			assert.Equal(t, want.PacketsPerSecond, got.PacketsPerSecond)
			assert.Equal(t, want.BytesPerSecond, got.BytesPerSecond)
		})
	}
}
