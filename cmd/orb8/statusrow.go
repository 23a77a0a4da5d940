package main

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// nodeRow is a node as a line. It is JSON to those formats that have a line for each.
func nodeRow(n *orb8v1.NodeStatus) row {
	return row{time: n.GetLastSeen().AsTime(), node: n, json: newJSONNode(n)}
}

// nodeColumns show a node in a line: of a cluster of many it tells which to look at.
func nodeColumns(now time.Time) []column {
	network := func(text func(*orb8v1.NetworkStatus) string) func(row) string {
		return func(r row) string {
			if r.node.GetNetwork() == nil {
				return ""
			}
			return text(r.node.GetNetwork())
		}
	}
	calls := func(text func(*orb8v1.SyscallStatus) string) func(row) string {
		return func(r row) string {
			if r.node.GetSyscalls() == nil {
				return ""
			}
			return text(r.node.GetSyscalls())
		}
	}
	loud := func(count func(row) uint64) func(row) string {
		return func(r row) string {
			if count(r) > 0 {
				return styleRed
			}
			return ""
		}
	}
	lostPackets := func(r row) uint64 { return r.node.GetNetwork().GetLost().GetPackets() }
	lostCalls := func(r row) uint64 { return r.node.GetSyscalls().GetLost().GetCalls() }
	return []column{
		{title: "NODE", text: func(r row) string { return r.node.GetNode() }},
		{
			title: "STATE", text: func(r row) string {
				if r.node.GetMissing() {
					return "MISSING"
				}
				return "ok"
			},
			style: func(r row) string {
				if r.node.GetMissing() {
					return styleRed
				}
				return styleGreen
			},
		},
		{title: "SEEN", right: true, text: func(r row) string { return humanAge(now.Sub(r.node.GetLastSeen().AsTime())) }},
		{title: "UP", right: true, text: func(r row) string {
			return humanAge(r.node.GetLastSeen().AsTime().Sub(r.node.GetStarted().AsTime()))
		}},
		{title: "MODE", text: network((*orb8v1.NetworkStatus).GetAttachMode)},
		{title: "PKTS/S", right: true, text: network(func(n *orb8v1.NetworkStatus) string { return rounded(n.GetPacketsPerSecond()) })},
		{title: "BYTES/S", right: true, text: network(func(n *orb8v1.NetworkStatus) string { return joined(humanBytes(uint64(n.GetBytesPerSecond()))) })},
		{title: "FLOWS", right: true, text: network(func(n *orb8v1.NetworkStatus) string { return humanCount(n.GetLiveFlows()) })},
		{title: "TABLE", right: true, text: network(func(n *orb8v1.NetworkStatus) string {
			return joined(share(n.GetFlowTableEntries(), n.GetFlowTableSize()))
		})},
		{title: "RING", right: true, text: network(func(n *orb8v1.NetworkStatus) string { return joined(percent(n.GetRingBufferUtilization())) })},
		{title: "LOST-PKTS", right: true, style: loud(lostPackets), text: func(r row) string { return humanCount(lostPackets(r)) }},
		{title: "LOST-EVENTS", right: true, text: func(r row) string {
			return humanCount(r.node.GetNetwork().GetLost().GetEvents() + r.node.GetSyscalls().GetLost().GetEvents())
		}},
		{title: "CALLS/S", right: true, text: calls(func(s *orb8v1.SyscallStatus) string { return rounded(s.GetCallsPerSecond()) })},
		{title: "LOST-CALLS", right: true, style: loud(lostCalls), text: func(r row) string { return humanCount(lostCalls(r)) }},
		{title: "GPUS", right: true, text: func(r row) string {
			if r.node.GetGpu() == nil {
				return ""
			}
			return humanCount(gpuTotal(r.node.GetGpu()))
		}},
		{title: "AGENT", text: func(r row) string { return r.node.GetVersion() }},
		{title: "KERNEL", text: func(r row) string { return r.node.GetKernel() }},
		{title: "UNAVAILABLE", text: unavailableNames},
	}
}

// rounded is a rate in few letters.
func rounded(rate float64) string {
	if rate > 0 && rate < 9.95 {
		return strconv.FormatFloat(rate, 'f', 1, 64)
	}
	return humanCount(uint64(rate + 0.5))
}

// joined takes out the blanks, which would shift what awk and cut take for columns.
func joined(s string) string { return strings.ReplaceAll(s, " ", "") }

// unavailableNames are the features that a node's host does not allow.
func unavailableNames(r row) string {
	names := slices.Concat(
		slices.Collect(maps.Keys(r.node.GetNetwork().GetUnavailable())), slices.Collect(maps.Keys(r.node.GetSyscalls().GetUnavailable())),
		unavailableSources(r.node.GetGpu()),
	)
	slices.Sort(names)
	return strings.Join(names, ",")
}
