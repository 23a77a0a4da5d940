//go:build linux

package testbed

import (
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
)

// What the kernel drops in some pod's namespace reaches the status and Prometheus, and both say the same.
func TestDropsReachTheUser(t *testing.T) {
	const datagrams = 40
	l := lab.New(t, lab.Options{})
	c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast()})
	drops, unavailable := dropsOf(t, c)
	testutil.Require(t, "drops", unavailable == "", unavailable)

	before := drops["no_socket"]
	require.NoError(t, l.Client.Do(func() error {
		conn, err := net.ListenUDP("udp4", nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		for range datagrams {
			if _, err := conn.WriteToUDPAddrPort(nil, netip.AddrPortFrom(l.Server.IPv4, 9)); err != nil {
				return err
			}
		}
		return nil
	}))
	var prometheus map[string]uint64
	collector.Await(t, "both count the datagrams to a closed port", func() bool {
		drops, _ = dropsOf(t, c)
		prometheus = dropsFromPrometheus(t, c.Get(c.Prometheus, "/metrics"))
		return drops["no_socket"] >= before+datagrams && prometheus["no_socket"] == drops["no_socket"]
	}, func() any { return []any{before, drops, prometheus} })
}

// dropsOf returns what `orb8 status` says was dropped, by reason, and why it says nothing if that is so.
func dropsOf(t *testing.T, c *collector.Collector) (byReason map[string]uint64, unavailable string) {
	t.Helper()
	stdout, stderr, code := c.CLI("status", "-o", "json")
	require.Zero(t, code, stderr)
	var status struct {
		Nodes []struct {
			Network struct {
				Drops []struct {
					Reason  string
					Packets uint64
				}
				Unavailable map[string]string
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &status))
	require.Len(t, status.Nodes, 1)
	byReason = map[string]uint64{}
	for _, d := range status.Nodes[0].Network.Drops {
		byReason[d.Reason] = d.Packets
	}
	return byReason, status.Nodes[0].Network.Unavailable["drops"]
}

func dropsFromPrometheus(t *testing.T, text string) map[string]uint64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err)
	byReason := map[string]uint64{}
	for _, m := range families["orb8_network_drops_total"].GetMetric() {
		byReason[labels(m)["orb8_drop_reason"]] += uint64(m.GetCounter().GetValue())
	}
	return byReason
}
