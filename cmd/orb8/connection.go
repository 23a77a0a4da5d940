package main

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// hop stands between the two addresses of an endpoint that was translated on the way. It has no blanks, which would
// shift what awk and cut take for columns.
const hop = "→"

// behindSource is the endpoint behind the source's address, where that was translated; nil where not.
func (r row) behindSource() *orb8v1.Endpoint {
	if r.flow.GetInitiator() == orb8v1.Initiator_INITIATOR_DESTINATION {
		return r.flow.GetBackend()
	}
	return r.flow.GetOrigin()
}

// behindDestination is behindSource of the destination.
func (r row) behindDestination() *orb8v1.Endpoint {
	if r.flow.GetInitiator() == orb8v1.Initiator_INITIATOR_DESTINATION {
		return r.flow.GetOrigin()
	}
	return r.flow.GetBackend()
}

// sourceName and destinationName read in the order of the way: "client", "service→backend". The port behind a translated
// one is left to -o wide: it tells least, and 80 columns are few.
func sourceName(r row) string {
	name := shortName(r.flow.GetSource())
	if behind := r.behindSource(); behind != nil {
		name = nameOf(behind) + hop + name
	}
	return name
}

func destinationName(r row) string {
	name := shortName(r.flow.GetDestination())
	if behind := r.behindDestination(); behind != nil {
		name += hop + nameOf(behind)
	}
	return name
}

// addressAndName is all that is known of an endpoint in one word.
func addressAndName(e *orb8v1.Endpoint) string {
	if e == nil {
		return ""
	}
	if name := fullName(e); name != "" {
		return socketAddress(e) + "(" + name + ")"
	}
	return socketAddress(e)
}

func initiatorName(i orb8v1.Initiator) string {
	if i == orb8v1.Initiator_INITIATOR_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(i.String(), "INITIATOR_"))
}

// brokenOutcome is how a connection ended, unless that was well.
func brokenOutcome(r row) string {
	if outcome := r.flow.GetOutcome(); outcome != "closed" {
		return outcome
	}
	return ""
}

// trouble says in a few letters what is wrong with a connection.
func trouble(r row) string {
	var parts []string
	if outcome := brokenOutcome(r); outcome != "" {
		parts = append(parts, outcome)
	}
	if n := r.flow.GetRetransmits(); n > 0 {
		parts = append(parts, "retx:"+humanCount(n))
	}
	if n := r.flow.GetZeroWindows(); n > 0 {
		parts = append(parts, "zwin:"+humanCount(n))
	}
	return strings.Join(parts, ",")
}

// shortDuration is a duration to the microsecond, or nothing where it is not known.
func shortDuration(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return d.AsDuration().Round(time.Microsecond).String()
}
