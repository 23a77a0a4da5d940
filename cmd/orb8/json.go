package main

import (
	"encoding/json"
	"io"

	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// jsonFlow is a row as JSON. The API's own JSON mapping writes 64-bit numbers as strings, which jq and spreadsheets
// cannot add up; here numbers are numbers.
type jsonFlow struct {
	// Kind is present in streams of events.
	Kind         string       `json:"kind,omitempty"`
	Time         string       `json:"time"`
	Start        string       `json:"start"`
	End          string       `json:"end"`
	Node         string       `json:"node"`
	Interfaces   []string     `json:"interfaces,omitempty"`
	Direction    string       `json:"direction"`
	Transport    string       `json:"transport"`
	Source       jsonEndpoint `json:"source"`
	Destination  jsonEndpoint `json:"destination"`
	Bytes        uint64       `json:"bytes"`
	Packets      uint64       `json:"packets"`
	Connections  uint64       `json:"connections"`
	ConnectionID string       `json:"connectionId"`
	// These are present for their protocol only: 0 is a value, as in the type of an echo reply.
	ICMPType *uint32 `json:"icmpType,omitempty"`
	ICMPCode *uint32 `json:"icmpCode,omitempty"`
	TCPFlags *uint32 `json:"tcpFlags,omitempty"`
	// Of TCP, in seconds; 0 is not known.
	SRTT        float64       `json:"srtt,omitempty"`
	MinRTT      float64       `json:"minRtt,omitempty"`
	Handshake   float64       `json:"handshake,omitempty"`
	Retransmits *uint64       `json:"retransmits,omitempty"`
	ZeroWindows *uint64       `json:"zeroWindows,omitempty"`
	Outcome     string        `json:"outcome,omitempty"`
	Initiator   string        `json:"initiator,omitempty"`
	Backend     *jsonEndpoint `json:"backend,omitempty"`
	Origin      *jsonEndpoint `json:"origin,omitempty"`
	OtherEnd    *jsonOtherEnd `json:"otherEnd,omitempty"`
	Ended       bool          `json:"ended"`
	Lost        uint64        `json:"lost"`
}

type jsonOtherEnd struct {
	Node    string `json:"node"`
	Bytes   uint64 `json:"bytes"`
	Packets uint64 `json:"packets"`
}

type jsonEndpoint struct {
	Address      string `json:"address"`
	Port         uint32 `json:"port"`
	Container    string `json:"container,omitempty"`
	ContainerID  string `json:"containerId,omitempty"`
	PodUID       string `json:"podUid,omitempty"`
	Pod          string `json:"pod,omitempty"`
	Namespace    string `json:"namespace,omitempty"`
	Cgroup       string `json:"cgroup,omitempty"`
	Process      string `json:"process,omitempty"`
	PID          uint32 `json:"pid,omitempty"`
	Name         string `json:"name,omitempty"`
	Workload     string `json:"workload,omitempty"`
	WorkloadKind string `json:"workloadKind,omitempty"`
	Service      string `json:"service,omitempty"`
	Node         string `json:"node,omitempty"`

	Labels map[string]string `json:"labels,omitempty"`
}

// newJSON returns what a row is as JSON.
func newJSON(r row) any {
	switch {
	case r.json != nil:
		return r.json
	case r.dns != nil:
		return newJSONLookup(r)
	case r.count != nil:
		return newJSONSyscall(r.count)
	case r.call != nil:
		return newJSONSyscallEvent(r)
	case r.anomaly != nil:
		return newJSONAnomaly(r)
	}
	return newJSONFlow(r)
}

func newJSONFlow(r row) jsonFlow {
	f := r.flow
	j := jsonFlow{
		Time:         rfc3339(timestamppb.New(r.time)),
		Start:        rfc3339(f.GetStart()),
		End:          rfc3339(f.GetEnd()),
		Node:         f.GetNode(),
		Interfaces:   f.GetInterfaces(),
		Direction:    directionName(f.GetDirection()),
		Transport:    f.GetTransport(),
		Source:       newJSONEndpoint(f.GetSource()),
		Destination:  newJSONEndpoint(f.GetDestination()),
		Bytes:        f.GetBytes(),
		Packets:      f.GetPackets(),
		Connections:  f.GetConnections(),
		ConnectionID: f.GetConnectionId(),
		Ended:        f.GetEnded(),
		Lost:         f.GetLost(),
		SRTT:         f.GetSrtt().AsDuration().Seconds(),
		MinRTT:       f.GetMinRtt().AsDuration().Seconds(),
		Handshake:    f.GetHandshake().AsDuration().Seconds(),
		Outcome:      f.GetOutcome(),
		Initiator:    initiatorName(f.GetInitiator()),
	}
	if f.GetBackend() != nil {
		j.Backend = new(newJSONEndpoint(f.GetBackend()))
	}
	if f.GetOrigin() != nil {
		j.Origin = new(newJSONEndpoint(f.GetOrigin()))
	}
	if o := f.GetOtherEnd(); o != nil {
		j.OtherEnd = &jsonOtherEnd{Node: o.GetNode(), Bytes: o.GetBytes(), Packets: o.GetPackets()}
	}
	if r.kind != orb8v1.EventKind_EVENT_KIND_UNSPECIFIED {
		j.Kind = kindName(r.kind)
	}
	switch {
	case r.isTCP():
		j.TCPFlags = new(f.GetTcpFlags())
		j.Retransmits, j.ZeroWindows = new(f.GetRetransmits()), new(f.GetZeroWindows())
	case r.isICMP():
		j.ICMPType, j.ICMPCode = new(f.GetIcmpType()), new(f.GetIcmpCode())
	}
	return j
}

func newJSONEndpoint(e *orb8v1.Endpoint) jsonEndpoint {
	return jsonEndpoint{
		Address:      e.GetAddress(),
		Port:         e.GetPort(),
		Container:    e.GetContainer(),
		ContainerID:  e.GetContainerId(),
		PodUID:       e.GetPodUid(),
		Pod:          e.GetPod(),
		Namespace:    e.GetNamespace(),
		Cgroup:       e.GetCgroup(),
		Process:      e.GetProcess(),
		PID:          e.GetPid(),
		Name:         e.GetName(),
		Workload:     e.GetWorkload(),
		WorkloadKind: e.GetWorkloadKind(),
		Service:      e.GetService(),
		Node:         e.GetNode(),
		Labels:       e.GetLabels(),
	}
}

// writeJSONLine writes v as one line.
func writeJSONLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	// The output is for jq, not for a web page: "->" stays "->".
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// writeJSONDocument writes v for people and tools alike.
func writeJSONDocument(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// rfc3339 is the instant in UTC with all nine digits of its nanoseconds, so that text sorts as time does. It is empty
// for an instant that is not set.
func rfc3339(ts *timestamppb.Timestamp) string {
	if ts == nil {
		return ""
	}
	return ts.AsTime().Format("2006-01-02T15:04:05.000000000Z07:00")
}
