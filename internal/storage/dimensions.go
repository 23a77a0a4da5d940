package storage

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
)

// Dimensions returns the dimensions that a signal has, sorted.
func Dimensions(signal Signal) []string {
	switch signal {
	case SignalLookups:
		return slices.Sorted(maps.Keys(lookupDimensions))
	case SignalSyscalls:
		return slices.Sorted(maps.Keys(syscallDimensions))
	case SignalAnomalies:
		return slices.Sorted(maps.Keys(anomalyDimensions))
	}
	return slices.Sorted(maps.Keys(flowDimensions))
}

// Measures returns what a signal's records can be summed to, the default first.
func Measures(signal Signal) []string {
	switch signal {
	case SignalLookups:
		return names(lookupMeasures)
	case SignalSyscalls:
		return names(syscallMeasures)
	case SignalAnomalies:
		return names(anomalyMeasures)
	}
	return names(flowMeasures)
}

// FlowRow is a flow as a dimension sees it: Own is the view that counts, Far the other end's, nil where nobody looked there.
type FlowRow struct {
	Own, Far *flow.Record
}

// SyscallRow is the count of one call in the interval of its caller.
type SyscallRow struct {
	*syscalls.Counts
	Count *syscalls.Count
}

// FlowDimension returns the value of a dimension that Dimensions(SignalFlows) has.
func FlowDimension(name string) func(FlowRow) string { return flowDimensions[name] }

// FlowMeasure returns the value of a measure that Measures(SignalFlows) has: of Own alone.
func FlowMeasure(name string) func(*flow.Record) uint64 { return find(flowMeasures, name) }

// source and destination are the end as it was seen there, or else from the other end.
func (r FlowRow) source() (best, second *flow.Endpoint) {
	if r.Far == nil {
		return &r.Own.Source, nil
	}
	if r.Far.Direction == flow.Egress {
		return &r.Far.Source, &r.Own.Source
	}
	return &r.Own.Source, &r.Far.Source
}

func (r FlowRow) destination() (best, second *flow.Endpoint) {
	if r.Far == nil {
		return &r.Own.Destination, nil
	}
	if r.Far.Direction == flow.Ingress {
		return &r.Far.Destination, &r.Own.Destination
	}
	return &r.Own.Destination, &r.Far.Destination
}

var endDimensions = map[string]func(*flow.Endpoint) string{
	"pod":       func(e *flow.Endpoint) string { return qualified(&e.Identity, e.Identity.Pod) },
	"namespace": func(e *flow.Endpoint) string { return e.Identity.Namespace },
	"workload":  func(e *flow.Endpoint) string { return qualified(&e.Identity, e.Identity.Workload) },
	"service":   func(e *flow.Endpoint) string { return qualified(&e.Identity, e.Identity.Service) },
	"container": func(e *flow.Endpoint) string { return e.Identity.Container },
	"name":      func(e *flow.Endpoint) string { return e.Name },
	"cgroup":    func(e *flow.Endpoint) string { return e.Identity.Cgroup },
	"process":   func(e *flow.Endpoint) string { return e.Identity.Process },
}

// qualified is NAMESPACE/NAME.
func qualified(who *flow.Identity, name string) string {
	if name == "" || who.Namespace == "" {
		return name
	}
	return who.Namespace + "/" + name
}

// flowDimensions are those of an end, of the address and node of each, and of the flow.
var flowDimensions = func() map[string]func(FlowRow) string {
	all := map[string]func(FlowRow) string{
		"node":      func(r FlowRow) string { return r.Own.Node },
		"direction": func(r FlowRow) string { return r.Own.Direction.String() },
		"transport": func(r FlowRow) string { return r.Own.Transport.String() },
		"outcome":   func(r FlowRow) string { return view{own: r.Own, far: r.Far}.outcome().String() },

		"source.address":      func(r FlowRow) string { return address(r.Own.Source.Addr) },
		"destination.address": func(r FlowRow) string { return address(r.Own.Destination.Addr) },
		"source.port":         func(r FlowRow) string { return port(r.Own.Source.Addr) },
		"destination.port":    func(r FlowRow) string { return port(r.Own.Destination.Addr) },
		"source.node": func(r FlowRow) string {
			return endNode(r, flow.Egress, func(r *flow.Record) *flow.Endpoint { return &r.Source })
		},
		"destination.node": func(r FlowRow) string {
			return endNode(r, flow.Ingress, func(r *flow.Record) *flow.Endpoint { return &r.Destination })
		},
	}
	for name, of := range endDimensions {
		all["source."+name] = func(r FlowRow) string { return first(of)(r.source()) }
		all["destination."+name] = func(r FlowRow) string { return first(of)(r.destination()) }
	}
	return all
}()

// first takes the second end where the best does not know.
func first(of func(*flow.Endpoint) string) func(best, second *flow.Endpoint) string {
	return func(best, second *flow.Endpoint) string {
		v := of(best)
		if v == "" && second != nil {
			v = of(second)
		}
		return v
	}
}

// endNode is the node of the record where the end is local, or else what a record says of the end.
func endNode(r FlowRow, local flow.Direction, of func(*flow.Record) *flow.Endpoint) string {
	for _, view := range []*flow.Record{r.Own, r.Far} {
		if view != nil && view.Direction == local {
			return view.Node
		}
	}
	node := of(r.Own).Identity.KubernetesNode
	if node == "" && r.Far != nil {
		node = of(r.Far).Identity.KubernetesNode
	}
	return node
}

func address(a netip.AddrPort) string { return a.Addr().String() }

func port(a netip.AddrPort) string {
	if a.Port() == 0 {
		return ""
	}
	return strconv.Itoa(int(a.Port()))
}

var lookupDimensions = func() map[string]func(*flow.Lookup) string {
	all := map[string]func(*flow.Lookup) string{
		"node":           func(l *flow.Lookup) string { return l.Node },
		"name":           func(l *flow.Lookup) string { return l.Name },
		"type":           func(l *flow.Lookup) string { return l.Type },
		"rcode":          func(l *flow.Lookup) string { return l.RCode },
		"client.address": func(l *flow.Lookup) string { return address(l.Client.Addr) },
		"server.address": func(l *flow.Lookup) string { return address(l.Server.Addr) },
	}
	for name, of := range endDimensions {
		all["client."+name] = func(l *flow.Lookup) string { return of(&l.Client) }
		all["server."+name] = func(l *flow.Lookup) string { return of(&l.Server) }
	}
	return all
}()

var callerDimensions = map[string]func(*flow.Identity) string{
	"pod":       func(who *flow.Identity) string { return qualified(who, who.Pod) },
	"namespace": func(who *flow.Identity) string { return who.Namespace },
	"container": func(who *flow.Identity) string { return who.Container },
	"cgroup":    func(who *flow.Identity) string { return who.Cgroup },
}

var syscallDimensions = func() map[string]func(SyscallRow) string {
	all := map[string]func(SyscallRow) string{
		"node":    func(r SyscallRow) string { return r.Node },
		"syscall": func(r SyscallRow) string { return r.Count.Call.Name() },
	}
	for name, of := range callerDimensions {
		all[name] = func(r SyscallRow) string { return of(&r.Identity) }
	}
	return all
}()

var anomalyDimensions = func() map[string]func(*syscalls.Anomaly) string {
	all := map[string]func(*syscalls.Anomaly) string{
		"node":     func(n *syscalls.Anomaly) string { return n.Node },
		"syscall":  func(n *syscalls.Anomaly) string { return n.Call.Name() },
		"rule":     func(n *syscalls.Anomaly) string { return n.Rule },
		"severity": func(n *syscalls.Anomaly) string { return n.Severity.String() },
		"workload": func(n *syscalls.Anomaly) string { return n.Workload },
	}
	for name, of := range callerDimensions {
		all[name] = func(n *syscalls.Anomaly) string { return of(&n.Identity) }
	}
	return all
}()

type measure[R any] struct {
	name string
	of   func(R) uint64
}

func names[R any](measures []measure[R]) []string {
	all := make([]string, len(measures))
	for i, m := range measures {
		all[i] = m.name
	}
	return all
}

func find[R any](measures []measure[R], name string) func(R) uint64 {
	for _, m := range measures {
		if m.name == name {
			return m.of
		}
	}
	return nil
}

var flowMeasures = []measure[*flow.Record]{
	{"bytes", func(r *flow.Record) uint64 { return r.Bytes }},
	{"packets", func(r *flow.Record) uint64 { return r.Packets }},
	{"connections", func(r *flow.Record) uint64 { return r.Connections }},
	// What was sent again only the sender's socket knows: where Own is the receiver's view, a backend adds Far's.
	{"retransmits", func(r *flow.Record) uint64 { return uint64(r.Retransmits) }},
	{"zero_windows", func(r *flow.Record) uint64 { return uint64(r.ZeroWindows) }},
	// A connection ends in both its directions: it counts in the one that its initiator sends.
	{"errors", func(r *flow.Record) uint64 {
		return one(r.Initiator != flow.InitiatorDestination &&
			(r.Outcome == flow.OutcomeReset || r.Outcome == flow.OutcomeRefused || r.Outcome == flow.OutcomeTimeout))
	}},
}

var lookupMeasures = []measure[*flow.Lookup]{
	{"lookups", func(*flow.Lookup) uint64 { return 1 }},
	{"queries", func(l *flow.Lookup) uint64 { return l.Queries }},
	{"errors", func(l *flow.Lookup) uint64 { return one(l.RCode != "NOERROR" && l.RCode != "NXDOMAIN") }},
	{"latency", func(l *flow.Lookup) uint64 { return uint64(max(l.Latency, 0)) }},
}

var syscallMeasures = []measure[SyscallRow]{
	{"calls", func(r SyscallRow) uint64 { return r.Count.Calls }},
	{"errors", func(r SyscallRow) uint64 {
		var sum uint64
		for _, calls := range r.Count.Errors {
			sum += calls
		}
		return sum
	}},
	{"latency", func(r SyscallRow) uint64 {
		if r.Count.Latency == nil {
			return 0
		}
		return uint64(r.Count.Latency.Sum)
	}},
}

var anomalyMeasures = []measure[*syscalls.Anomaly]{
	{"anomalies", func(*syscalls.Anomaly) uint64 { return 1 }},
}

func one(yes bool) uint64 {
	if yes {
		return 1
	}
	return 0
}
