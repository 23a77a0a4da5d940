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
	for i := range s.Deny {
		if s.Deny[i].match(r) {
			return false
		}
	}
	for i := range s.Allow {
		if s.Allow[i].match(r) {
			return true
		}
	}
	return len(s.Allow) == 0
}

// Filter matches a flow when each field that is set matches. Within a field any value may match, and for all but
// Transports and Directions at either end.
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
}

func (f *Filter) match(r *flow.Record) bool {
	return matchValue(f.Directions, r.Direction) &&
		matchValue(f.Transports, r.Transport) &&
		matchEnds(f.Ports, r, func(port uint16, e *flow.Endpoint) bool { return e.Addr.Port() == port }) &&
		matchEnds(f.Prefixes, r, func(p netip.Prefix, e *flow.Endpoint) bool { return p.Contains(e.Addr.Addr()) }) &&
		matchEnds(f.Namespaces, r, func(ns string, e *flow.Endpoint) bool { return e.Identity.Namespace == ns }) &&
		matchEnds(f.Pods, r, isPod) &&
		matchEnds(f.Containers, r, isContainer)
}

func matchValue[T comparable](values []T, v T) bool {
	return len(values) == 0 || slices.Contains(values, v)
}

func matchEnds[T any](values []T, r *flow.Record, is func(T, *flow.Endpoint) bool) bool {
	for _, v := range values {
		if is(v, &r.Source) || is(v, &r.Destination) {
			return true
		}
	}
	return len(values) == 0
}

func isPod(name string, e *flow.Endpoint) bool {
	if namespace, pod, qualified := strings.Cut(name, "/"); qualified {
		return e.Identity.Namespace == namespace && e.Identity.Pod == pod
	}
	return e.Identity.Pod == name
}

func isContainer(name string, e *flow.Endpoint) bool {
	return e.Identity.Container == name ||
		len(name) >= minContainerIDPrefix && strings.HasPrefix(e.Identity.ContainerID, name)
}
