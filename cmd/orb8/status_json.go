package main

import (
	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// jsonStatus is a status as JSON, with numbers as numbers as in jsonFlow.
type jsonStatus struct {
	Version string     `json:"version"`
	Nodes   []jsonNode `json:"nodes"`
	Store   *jsonStore `json:"store,omitempty"`
}

type jsonNode struct {
	Node     string       `json:"node"`
	Version  string       `json:"version"`
	Kernel   string       `json:"kernel"`
	Started  string       `json:"started,omitempty"`
	LastSeen string       `json:"lastSeen,omitempty"`
	Missing  bool         `json:"missing"`
	Network  *jsonNetwork `json:"network,omitempty"`

	Syscalls *jsonSyscallStatus `json:"syscalls,omitempty"`
	GPU      *jsonGPUStatus     `json:"gpu,omitempty"`
}

type jsonNetwork struct {
	AttachMode            string   `json:"attachMode"`
	AttachPoints          uint32   `json:"attachPoints"`
	Packets               uint64   `json:"packets"`
	Bytes                 uint64   `json:"bytes"`
	UnparsedPackets       uint64   `json:"unparsedPackets"`
	LiveFlows             uint64   `json:"liveFlows"`
	Lost                  jsonLoss `json:"lost"`
	RingBufferBytes       uint64   `json:"ringBufferBytes"`
	RingBufferUtilization float64  `json:"ringBufferUtilization"`
	FlowTableSize         uint64   `json:"flowTableSize"`
	FlowTableEntries      uint64   `json:"flowTableEntries"`
	IntervalSeconds       float64  `json:"intervalSeconds"`

	PacketsPerSecond float64 `json:"packetsPerSecond"`
	BytesPerSecond   float64 `json:"bytesPerSecond"`

	Drops       []jsonDrops       `json:"drops"`
	Probes      []jsonProbe       `json:"probes,omitempty"`
	Unavailable map[string]string `json:"unavailable,omitempty"`
}

type jsonSyscallStatus struct {
	Calls                 uint64       `json:"calls"`
	Lost                  jsonCallLoss `json:"lost"`
	Cgroups               uint64       `json:"cgroups"`
	RingBufferBytes       uint64       `json:"ringBufferBytes"`
	RingBufferUtilization float64      `json:"ringBufferUtilization"`
	IntervalSeconds       float64      `json:"intervalSeconds"`
	Thinning              uint32       `json:"thinning"`
	Latency               bool         `json:"latency"`
	CallsPerSecond        float64      `json:"callsPerSecond"`

	Probes      []jsonProbe       `json:"probes,omitempty"`
	Unavailable map[string]string `json:"unavailable,omitempty"`
}

type jsonProbe struct {
	Program        string  `json:"program"`
	Runs           uint64  `json:"runs"`
	RunTimeSeconds float64 `json:"runTimeSeconds"`
}

type jsonCallLoss struct {
	Calls  uint64 `json:"calls"`
	Events uint64 `json:"events"`
}

type jsonDrops struct {
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
}

type jsonLoss struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	Events  uint64 `json:"events"`
}

// jsonStore leaves out what a log engine alone knows.
type jsonStore struct {
	Backend         string  `json:"backend"`
	Records         *uint64 `json:"records,omitempty"`
	Bytes           *uint64 `json:"bytes,omitempty"`
	MaxBytes        *uint64 `json:"maxBytes,omitempty"`
	HeadBytes       *uint64 `json:"headBytes,omitempty"`
	Oldest          string  `json:"oldest,omitempty"`
	EvictedRecords  *uint64 `json:"evictedRecords,omitempty"`
	Subscribers     uint32  `json:"subscribers"`
	SubscriberDrops uint64  `json:"subscriberDrops"`
}

func newJSONStatus(s *orb8v1.GetStatusResponse) jsonStatus {
	j := jsonStatus{Version: s.GetVersion(), Nodes: []jsonNode{}}
	for _, n := range s.GetNodes() {
		j.Nodes = append(j.Nodes, newJSONNode(n))
	}
	if store := s.GetStore(); store != nil {
		j.Store = &jsonStore{
			Backend:         store.GetBackend(),
			Oldest:          rfc3339(store.GetOldest()),
			Subscribers:     store.GetSubscribers(),
			SubscriberDrops: store.GetSubscriberDrops(),
		}
		if store.GetMaxBytes() > 0 {
			j.Store.Records, j.Store.EvictedRecords = &store.Records, &store.EvictedRecords
			j.Store.Bytes, j.Store.MaxBytes = &store.Bytes, &store.MaxBytes
			j.Store.HeadBytes = &store.HeadBytes
		}
	}
	return j
}

func newJSONNode(n *orb8v1.NodeStatus) jsonNode {
	return jsonNode{
		Node:     n.GetNode(),
		Version:  n.GetVersion(),
		Kernel:   n.GetKernel(),
		Started:  rfc3339(n.GetStarted()),
		LastSeen: rfc3339(n.GetLastSeen()),
		Missing:  n.GetMissing(),
		Network:  newJSONNetwork(n.GetNetwork()),
		Syscalls: newJSONSyscallStatus(n.GetSyscalls()),
		GPU:      newJSONGPUStatus(n.GetGpu()),
	}
}

func newJSONSyscallStatus(s *orb8v1.SyscallStatus) *jsonSyscallStatus {
	if s == nil {
		return nil
	}
	return &jsonSyscallStatus{
		Calls:                 s.GetCalls(),
		Lost:                  jsonCallLoss{Calls: s.GetLost().GetCalls(), Events: s.GetLost().GetEvents()},
		Cgroups:               s.GetCgroups(),
		RingBufferBytes:       s.GetRingBufferBytes(),
		RingBufferUtilization: s.GetRingBufferUtilization(),
		IntervalSeconds:       s.GetInterval().AsDuration().Seconds(),
		Thinning:              s.GetThinning(),
		Latency:               s.GetLatency(),
		CallsPerSecond:        s.GetCallsPerSecond(),
		Probes:                newJSONProbes(s.GetProbes()),
		Unavailable:           s.GetUnavailable(),
	}
}

func newJSONProbes(costs []*orb8v1.ProbeCost) []jsonProbe {
	var probes []jsonProbe
	for _, c := range costs {
		probes = append(probes, jsonProbe{Program: c.GetProgram(), Runs: c.GetRuns(), RunTimeSeconds: c.GetRunTime().AsDuration().Seconds()})
	}
	return probes
}

func newJSONNetwork(n *orb8v1.NetworkStatus) *jsonNetwork {
	if n == nil {
		return nil
	}
	drops := make([]jsonDrops, 0, len(n.GetDrops()))
	for _, d := range n.GetDrops() {
		drops = append(drops, jsonDrops{Reason: d.GetReason(), Packets: d.GetPackets()})
	}
	return &jsonNetwork{
		AttachMode:      n.GetAttachMode(),
		AttachPoints:    n.GetAttachPoints(),
		Packets:         n.GetPackets(),
		Bytes:           n.GetBytes(),
		UnparsedPackets: n.GetUnparsedPackets(),
		LiveFlows:       n.GetLiveFlows(),
		Lost: jsonLoss{
			Packets: n.GetLost().GetPackets(),
			Bytes:   n.GetLost().GetBytes(),
			Events:  n.GetLost().GetEvents(),
		},
		RingBufferBytes:       n.GetRingBufferBytes(),
		RingBufferUtilization: n.GetRingBufferUtilization(),
		FlowTableSize:         n.GetFlowTableSize(),
		FlowTableEntries:      n.GetFlowTableEntries(),
		IntervalSeconds:       n.GetInterval().AsDuration().Seconds(),
		Drops:                 drops,
		PacketsPerSecond:      n.GetPacketsPerSecond(),
		BytesPerSecond:        n.GetBytesPerSecond(),
		Probes:                newJSONProbes(n.GetProbes()),
		Unavailable:           n.GetUnavailable(),
	}
}
