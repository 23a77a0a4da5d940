package storage

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/orb8/orb8/internal/flow"
)

// minContainerIDPrefix is the shortest value that a container id is compared with: fewer hexadecimal digits would
// match by accident, and are more often a name ("db").
const minContainerIDPrefix = 4

// Selection matches a flow that matches any filter of Allow (any flow, when Allow is empty) and none of Deny.
type Selection struct {
	Allow, Deny []Filter
}

// Empty is true when the selection matches every flow.
func (s *Selection) Empty() bool {
	return len(s.Allow) == 0 && len(s.Deny) == 0
}

// Match tells whether the flow of the record is selected.
func (s *Selection) Match(r *flow.Record) bool {
	return s.match(view{own: r})
}

// MatchEnds tells whether a flow that was seen at both ends is selected, as seen at the end of r. Endpoints are looked for
// at both ends, as each of them knows more of itself.
func (s *Selection) MatchEnds(r, far *flow.Record) bool {
	return s.match(view{own: r, far: far})
}

func (s *Selection) match(v view) bool {
	for i := range s.Deny {
		if s.Deny[i].match(v) {
			return false
		}
	}
	for i := range s.Allow {
		if s.Allow[i].match(v) {
			return true
		}
	}
	return len(s.Allow) == 0
}

// view is a flow as one end saw it, and as the far end did; far is nil where nobody looked there.
type view struct {
	own, far *flow.Record
}

// outcome is the graver one: an end that saw less of the connection knows a reset where the other knows a refusal.
func (v view) outcome() flow.Outcome {
	if v.far == nil {
		return v.own.Outcome
	}
	return max(v.own.Outcome, v.far.Outcome)
}

// Filter matches a flow when each field that is set matches. Within a field any value may match, and for all but
// Transports, Directions and Outcomes at either end.
type Filter struct {
	// Pods are pod names, or "NAMESPACE/NAME".
	Pods       []string
	Namespaces []string
	// Containers are container names, or container ids by a prefix of at least 4 hexadecimal digits in lower case.
	Containers []string
	Prefixes   []netip.Prefix
	Ports      []uint16
	Transports []flow.Transport
	Directions []flow.Direction
	Outcomes   []flow.Outcome
}

func (f *Filter) match(v view) bool {
	return matchValue(f.Directions, v.own.Direction) &&
		matchValue(f.Transports, v.own.Transport) &&
		matchValue(f.Outcomes, v.outcome()) &&
		matchEnds(f.Ports, v, func(port uint16, e *flow.Endpoint) bool { return e.Addr.Port() == port }) &&
		matchEnds(f.Prefixes, v, func(p netip.Prefix, e *flow.Endpoint) bool { return p.Contains(e.Addr.Addr()) }) &&
		matchEnds(f.Namespaces, v, func(ns string, e *flow.Endpoint) bool { return e.Identity.Namespace == ns }) &&
		matchEnds(f.Pods, v, func(pod string, e *flow.Endpoint) bool { return isPod(pod, &e.Identity) }) &&
		matchEnds(f.Containers, v, func(c string, e *flow.Endpoint) bool { return isContainer(c, &e.Identity) })
}

func matchValue[T comparable](values []T, v T) bool {
	return len(values) == 0 || slices.Contains(values, v)
}

func matchEnds[T any](values []T, v view, is func(T, *flow.Endpoint) bool) bool {
	for _, value := range values {
		if is(value, &v.own.Source) || is(value, &v.own.Destination) {
			return true
		}
		if v.far != nil && (is(value, &v.far.Source) || is(value, &v.far.Destination)) {
			return true
		}
	}
	return len(values) == 0
}

func isPod(name string, who *flow.Identity) bool {
	if namespace, pod, qualified := strings.Cut(name, "/"); qualified {
		return who.Namespace == namespace && who.Pod == pod
	}
	return who.Pod == name
}

func isContainer(name string, who *flow.Identity) bool {
	return who.Container == name ||
		len(name) >= minContainerIDPrefix && strings.HasPrefix(who.ContainerID, name)
}
