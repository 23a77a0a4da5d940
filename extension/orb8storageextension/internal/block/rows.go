package block

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
)

// The columns of the files. They are what docs/store.md tells; a change needs another version, a new column does not. There are no nulls: what is not
// known is 0 or empty.

// FlowRow is a flow record.
type FlowRow struct {
	Start     int64  `parquet:"start,timestamp(nanosecond),delta"`
	End       int64  `parquet:"end,timestamp(nanosecond),delta"`
	Node      string `parquet:"node,dict"`
	Direction string `parquet:"direction,dict"`
	Transport string `parquet:"transport,dict"`

	SourceAddress      string `parquet:"source_address,dict"`
	SourcePort         uint32 `parquet:"source_port"`
	DestinationAddress string `parquet:"destination_address,dict"`
	DestinationPort    uint32 `parquet:"destination_port"`

	SourceCgroupID       uint64 `parquet:"source_cgroup_id"`
	SourceCgroup         string `parquet:"source_cgroup,dict"`
	SourceContainerID    string `parquet:"source_container_id,dict"`
	SourceRuntime        string `parquet:"source_runtime,dict"`
	SourcePodUID         string `parquet:"source_pod_uid,dict"`
	SourceQOSClass       string `parquet:"source_qos_class,dict"`
	SourcePod            string `parquet:"source_pod,dict"`
	SourceNamespace      string `parquet:"source_namespace,dict"`
	SourceContainer      string `parquet:"source_container,dict"`
	SourceUnit           string `parquet:"source_unit,dict"`
	SourceProcess        string `parquet:"source_process,dict"`
	SourceWorkload       string `parquet:"source_workload,dict"`
	SourceWorkloadKind   string `parquet:"source_workload_kind,dict"`
	SourceService        string `parquet:"source_service,dict"`
	SourceKubernetesNode string `parquet:"source_kubernetes_node,dict"`
	SourceLabels         string `parquet:"source_labels,dict"`
	SourcePID            uint32 `parquet:"source_pid"`

	DestinationCgroupID       uint64 `parquet:"destination_cgroup_id"`
	DestinationCgroup         string `parquet:"destination_cgroup,dict"`
	DestinationContainerID    string `parquet:"destination_container_id,dict"`
	DestinationRuntime        string `parquet:"destination_runtime,dict"`
	DestinationPodUID         string `parquet:"destination_pod_uid,dict"`
	DestinationQOSClass       string `parquet:"destination_qos_class,dict"`
	DestinationPod            string `parquet:"destination_pod,dict"`
	DestinationNamespace      string `parquet:"destination_namespace,dict"`
	DestinationContainer      string `parquet:"destination_container,dict"`
	DestinationUnit           string `parquet:"destination_unit,dict"`
	DestinationProcess        string `parquet:"destination_process,dict"`
	DestinationWorkload       string `parquet:"destination_workload,dict"`
	DestinationWorkloadKind   string `parquet:"destination_workload_kind,dict"`
	DestinationService        string `parquet:"destination_service,dict"`
	DestinationKubernetesNode string `parquet:"destination_kubernetes_node,dict"`
	DestinationLabels         string `parquet:"destination_labels,dict"`
	DestinationPID            uint32 `parquet:"destination_pid"`

	PeerName    string `parquet:"peer_name,dict"`
	Interfaces  string `parquet:"interfaces,dict"`
	ICMPType    uint32 `parquet:"icmp_type"`
	ICMPCode    uint32 `parquet:"icmp_code"`
	TCPFlags    uint32 `parquet:"tcp_flags"`
	Bytes       uint64 `parquet:"bytes"`
	Packets     uint64 `parquet:"packets"`
	Connections uint64 `parquet:"connections"`
	LostPackets uint64 `parquet:"lost_packets"`
	ClientISN   uint32 `parquet:"client_isn"`
	ServerISN   uint32 `parquet:"server_isn"`
	SRTT        uint32 `parquet:"srtt_us"`
	MinRTT      uint32 `parquet:"min_rtt_us"`
	Handshake   uint32 `parquet:"handshake_us"`
	Retransmits uint32 `parquet:"retransmits"`
	ZeroWindows uint32 `parquet:"zero_windows"`
	Initiator   string `parquet:"initiator,dict"`
	Outcome     string `parquet:"outcome,dict"`
	Ended       bool   `parquet:"ended"`
}

// FlowBlooms are the columns of FlowRow with a bloom filter.
var FlowBlooms = []string{
	"source_address", "destination_address", "source_pod", "destination_pod", "source_namespace", "destination_namespace",
	"source_container", "destination_container",
}

var initiators = [...]string{flow.InitiatorSource: "source", flow.InitiatorDestination: "destination"}

// Initiator returns the column's word for it.
func Initiator(i flow.Initiator) string {
	if int(i) < len(initiators) {
		return initiators[i]
	}
	return ""
}

// ParseInitiator is the inverse of Initiator.
func ParseInitiator(s string) (flow.Initiator, error) {
	at := slices.Index(initiators[:], s)
	if at < 0 {
		return 0, fmt.Errorf("initiator %q: use source, destination or nothing", s)
	}
	return flow.Initiator(at), nil
}

// who is the identity of a caller, the same columns in three kinds of blocks.
type who struct {
	CgroupID       uint64 `parquet:"cgroup_id"`
	Cgroup         string `parquet:"cgroup,dict"`
	ContainerID    string `parquet:"container_id,dict"`
	Runtime        string `parquet:"runtime,dict"`
	PodUID         string `parquet:"pod_uid,dict"`
	QOSClass       string `parquet:"qos_class,dict"`
	Pod            string `parquet:"pod,dict"`
	Namespace      string `parquet:"namespace,dict"`
	Container      string `parquet:"container,dict"`
	Unit           string `parquet:"unit,dict"`
	Process        string `parquet:"process,dict"`
	PID            uint32 `parquet:"pid"`
	Workload       string `parquet:"workload,dict"`
	WorkloadKind   string `parquet:"workload_kind,dict"`
	Service        string `parquet:"service,dict"`
	KubernetesNode string `parquet:"kubernetes_node,dict"`
	Labels         string `parquet:"labels,dict"`
}

func whoOf(i *flow.Identity) who {
	return who{
		i.CgroupID, i.Cgroup, i.ContainerID, i.Runtime, i.PodUID, i.QOSClass, i.Pod, i.Namespace, i.Container, i.Unit, i.Process, i.PID,
		i.Workload, i.WorkloadKind, i.Service, i.KubernetesNode, i.Labels,
	}
}

func (w *who) identity() flow.Identity {
	return flow.Identity{
		CgroupID: w.CgroupID, Cgroup: w.Cgroup, ContainerID: w.ContainerID, Runtime: w.Runtime, PodUID: w.PodUID, QOSClass: w.QOSClass,
		Pod: w.Pod, Namespace: w.Namespace, Container: w.Container, Unit: w.Unit, Process: w.Process, PID: w.PID,
		Workload: w.Workload, WorkloadKind: w.WorkloadKind, Service: w.Service, KubernetesNode: w.KubernetesNode, Labels: w.Labels,
	}
}

// LookupRow is a DNS lookup.
type LookupRow struct {
	Time          int64    `parquet:"time,timestamp(nanosecond),delta"`
	Node          string   `parquet:"node,dict"`
	Direction     string   `parquet:"direction,dict"`
	Transport     string   `parquet:"transport,dict"`
	ClientAddress string   `parquet:"client_address,dict"`
	ClientPort    uint32   `parquet:"client_port"`
	ServerAddress string   `parquet:"server_address,dict"`
	ServerPort    uint32   `parquet:"server_port"`
	Client        who      `parquet:"client"`
	Server        who      `parquet:"server"`
	Interface     string   `parquet:"interface,dict"`
	Name          string   `parquet:"name,dict"`
	Type          string   `parquet:"type,dict"`
	RCode         string   `parquet:"response_code,dict"`
	Latency       int64    `parquet:"latency_ns"`
	Queries       uint64   `parquet:"queries"`
	Answers       []string `parquet:"answers,list"`
	Truncated     bool     `parquet:"truncated"`
	Incomplete    bool     `parquet:"incomplete"`
}

// LookupBlooms are the columns of LookupRow with a bloom filter.
var LookupBlooms = []string{"client_address", "server_address", "name"}

// LookupRowOf returns the row of a lookup.
func LookupRowOf(l *flow.Lookup) LookupRow {
	row := LookupRow{
		Time: l.Time.UnixNano(), Node: l.Node, Direction: l.Direction.String(), Transport: l.Transport.String(),
		ClientAddress: Address(l.Client.Addr.Addr()), ClientPort: uint32(l.Client.Addr.Port()), Client: whoOf(&l.Client.Identity),
		ServerAddress: Address(l.Server.Addr.Addr()), ServerPort: uint32(l.Server.Addr.Port()), Server: whoOf(&l.Server.Identity),
		Interface: l.Interface, Name: l.Name, Type: l.Type, RCode: l.RCode, Latency: int64(l.Latency), Queries: l.Queries,
		Truncated: l.Truncated, Incomplete: l.Incomplete,
	}
	for i := range l.Answers {
		row.Answers = append(row.Answers, l.Answers[i].String())
	}
	return row
}

// Lookup is the inverse of LookupRowOf.
func (r *LookupRow) Lookup() (flow.Lookup, error) {
	l := flow.Lookup{
		Time: time.Unix(0, r.Time).UTC(), Node: r.Node, Interface: r.Interface, Name: r.Name, Type: r.Type, RCode: r.RCode,
		Latency: time.Duration(r.Latency), Queries: r.Queries, Truncated: r.Truncated, Incomplete: r.Incomplete,
		Client: flow.Endpoint{Identity: r.Client.identity()}, Server: flow.Endpoint{Identity: r.Server.identity()},
	}
	var err error
	if l.Direction, err = ParseDirection(r.Direction); err != nil {
		return l, err
	}
	if l.Transport, err = flow.ParseTransport(r.Transport); err != nil {
		return l, err
	}
	if l.Client.Addr, err = addrPort(r.ClientAddress, r.ClientPort); err != nil {
		return l, err
	}
	if l.Server.Addr, err = addrPort(r.ServerAddress, r.ServerPort); err != nil {
		return l, err
	}
	for _, text := range r.Answers {
		answer, err := flow.ParseAnswer(strings.Clone(text))
		if err != nil {
			return l, err
		}
		l.Answers = append(l.Answers, answer)
	}
	return l, nil
}

// Address is empty for none.
func Address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// ParseAddress is the inverse of Address.
func ParseAddress(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	return netip.ParseAddr(s)
}

func addrPort(address string, port uint32) (netip.AddrPort, error) {
	a, err := ParseAddress(address)
	return netip.AddrPortFrom(a, uint16(port)), err
}

// ParseDirection is flow.ParseDirection, and takes what Direction.String says of none.
func ParseDirection(s string) (flow.Direction, error) {
	if s == flow.Direction(0).String() {
		return 0, nil
	}
	return flow.ParseDirection(s)
}

// CountsRow is what a container called in an interval.
type CountsRow struct {
	Start     int64      `parquet:"start,timestamp(nanosecond),delta"`
	End       int64      `parquet:"end,timestamp(nanosecond),delta"`
	Node      string     `parquet:"node,dict"`
	Caller    who        `parquet:"caller"`
	LostCalls uint64     `parquet:"lost_calls"`
	Calls     []CountRow `parquet:"calls,list"`
}

// CountRow is how often one call was made.
type CountRow struct {
	Name   string `parquet:"name,dict"`
	ABI    string `parquet:"abi,dict"`
	Number int32  `parquet:"number"`
	Calls  uint64 `parquet:"calls"`
	// Errors are names and counts, one pair a name.
	Errors []ErrorRow `parquet:"errors,list"`
	// Latency has no buckets where it was not measured.
	LatencySum     int64    `parquet:"latency_sum_ns"`
	LatencyBuckets []uint64 `parquet:"latency_buckets,list"`
}

// ErrorRow is how often a call returned an error.
type ErrorRow struct {
	Name  string `parquet:"name,dict"`
	Calls uint64 `parquet:"calls"`
}

// CountsRowOf returns the row of counts.
func CountsRowOf(n *syscalls.Counts) CountsRow {
	row := CountsRow{
		Start: n.Start.UnixNano(), End: n.End.UnixNano(), Node: n.Node, Caller: whoOf(&n.Identity), LostCalls: n.LostCalls,
		Calls: make([]CountRow, len(n.Calls)),
	}
	for i := range n.Calls {
		c := &n.Calls[i]
		call := CountRow{Name: c.Call.Name(), ABI: c.Call.ABI.String(), Number: c.Call.Number, Calls: c.Calls}
		for _, name := range slices.Sorted(maps.Keys(c.Errors)) {
			call.Errors = append(call.Errors, ErrorRow{Name: name, Calls: c.Errors[name]})
		}
		if c.Latency != nil {
			call.LatencySum, call.LatencyBuckets = int64(c.Latency.Sum), c.Latency.Buckets[:]
		}
		row.Calls[i] = call
	}
	return row
}

// Counts is the inverse of CountsRowOf.
func (r *CountsRow) Counts() (syscalls.Counts, error) {
	n := syscalls.Counts{
		Start: time.Unix(0, r.Start).UTC(), End: time.Unix(0, r.End).UTC(), Node: r.Node, Identity: r.Caller.identity(), LostCalls: r.LostCalls,
		Calls: make([]syscalls.Count, len(r.Calls)),
	}
	for i := range r.Calls {
		row := &r.Calls[i]
		call, err := callOf(row.ABI, row.Number)
		if err != nil {
			return n, err
		}
		c := syscalls.Count{Call: call, Calls: row.Calls}
		if len(row.Errors) > 0 {
			c.Errors = make(map[string]uint64, len(row.Errors))
			for _, e := range row.Errors {
				c.Errors[strings.Clone(e.Name)] = e.Calls
			}
		}
		if len(row.LatencyBuckets) > 0 {
			if len(row.LatencyBuckets) != syscalls.LatencyBuckets {
				return n, fmt.Errorf("a latency has %d buckets, not %d", len(row.LatencyBuckets), syscalls.LatencyBuckets)
			}
			c.Latency = &syscalls.Latency{Sum: time.Duration(row.LatencySum), Buckets: [syscalls.LatencyBuckets]uint64(row.LatencyBuckets)}
		}
		n.Calls[i] = c
	}
	return n, nil
}

func callOf(abi string, number int32) (syscalls.Call, error) {
	if abi == syscalls.ABI(0).String() {
		return syscalls.Call{Number: number}, nil
	}
	a, err := syscalls.ParseABI(abi)
	return syscalls.Call{ABI: a, Number: number}, err
}

// AnomalyRow is an anomaly; the columns from seen on are of its evidence, if it has any.
type AnomalyRow struct {
	Time      int64         `parquet:"time,timestamp(nanosecond),delta"`
	Node      string        `parquet:"node,dict"`
	Caller    who           `parquet:"caller"`
	Workload  string        `parquet:"workload,dict"`
	Rule      string        `parquet:"rule,dict"`
	Severity  string        `parquet:"severity,dict"`
	Syscall   string        `parquet:"syscall,dict"`
	ABI       string        `parquet:"abi,dict"`
	Number    int32         `parquet:"number"`
	Message   string        `parquet:"message"`
	Calls     uint64        `parquet:"calls"`
	Rate      float64       `parquet:"rate"`
	Baseline  float64       `parquet:"baseline"`
	Evidence  bool          `parquet:"evidence"`
	Seen      int64         `parquet:"seen,timestamp(nanosecond)"`
	Process   string        `parquet:"process,dict"`
	PID       uint32        `parquet:"pid"`
	TID       uint32        `parquet:"tid"`
	Sampling  uint32        `parquet:"sampling"`
	Arguments []ArgumentRow `parquet:"arguments,list"`
}

// ArgumentRow is an argument of a call.
type ArgumentRow struct {
	Name  string `parquet:"name,dict"`
	Value string `parquet:"value"`
}

// AnomalyRowOf returns the row of an anomaly.
func AnomalyRowOf(n *syscalls.Anomaly) AnomalyRow {
	row := AnomalyRow{
		Time: n.Time.UnixNano(), Node: n.Node, Caller: whoOf(&n.Identity), Workload: n.Workload, Rule: n.Rule, Severity: n.Severity.String(),
		Syscall: n.Call.Name(), ABI: n.Call.ABI.String(), Number: n.Call.Number, Message: n.Message, Calls: n.Calls,
		Rate: n.Rate, Baseline: n.Baseline,
	}
	if e := n.Evidence; e != nil {
		row.Evidence, row.Seen, row.Process, row.PID = true, e.Time.UnixNano(), e.Identity.Process, e.Identity.PID
		row.TID, row.Sampling = e.TID, e.Sampling
		for _, a := range e.Arguments {
			row.Arguments = append(row.Arguments, ArgumentRow(a))
		}
	}
	return row
}

// Anomaly is the inverse of AnomalyRowOf.
func (r *AnomalyRow) Anomaly() (syscalls.Anomaly, error) {
	n := syscalls.Anomaly{
		Time: time.Unix(0, r.Time).UTC(), Node: r.Node, Identity: r.Caller.identity(), Workload: r.Workload, Rule: r.Rule, Message: r.Message,
		Calls: r.Calls, Rate: r.Rate, Baseline: r.Baseline,
	}
	var err error
	if n.Severity, err = parseSeverity(r.Severity); err != nil {
		return n, err
	}
	if n.Call, err = callOf(r.ABI, r.Number); err != nil {
		return n, err
	}
	if r.Evidence {
		n.Evidence = &syscalls.Event{Time: time.Unix(0, r.Seen).UTC(), Node: n.Node, Call: n.Call, TID: r.TID, Sampling: r.Sampling}
		n.Evidence.Identity.Process, n.Evidence.Identity.PID = r.Process, r.PID
		for _, a := range r.Arguments {
			n.Evidence.Arguments = append(n.Evidence.Arguments, syscalls.Argument(a))
		}
	}
	return n, nil
}

func parseSeverity(s string) (syscalls.Severity, error) {
	if s == syscalls.Severity(0).String() {
		return 0, nil
	}
	return syscalls.ParseSeverity(s)
}
