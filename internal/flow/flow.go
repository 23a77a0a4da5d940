// Package flow is the model that orb8's components share: what a flow record, a network event and a node's status
// are, and how each travels as an OpenTelemetry log record.
package flow

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Direction is a flow's direction as its local endpoint sees it.
type Direction uint8

const (
	// Ingress flows end at the local endpoint.
	Ingress Direction = 1
	// Egress flows start at the local endpoint.
	Egress Direction = 2
	// Transit flows have no end on the node: it routes or bridges them.
	Transit Direction = 3
)

// String returns "ingress", "egress" or "transit".
func (d Direction) String() string {
	switch d {
	case Ingress:
		return "ingress"
	case Egress:
		return "egress"
	case Transit:
		return "transit"
	}
	return "unknown"
}

// ParseDirection is the inverse of String.
func ParseDirection(s string) (Direction, error) {
	switch strings.ToLower(s) {
	case "ingress":
		return Ingress, nil
	case "egress":
		return Egress, nil
	case "transit":
		return Transit, nil
	}
	return 0, fmt.Errorf("direction %q: use ingress, egress or transit", s)
}

// Transport is an IANA protocol number, the one in the IP header.
type Transport uint8

// The protocols that orb8 knows more of than their number.
const (
	ICMP   Transport = 1
	TCP    Transport = 6
	UDP    Transport = 17
	ICMPv6 Transport = 58
	SCTP   Transport = 132
)

// String returns the lower-case IANA name, or the number in decimal.
func (t Transport) String() string {
	switch t {
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case ICMPv6:
		return "ipv6-icmp"
	case SCTP:
		return "sctp"
	}
	return strconv.Itoa(int(t))
}

// ParseTransport is the inverse of String; it also takes "icmpv6" and "icmp6".
func ParseTransport(s string) (Transport, error) {
	switch strings.ToLower(s) {
	case "icmp":
		return ICMP, nil
	case "tcp":
		return TCP, nil
	case "udp":
		return UDP, nil
	case "ipv6-icmp", "icmpv6", "icmp6":
		return ICMPv6, nil
	case "sctp":
		return SCTP, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("protocol %q: use tcp, udp, icmp, ipv6-icmp, sctp or a number from 0 to 255", s)
	}
	return Transport(n), nil
}

// Identity says who an endpoint is, as far as it is known. The zero value is nobody known.
// It is comparable, so that stores can keep each identity once.
type Identity struct {
	// CgroupID is the inode number of the socket's cgroup v2 directory, as bpf_skb_cgroup_id() gives it.
	CgroupID uint64
	// Cgroup is the path of that directory below the cgroup v2 root.
	Cgroup string
	// ContainerID is the runtime's id: 64 hexadecimal digits.
	ContainerID string
	// Runtime is containerd, cri-o, docker or podman.
	Runtime string
	PodUID  string
	// QOSClass is guaranteed, burstable or besteffort.
	QOSClass  string
	Pod       string
	Namespace string
	Container string
	// Workload is the outermost owner of the pod that is known, such as a Deployment, which is WorkloadKind.
	Workload, WorkloadKind string
	// Labels are the pod's, as FormatLabels writes them.
	Labels string
	// Service is the Kubernetes Service whose address it is, or whose only backend at that address and port.
	Service string
	// KubernetesNode is a peer's node; the local endpoint's is the record's.
	KubernetesNode string
	// Unit is the systemd unit of a process that is in no container.
	Unit string
	// Process is the comm (at most 15 bytes) and PID the host-wide id of the process that made the socket.
	Process string
	PID     uint32
}

// Endpoint is one end of a flow.
type Endpoint struct {
	Addr     netip.AddrPort
	Identity Identity
	// Name is the DNS name by which the flow's local endpoint had looked this address up; only a peer has one.
	Name string
}

// Record is what one direction of a flow did in one interval, seen at one of its endpoints.
type Record struct {
	// Start and End are the first and last packet of the interval.
	Start, End  time.Time
	Node        string
	Direction   Direction
	Transport   Transport
	Source      Endpoint
	Destination Endpoint
	// Interfaces saw the flow in this interval, in the order in which its packets pass them; empty when it was seen at
	// the socket, and in a last record that only says so.
	Interfaces []string
	// ICMPType and ICMPCode are set for ICMP and ICMPv6.
	ICMPType, ICMPCode uint8
	// TCPFlags is the union of the flags seen, as in the TCP header.
	TCPFlags uint8
	// Bytes are layer-3 bytes and Packets are packets, both as on the wire: segmented super-packets are unfolded.
	Bytes, Packets uint64
	// Connections counts initial SYN segments for TCP, and the first packet of any other flow.
	Connections uint64
	// TCPHealth is set for TCP.
	TCPHealth
	// Initiator is who opened the connection; unknown when its SYN was not seen.
	Initiator Initiator
	// Ended is set on the last record of a flow.
	Ended bool
	// Outcome is how a TCP connection ended; only where Ended is set.
	Outcome Outcome
	// LostPackets is what the node lost in this interval, of this flow or of others: an upper bound of the error.
	LostPackets uint64
}

// TCPHealth is what a TCP flow tells of its connection. Round-trip times and retransmits are the sending socket's own, so
// they are in the records of the direction that it sends (egress) where the socket is on this node.
type TCPHealth struct {
	// ClientISN and ServerISN are the initial sequence numbers of the connection. They survive address translation, and
	// so identify the connection wherever it is seen. HasISNs tells whether its handshake was seen.
	ClientISN, ServerISN uint32
	HasISNs              bool
	// SRTT is the smoothed round-trip time and MinRTT the least of the kernel's window (tcp_min_rtt_wlen); 0: none.
	SRTT, MinRTT time.Duration
	// Handshake is the time from SYN to SYN-ACK where the client is, and from SYN-ACK to ACK where the server is.
	Handshake time.Duration
	// Retransmits are segments sent again in this interval; ZeroWindows segments whose sender could take no more.
	Retransmits, ZeroWindows uint64
}

// Initiator tells which end of a flow opened the connection.
type Initiator uint8

const (
	// InitiatorUnknown is the zero value.
	InitiatorUnknown Initiator = iota
	// InitiatorSource: the flow runs from client to server.
	InitiatorSource
	// InitiatorDestination: the flow runs from server to client.
	InitiatorDestination
)

// Outcome is how a TCP connection ended. The graver ones are the larger.
type Outcome uint8

const (
	// OutcomeUnknown: it has not ended, or is no TCP connection, or ended unseen.
	OutcomeUnknown Outcome = iota
	// OutcomeClosed: both sides finished.
	OutcomeClosed
	// OutcomeReset: one side reset it after the handshake.
	OutcomeReset
	// OutcomeRefused: its SYN was answered by RST.
	OutcomeRefused
	// OutcomeTimeout: its SYN was never answered.
	OutcomeTimeout
)

var outcomeNames = [...]string{OutcomeClosed: "closed", OutcomeReset: "reset", OutcomeRefused: "refused", OutcomeTimeout: "timeout"}

// String returns closed, reset, refused, timeout, or nothing for OutcomeUnknown.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return ""
}

// ParseOutcome is the inverse of String.
func ParseOutcome(s string) (Outcome, error) {
	for o, name := range outcomeNames {
		if name == s {
			return Outcome(o), nil
		}
	}
	return 0, fmt.Errorf("outcome %q: use closed, reset, refused or timeout", s)
}

// Local returns the endpoint that is on the record's node, and Peer the other one. Of a Transit flow neither is: they are
// its source and its destination.
func (r *Record) Local() *Endpoint {
	if r.Direction == Ingress {
		return &r.Destination
	}
	return &r.Source
}

// Peer returns the endpoint that is not Local.
func (r *Record) Peer() *Endpoint {
	if r.Direction == Ingress {
		return &r.Source
	}
	return &r.Destination
}

// ConnectionID is the same for both directions and both ends of a connection: 16 hexadecimal digits of a 64-bit FNV-1a
// hash. Of a TCP connection whose handshake was seen it is the hash of the two initial sequence numbers, the client's
// first, and survives address translation. Of any other flow it is that of the transport and the two socket addresses in
// numerical order, and is the same only where the addresses are.
func (r *Record) ConnectionID() string {
	if r.HasISNs {
		var buf [8]byte
		binary.BigEndian.PutUint32(buf[0:], r.ClientISN)
		binary.BigEndian.PutUint32(buf[4:], r.ServerISN)
		return connectionHash(buf[:])
	}
	a, b := r.Source.Addr, r.Destination.Addr
	if cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Port(), b.Port())) > 0 {
		a, b = b, a
	}
	var buf [37]byte
	a16, b16 := a.Addr().As16(), b.Addr().As16()
	copy(buf[0:], a16[:])
	copy(buf[16:], b16[:])
	binary.BigEndian.PutUint16(buf[32:], a.Port())
	binary.BigEndian.PutUint16(buf[34:], b.Port())
	buf[36] = byte(r.Transport)
	return connectionHash(buf[:])
}

func connectionHash(identity []byte) string {
	h := fnv.New64a()
	h.Write(identity)
	return hex.EncodeToString(h.Sum(nil))
}

// EventKind says what happened to a flow.
type EventKind uint8

const (
	// EventNew is the first packet of a flow that is not TCP.
	EventNew EventKind = iota + 1
	// EventSYN is an initial SYN segment.
	EventSYN
	// EventFIN is a segment with FIN.
	EventFIN
	// EventRST is a segment with RST.
	EventRST
	// EventFlow is a flow record of an interval.
	EventFlow
	// EventEnd is the last flow record of a flow.
	EventEnd
	// EventDNS is a lookup.
	EventDNS
	// EventPacket is one of the first packets of a flow, or a sampled one.
	EventPacket
)

var eventNames = [...]string{
	EventNew: "new", EventSYN: "syn", EventFIN: "fin", EventRST: "rst", EventFlow: "flow", EventEnd: "end", EventDNS: "dns",
	EventPacket: "packet",
}

// String returns new, syn, fin, rst, flow, end, dns or packet.
func (k EventKind) String() string {
	if int(k) < len(eventNames) && eventNames[k] != "" {
		return eventNames[k]
	}
	return "unknown"
}

// ParseEventKind is the inverse of String.
func ParseEventKind(s string) (EventKind, error) {
	for k, name := range eventNames {
		if name != "" && name == strings.ToLower(s) {
			return EventKind(k), nil
		}
	}
	return 0, fmt.Errorf("event kind %q: use new, syn, fin, rst, flow, end, dns or packet", s)
}

// Event is something that happened to a flow. For New, SYN, FIN, RST and Packet, Record is the packet: its Bytes and Packets
// are those of the packet alone. For DNS, Lookup is set and Record is its question's, without counts.
type Event struct {
	Kind EventKind
	Record
	Lookup *Lookup
}

// NetworkStatus is the state of a node's flow engine. Counts are since Started.
type NetworkStatus struct {
	Node    string
	Version string
	Kernel  string
	Time    time.Time
	Started time.Time
	// AttachMode is cgroup or tc.
	AttachMode   string
	AttachPoints uint32
	// Interval is the time between two reports.
	Interval time.Duration
	// Packets and Bytes were counted; LostPackets and LostBytes were seen but could be neither counted nor reported;
	// LostEvents found the ring buffer full; UnparsedPackets were not valid IP.
	Packets, Bytes         uint64
	LostPackets, LostBytes uint64
	LostEvents             uint64
	UnparsedPackets        uint64
	// PacketsPerSecond and BytesPerSecond are means of the last interval.
	PacketsPerSecond, BytesPerSecond float64
	LiveFlows                        uint64
	RingBufferBytes                  uint64
	// RingBufferUtilization is the used share when it was last read, 0 to 1.
	RingBufferUtilization float64
	FlowTableSize         uint64
	// FlowTableEntries is how many flows the last interval put into the table.
	FlowTableEntries uint64
	// Drops are the packets that the kernel dropped, by reason.
	Drops map[string]uint64
	// Unavailable are the features that the host does not allow, each with the reason why not.
	Unavailable map[string]string
	// Probes are what the BPF programs cost, by name; none where the kernel does not measure them.
	Probes []ProbeCost
}
