package flowmetricsconnector

import (
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/flow"
)

// key tells series apart. Dimensions that are not asked for have their zero value.
type key struct {
	source, destination workload
	direction           flow.Direction
	transport           flow.Transport
}

// What is summed.
const (
	bytes = iota
	packets
	connections
	retransmits
	zeroWindows
	closed
	reset
	refused
	timedOut
	numCounters
)

type counts [numCounters]uint64

// record is what a flow record says about workloads. flow.RecordFrom reads much more, and allocates for it.
type record struct {
	source, destination           naming
	direction, transport, outcome string
	clientAddress                 string
	sourcePort, clientPort        int64
	counts                        counts
	malformed                     bool
}

// read reads a flow record of a resource that holds the identity of its local end. It returns false if the record is
// malformed.
func read(local *naming, lr plog.LogRecord) (key, counts, bool) {
	var r record
	for name, v := range lr.Attributes().All() {
		r.take(name, v)
	}
	k, ok := r.key(local)
	if !ok || r.malformed || !r.countOutcome() {
		return key{}, counts{}, false
	}
	return k, r.counts, true
}

// key names the ends. It returns false where an address, the direction or the transport is missing or malformed.
func (r *record) key(local *naming) (k key, ok bool) {
	var err error
	if k.direction, err = flow.ParseDirection(r.direction); err != nil {
		return k, false
	}
	if k.transport, err = flow.ParseTransport(r.transport); err != nil {
		return k, false
	}
	switch k.direction {
	case flow.Ingress:
		r.destination.improve(local)
	case flow.Egress:
		r.source.improve(local)
	}
	if k.source, ok = r.source.workload(); !ok {
		return k, false
	}
	k.destination, ok = r.destination.workload()
	return k, ok
}

func (r *record) take(name string, v pcommon.Value) {
	switch name {
	case flow.AttrDirection:
		r.direction = v.Str()
	case flow.AttrTransport:
		r.transport = v.Str()
	case flow.AttrOutcome:
		r.outcome = v.Str()
	case flow.AttrBytes:
		r.count(bytes, v)
	case flow.AttrPackets:
		r.count(packets, v)
	case flow.AttrConnections:
		r.count(connections, v)
	case flow.AttrRetransmits:
		r.count(retransmits, v)
	case flow.AttrZeroWindows:
		r.count(zeroWindows, v)
	case flow.AttrSourcePort:
		r.sourcePort = v.Int()
	case flow.AttrClientAddress:
		r.clientAddress = v.Str()
	case flow.AttrClientPort:
		r.clientPort = v.Int()
	default:
		if attribute, ok := strings.CutPrefix(name, flow.PrefixSource); ok {
			r.source.note(attribute, v)
		} else if attribute, ok := strings.CutPrefix(name, flow.PrefixDestination); ok {
			r.destination.note(attribute, v)
		}
	}
}

// count takes a counter. One below 0 would make the sums go back.
func (r *record) count(counter int, v pcommon.Value) {
	if n := v.Int(); n >= 0 {
		r.counts[counter] = uint64(n)
	} else {
		r.malformed = true
	}
}

// countOutcome counts how a connection ended where its opening is counted: in the direction from client to server. The
// outcome is in the records of both directions. It returns false if there is no such outcome.
func (r *record) countOutcome() bool {
	outcome, err := flow.ParseOutcome(r.outcome)
	if err != nil {
		return false
	}
	if r.clientAddress == "" || r.clientAddress != r.source.address || r.clientPort != r.sourcePort {
		return true
	}
	switch outcome {
	case flow.OutcomeClosed:
		r.counts[closed] = 1
	case flow.OutcomeReset:
		r.counts[reset] = 1
	case flow.OutcomeRefused:
		r.counts[refused] = 1
	case flow.OutcomeTimeout:
		r.counts[timedOut] = 1
	}
	return true
}
