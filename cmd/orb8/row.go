package main

import (
	"cmp"
	"net"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// row is one line of output: a flow, what happened to one, a DNS lookup, a container's count of a system call, such a call, an
// anomaly, or a sum of any of them.
type row struct {
	// kind is empty for the rows of a query.
	kind orb8v1.EventKind
	time time.Time
	// One of them is set.
	flow     *orb8v1.Flow
	dns      *orb8v1.DnsLookup
	count    *orb8v1.Syscall
	call     *orb8v1.SyscallEvent
	anomaly  *orb8v1.Anomaly
	group    *orb8v1.AggregateGroup
	node     *orb8v1.NodeStatus
	gpu      *gpuUse
	activity *gpuActivity
	// json is set where the row is known as JSON alone.
	json any
}

func flowRow(f *orb8v1.Flow) row {
	return row{time: f.GetEnd().AsTime(), flow: f}
}

func eventRow(e *orb8v1.StreamEventsResponse) row {
	return row{
		kind: e.GetKind(), time: e.GetTime().AsTime(),
		flow: e.GetFlow(), dns: e.GetDns(), call: e.GetSyscall(), anomaly: e.GetAnomaly(),
	}
}

// empty is true of a message that holds nothing that this version knows.
func (r row) empty() bool {
	return r.flow == nil && r.dns == nil && r.count == nil && r.call == nil && r.anomaly == nil
}

func (r row) when() time.Time { return r.time }

// local is the endpoint that the flow was seen at: the one whose process is known.
func (r row) local() *orb8v1.Endpoint {
	if r.flow.GetDirection() == orb8v1.Direction_DIRECTION_INGRESS {
		return r.flow.GetDestination()
	}
	return r.flow.GetSource()
}

func (r row) isTCP() bool  { return r.flow.GetTransport() == "tcp" }
func (r row) isICMP() bool { return strings.HasSuffix(r.flow.GetTransport(), "icmp") }

// kindName returns new, syn, fin, rst, flow, end, ...
func kindName(k orb8v1.EventKind) string {
	return strings.ToLower(strings.TrimPrefix(k.String(), "EVENT_KIND_"))
}

func directionName(d orb8v1.Direction) string {
	return strings.ToLower(strings.TrimPrefix(d.String(), "DIRECTION_"))
}

// socketAddress is ADDRESS:PORT, or the address alone where there is no port, as in ICMP.
func socketAddress(e *orb8v1.Endpoint) string {
	return withPort(e.GetAddress(), e.GetPort())
}

// shortName is nameOf with the port.
func shortName(e *orb8v1.Endpoint) string {
	return withPort(nameOf(e), e.GetPort())
}

// nameOf is the name that tells most about an endpoint in few letters.
func nameOf(e *orb8v1.Endpoint) string {
	unit := path.Base(e.GetCgroup())
	// A scope or slice holds whatever a login or the system started in it: the process says more.
	isGroup := path.Ext(unit) == ".scope" || path.Ext(unit) == ".slice" || unit == "." || unit == "/"
	switch {
	case e.GetPod() != "":
		return e.GetPod()
	case e.GetContainer() != "":
		return e.GetContainer()
	case len(e.GetContainerId()) >= 12:
		return e.GetContainerId()[:12]
	case e.GetService() != "":
		return e.GetService()
	case e.GetName() != "":
		return e.GetName()
	case isGroup && e.GetProcess() != "":
		return e.GetProcess()
	case unit != "." && unit != "/":
		return unit
	}
	return cmp.Or(e.GetNode(), e.GetAddress())
}

// fullName is all that names an endpoint: NAMESPACE/POD/CONTAINER or NAMESPACE/SERVICE, or else its cgroup, the name that it
// was looked up by, or its node.
func fullName(e *orb8v1.Endpoint) string {
	var parts []string
	service := ""
	if e.GetPod() == "" {
		service = e.GetService()
	}
	for _, part := range []string{e.GetNamespace(), e.GetPod(), e.GetContainer(), service} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	if len(parts) > 0 {
		return strings.Join(parts, "/")
	}
	return cmp.Or(e.GetCgroup(), e.GetName(), e.GetNode())
}

// process is NAME[PID] as far as known.
func process(e *orb8v1.Endpoint) string {
	if e.GetPid() == 0 {
		return e.GetProcess()
	}
	return e.GetProcess() + "[" + strconv.FormatUint(uint64(e.GetPid()), 10) + "]"
}

// detail is what only one protocol has: the flags of TCP, or the type and code of ICMP.
func detail(r row) string {
	switch {
	case r.isTCP():
		return tcpFlags(r.flow.GetTcpFlags())
	case r.isICMP():
		return strconv.FormatUint(uint64(r.flow.GetIcmpType()), 10) + "/" + strconv.FormatUint(uint64(r.flow.GetIcmpCode()), 10)
	}
	return ""
}

func tcpFlags(flags uint32) string {
	var names []string
	for bit, name := range []string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"} {
		if flags&(1<<bit) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

func withPort(name string, port uint32) string {
	if port == 0 {
		return name
	}
	return net.JoinHostPort(name, strconv.FormatUint(uint64(port), 10))
}

// printable makes text safe for a terminal. Process names come from whoever runs on the node and may hold escape codes.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
