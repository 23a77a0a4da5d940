package orb8queryextension

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

func flowsResponse(result *storage.FlowResult) *orb8v1.QueryFlowsResponse {
	flows, labels := make([]*orb8v1.Flow, len(result.Flows)), labelSets{}
	for i := range flows {
		flows[i] = rowMessage(&result.Flows[i], labels)
		// Of many rows the other ends alone are a lot of memory.
		result.Flows[i].Other = nil
	}
	return &orb8v1.QueryFlowsResponse{
		Flows:        flows,
		Lost:         lossMessage(result.Lost),
		Truncated:    result.Next != "",
		Matched:      uint64(result.Matched),
		Oldest:       timestamppb.New(result.Oldest),
		MissingNodes: result.MissingNodes,
	}
}

func flowMessage(r *flow.Record, labels labelSets) *orb8v1.Flow {
	return &orb8v1.Flow{
		Start: timestamppb.New(r.Start),
		End:   timestamppb.New(r.End),
		Node:  r.Node,
		// The numbers of these enumerations are the model's; a test holds them together.
		Direction:    orb8v1.Direction(r.Direction),
		Transport:    r.Transport.String(),
		Source:       endpointMessage(&r.Source, labels),
		Destination:  endpointMessage(&r.Destination, labels),
		Bytes:        r.Bytes,
		Packets:      r.Packets,
		Connections:  r.Connections,
		ConnectionId: r.ConnectionID(),
		Lost:         r.LostPackets,
		Interfaces:   r.Interfaces,
		IcmpType:     uint32(r.ICMPType),
		IcmpCode:     uint32(r.ICMPCode),
		TcpFlags:     uint32(r.TCPFlags),
		Ended:        r.Ended,
		Srtt:         durationMessage(r.SRTT),
		MinRtt:       durationMessage(r.MinRTT),
		Handshake:    durationMessage(r.Handshake),
		Retransmits:  r.Retransmits,
		ZeroWindows:  r.ZeroWindows,
		Outcome:      r.Outcome.String(),
		Initiator:    orb8v1.Initiator(r.Initiator),
	}
}

// durationMessage leaves out what is not known.
func durationMessage(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// labelSets are the labels of a reply's pods by how records have them, so that messages of pods with the same ones share them: a map of
// its own for each end would be a third of a large reply. A nil one keeps nothing.
type labelSets map[string]map[string]string

func (s labelSets) parse(labels string) map[string]string {
	if parsed, known := s[labels]; known || labels == "" {
		return parsed
	}
	parsed := flow.ParseLabels(labels)
	if s != nil {
		s[labels] = parsed
	}
	return parsed
}

func endpointMessage(e *flow.Endpoint, labels labelSets) *orb8v1.Endpoint {
	return &orb8v1.Endpoint{
		Address:      e.Addr.Addr().String(),
		Port:         uint32(e.Addr.Port()),
		Container:    e.Identity.Container,
		ContainerId:  e.Identity.ContainerID,
		PodUid:       e.Identity.PodUID,
		Pod:          e.Identity.Pod,
		Namespace:    e.Identity.Namespace,
		Cgroup:       e.Identity.Cgroup,
		Process:      e.Identity.Process,
		Pid:          e.Identity.PID,
		Name:         e.Name,
		Workload:     e.Identity.Workload,
		WorkloadKind: e.Identity.WorkloadKind,
		Service:      e.Identity.Service,
		Node:         e.Identity.KubernetesNode,
		Labels:       labels.parse(e.Identity.Labels),
	}
}

func lossMessage(l storage.Loss) *orb8v1.Loss {
	return &orb8v1.Loss{Packets: l.Packets, Bytes: l.Bytes, Events: l.Events, Calls: l.Calls, EvictedRecords: l.EvictedRecords}
}

func eventResponse(e storage.Event, dropped uint64) *orb8v1.StreamEventsResponse {
	response := &orb8v1.StreamEventsResponse{Kind: orb8v1.EventKind(e.Kind()), Dropped: dropped}
	switch {
	case e.Syscall != nil:
		response.Time, response.Syscall = timestamppb.New(e.Syscall.Time), syscallEventMessage(e.Syscall)
	case e.Anomaly != nil:
		response.Time, response.Anomaly = timestamppb.New(e.Anomaly.Time), anomalyMessage(e.Anomaly)
	case e.Flow.Lookup != nil:
		response.Time, response.Dns = timestamppb.New(e.Flow.End), lookupMessage(e.Flow.Lookup, nil)
	default:
		response.Time, response.Flow = timestamppb.New(e.Flow.End), flowMessage(&e.Flow.Record, nil)
	}
	return response
}

func statusResponse(status *storage.Status, version string) *orb8v1.GetStatusResponse {
	nodes := make([]*orb8v1.NodeStatus, len(status.Nodes))
	for i := range nodes {
		nodes[i] = nodeMessage(&status.Nodes[i])
	}
	return &orb8v1.GetStatusResponse{
		Nodes: nodes,
		Store: &orb8v1.StoreStatus{
			Backend:         status.Store.Backend,
			Records:         status.Store.Records,
			Bytes:           status.Store.Bytes,
			MaxBytes:        status.Store.MaxBytes,
			HeadBytes:       status.Store.HeadBytes,
			Oldest:          timestamppb.New(status.Store.Oldest),
			EvictedRecords:  status.Store.EvictedRecords,
			Subscribers:     uint32(status.Store.Subscribers),
			SubscriberDrops: status.Store.SubscriberDrops,
		},
		Version: version,
	}
}

func nodeMessage(n *storage.NodeStatus) *orb8v1.NodeStatus {
	return &orb8v1.NodeStatus{
		Node:     n.Node,
		Version:  n.Version,
		Kernel:   n.Kernel,
		LastSeen: timestamppb.New(n.LastSeen),
		Started:  timestamppb.New(n.Started),
		Missing:  n.Missing,
		Network:  networkMessage(n.Network),
		Syscalls: syscallStatusMessage(n.Syscalls),
		Gpu:      gpuStatusMessage(n.GPU),
	}
}

func networkMessage(n *flow.NetworkStatus) *orb8v1.NetworkStatus {
	if n == nil {
		return nil
	}
	return &orb8v1.NetworkStatus{
		AttachMode:            n.AttachMode,
		AttachPoints:          n.AttachPoints,
		Packets:               n.Packets,
		Bytes:                 n.Bytes,
		LiveFlows:             n.LiveFlows,
		Lost:                  lossMessage(storage.Loss{Packets: n.LostPackets, Bytes: n.LostBytes, Events: n.LostEvents}),
		RingBufferBytes:       n.RingBufferBytes,
		RingBufferUtilization: n.RingBufferUtilization,
		FlowTableSize:         n.FlowTableSize,
		FlowTableEntries:      n.FlowTableEntries,
		Interval:              durationpb.New(n.Interval),
		UnparsedPackets:       n.UnparsedPackets,
		Drops:                 dropMessages(n.Drops),
		Unavailable:           n.Unavailable,
		PacketsPerSecond:      n.PacketsPerSecond,
		BytesPerSecond:        n.BytesPerSecond,
		Probes:                probeMessages(n.Probes),
	}
}

func probeMessages(costs []flow.ProbeCost) []*orb8v1.ProbeCost {
	probes := make([]*orb8v1.ProbeCost, len(costs))
	for i, c := range costs {
		probes[i] = &orb8v1.ProbeCost{Program: c.Program, Runs: c.Runs, RunTime: durationpb.New(c.RunTime)}
	}
	return probes
}

// dropMessages are in an order that equal sums have every time.
func dropMessages(byReason map[string]uint64) []*orb8v1.Drops {
	drops := make([]*orb8v1.Drops, 0, len(byReason))
	for reason, packets := range byReason {
		drops = append(drops, &orb8v1.Drops{Reason: reason, Packets: packets})
	}
	slices.SortFunc(drops, func(a, b *orb8v1.Drops) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Reason, b.Reason))
	})
	return drops
}
