package main

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/why"
)

// window is the range of all slots.
func (a *whyAnswer) window() (since, until *timestamppb.Timestamp, slot *durationpb.Duration) {
	in := a.input
	return timestamppb.New(in.Start), timestamppb.New(in.Start.Add(time.Duration(in.Slots) * in.Slot)), durationpb.New(in.Slot)
}

// calls asks which calls the pod made, how long they took, and which have not returned.
func (q *whyQuestion) calls(ctx context.Context, a *whyAnswer) error {
	since, until, slot := a.window()
	filter := &orb8v1.SyscallFilter{Pods: q.of.GetPods(), Containers: q.of.GetContainers()}
	sums, err := call(ctx, q.app, orb8v1connect.OrbitServiceClient.Aggregate, &orb8v1.AggregateRequest{
		Since: since, Until: until, Bucket: slot, Signal: orb8v1.Signal_SIGNAL_SYSCALLS, Syscalls: []*orb8v1.SyscallFilter{filter},
		By: []string{"syscall"}, Measures: []string{"latency", "calls"},
	})
	if err != nil {
		return err
	}
	rows, err := call(ctx, q.app, orb8v1connect.OrbitServiceClient.QuerySyscalls, &orb8v1.QuerySyscallsRequest{
		Since: since, Until: until, Allow: []*orb8v1.SyscallFilter{filter},
	})
	if err != nil {
		return err
	}
	begun, returned := map[string]uint64{}, map[string]uint64{}
	for _, row := range rows.GetSyscalls() {
		if row.GetLatency() == nil {
			continue
		}
		a.input.Latency = true
		begun[row.GetName()] += row.GetCalls()
		for _, n := range row.GetLatency().GetBuckets() {
			returned[row.GetName()] += n
		}
	}
	for _, group := range sums.GetGroups() {
		c := why.Calls{Name: group.GetBy()[0], Made: make([]uint64, a.input.Slots), Took: make([]time.Duration, a.input.Slots)}
		for _, b := range group.GetBuckets() {
			if slot, ok := a.slotOf(b.GetStart()); ok {
				c.Took[slot] += time.Duration(at(b.GetValues(), 0))
				c.Made[slot] += at(b.GetValues(), 1)
			}
		}
		if all, over := begun[c.Name], returned[c.Name]; all > over {
			c.Pending = all - over
		}
		a.input.Calls = append(a.input.Calls, c)
	}
	if sums.GetTruncated() || rows.GetTruncated() {
		a.miss("some system calls: the collector gives no more at once; ask for a shorter range")
	}
	if n := sums.GetLost().GetCalls(); n > 0 {
		a.miss(plural(n, "system call") + " of the range that could not be counted")
	}
	return nil
}

// ends are the filters of what the pod received and sent.
func (q *whyQuestion) ends() (received, sent *orb8v1.FlowFilter) {
	end := &orb8v1.EndpointFilter{Pods: q.of.GetPods(), Containers: q.of.GetContainers()}
	return &orb8v1.FlowFilter{Destination: end}, &orb8v1.FlowFilter{Source: end}
}

func trafficMeasures() []string { return []string{"bytes", "packets", "retransmits"} }

// trafficOf reads what trafficMeasures asked for.
func trafficOf(values []uint64) why.Traffic {
	return why.Traffic{Bytes: at(values, 0), Packets: at(values, 1), Retransmits: at(values, 2)}
}

// traffic asks what the pod received and sent.
func (q *whyQuestion) traffic(ctx context.Context, a *whyAnswer) error {
	a.network = true
	since, until, slot := a.window()
	received, sent := q.ends()
	ask := func(filter *orb8v1.FlowFilter) ([]why.Traffic, error) {
		reply, err := call(ctx, q.app, orb8v1connect.OrbitServiceClient.Aggregate, &orb8v1.AggregateRequest{
			Since: since, Until: until, Bucket: slot, Allow: []*orb8v1.FlowFilter{filter}, Measures: trafficMeasures(),
		})
		if err != nil {
			return nil, err
		}
		all := make([]why.Traffic, a.input.Slots)
		for _, b := range reply.GetTotal().GetBuckets() {
			if slot, ok := a.slotOf(b.GetStart()); ok {
				all[slot] = trafficOf(b.GetValues())
			}
		}
		return all, nil
	}
	var err error
	if a.input.Received, err = ask(received); err != nil {
		return err
	}
	a.input.Sent, err = ask(sent)
	return err
}

// peerDimensions say who the other end is: the first that is known.
func peerDimensions(end string) []string {
	var by []string
	for _, dimension := range []string{"service", "pod", "name", "container", "address"} {
		by = append(by, end+"."+dimension)
	}
	return by
}

func peerName(e *orb8v1.Endpoint) string {
	qualified := func(name string) string {
		if name == "" || e.GetNamespace() == "" {
			return name
		}
		return e.GetNamespace() + "/" + name
	}
	return cmp.Or(qualified(e.GetService()), qualified(e.GetPod()), e.GetName(), e.GetContainer(), e.GetAddress())
}

// peers asks with whom the pod talked while its GPUs were not busy, and how far away they were.
func (q *whyQuestion) peers(ctx context.Context, a *whyAnswer) error {
	since, until, slot := a.window()
	received, sent := q.ends()
	index := map[string]*whyPeer{}
	peer := func(name string) *whyPeer {
		p := index[name]
		if p == nil {
			p = &whyPeer{name: name}
			index[name] = p
		}
		return p
	}
	ask := func(filter *orb8v1.FlowFilter, end string, take func(*whyPeer, why.Traffic)) error {
		reply, err := call(ctx, q.app, orb8v1connect.OrbitServiceClient.Aggregate, &orb8v1.AggregateRequest{
			Since: since, Until: until, Bucket: slot, Allow: []*orb8v1.FlowFilter{filter}, Measures: trafficMeasures(),
			By: peerDimensions(end), Top: whyPeers,
		})
		if err != nil {
			return err
		}
		for _, group := range reply.GetGroups() {
			for _, b := range group.GetBuckets() {
				if slot, ok := a.slotOf(b.GetStart()); ok && a.report.IdleSlots[slot] {
					take(peer(cmp.Or(group.GetBy()...)), trafficOf(b.GetValues()))
				}
			}
		}
		return nil
	}
	if err := ask(received, "source", func(p *whyPeer, t why.Traffic) { p.received.Add(t) }); err != nil {
		return err
	}
	if err := ask(sent, "destination", func(p *whyPeer, t why.Traffic) { p.sent.Add(t) }); err != nil {
		return err
	}
	flows, err := call(ctx, q.app, orb8v1connect.OrbitServiceClient.QueryFlows, &orb8v1.QueryFlowsRequest{
		Since: since, Until: until, Allow: []*orb8v1.FlowFilter{sent}, Limit: whyFlows,
	})
	if err != nil {
		return err
	}
	for _, f := range flows.GetFlows() {
		if p := index[peerName(f.GetDestination())]; p != nil {
			p.rtt = max(p.rtt, f.GetSrtt().AsDuration())
		}
	}
	for _, p := range index {
		a.peers = append(a.peers, *p)
	}
	slices.SortFunc(a.peers, func(x, y whyPeer) int {
		return cmp.Or(cmp.Compare(y.received.Bytes+y.sent.Bytes, x.received.Bytes+x.sent.Bytes), cmp.Compare(x.name, y.name))
	})
	return nil
}

// miss notes what is not known.
func (a *whyAnswer) miss(text string) { a.missing = append(a.missing, text) }

// sources says which are off, and how to turn them on.
func (a *whyAnswer) sources(node *orb8v1.NodeStatus) {
	switch {
	case len(a.devices) == 0:
		a.miss("no GPU of " + a.name + " has reported in this range: see which have with `orb8 gpu`, or turn on the gpu receiver")
	case a.report.Known == 0:
		a.miss("how much of its GPUs " + a.name + " used: others have them too, and nothing is measured for its processes; " +
			"the nvml source of the gpu receiver measures gpu.process.utilization, except on MIG instances")
	case a.report.Known < 1:
		a.miss("the GPUs in " + percent(1-a.report.Known) + " of the range: there are no samples")
	}
	switch {
	case node == nil:
		a.miss("system calls and the network: no agent of the pod's node has reported; run one there")
		return
	case node.GetSyscalls() == nil:
		a.miss("system calls: turn on the ebpf_syscall receiver on the node, with latency: true")
	case !node.GetSyscalls().GetLatency():
		a.miss("how long system calls take: set latency: true of the ebpf_syscall receiver on the node")
	case !a.input.Latency:
		a.miss("what the pod waited for: it made no system call in this range, or its calls were not measured then")
	}
	var all, unclear time.Duration
	for _, u := range a.report.Calls {
		if u.Cause != why.Syscalls {
			continue
		}
		if all += u.Took; u.Unclear {
			unclear += u.Took
		}
	}
	if unclear > all/2 && a.report.Verdict != why.Busy {
		a.miss("of what its slow calls of read and write were: of files on a slow disk, or of a pipe; " +
			"then the cause is what the process at the other end does, such as work on the CPU")
	}
	if node.GetNetwork() == nil {
		a.miss("the network: turn on the ebpf_network receiver on the node; until then waiting for a peer counts to no cause")
	}
	if !a.synchronise {
		a.miss("synchronising: nothing is measured of it; turn on the cuda source of the gpu receiver; until then it counts as cpu")
	}
}
