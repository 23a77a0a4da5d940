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
	return matchLists(s.Allow, s.Deny, func(f *Filter) bool { return f.match(v) })
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

// seenOn tells whether either end was seen on that node.
func (v view) seenOn(node string) bool {
	return v.own.Node == node || v.far != nil && v.far.Node == node
}

// end is an end of a flow, or both, in all that was seen of it.
type end struct {
	at [4]*flow.Endpoint
	n  int
}

func (v view) source() end {
	if v.far == nil {
		return end{[4]*flow.Endpoint{&v.own.Source}, 1}
	}
	return end{[4]*flow.Endpoint{&v.own.Source, &v.far.Source}, 2}
}

func (v view) destination() end {
	if v.far == nil {
		return end{[4]*flow.Endpoint{&v.own.Destination}, 1}
	}
	return end{[4]*flow.Endpoint{&v.own.Destination, &v.far.Destination}, 2}
}

func (v view) either() end {
	if v.far == nil {
		return end{[4]*flow.Endpoint{&v.own.Source, &v.own.Destination}, 2}
	}
	return end{[4]*flow.Endpoint{&v.own.Source, &v.own.Destination, &v.far.Source, &v.far.Destination}, 4}
}

// Filter matches a flow when each field that is set matches. Within a field any value may match.
type Filter struct {
	// As in EndFilter, each at either end.
	Pods       []string
	Namespaces []string
	Containers []string
	Prefixes   []netip.Prefix
	Ports      []uint16
	Workloads  []string
	Services   []string
	Names      []string
	Labels     []LabelSelector
	Cgroups    []string
	// Source and Destination are of that end alone.
	Source, Destination EndFilter

	Transports []flow.Transport
	Directions []flow.Direction
	Outcomes   []flow.Outcome
	// Nodes saw the flow, at either end.
	Nodes []string
}

// EndFilter matches one end of a flow when each field that is set matches it. Within a field any value may match.
type EndFilter struct {
	// Pods are pod names, or "NAMESPACE/NAME".
	Pods       []string
	Namespaces []string
	// Containers are container names, or container ids by a prefix of at least 4 hexadecimal digits in lower case.
	Containers []string
	Prefixes   []netip.Prefix
	Ports      []uint16
	// Workloads and Services are names, or "NAMESPACE/NAME".
	Workloads, Services []string
	// Names are patterns, in lower case, of the DNS name by which the address was looked up; "*" stands for any letters, dots
	// included.
	Names []string
	// Labels are of pods.
	Labels []LabelSelector
	// Cgroups are paths: each stands for that cgroup and all below it.
	Cgroups []string
}

func (f *Filter) match(v view) bool {
	if !matchValue(f.Directions, v.own.Direction) || !matchValue(f.Transports, v.own.Transport) ||
		!matchValue(f.Outcomes, v.outcome()) || !matchAny(f.Nodes, v.seenOn) {
		return false
	}
	e := v.either()
	return matchEnd(f.Ports, &e, isPort) && matchEnd(f.Prefixes, &e, isIn) && matchEnd(f.Namespaces, &e, isOfNamespace) &&
		matchEnd(f.Pods, &e, isPod) && matchEnd(f.Containers, &e, isContainerEnd) && matchEnd(f.Workloads, &e, isWorkload) &&
		matchEnd(f.Services, &e, isService) && matchEnd(f.Names, &e, isLookedUp) && matchEnd(f.Labels, &e, hasLabels) &&
		matchEnd(f.Cgroups, &e, isInCgroup) &&
		(f.Source.Empty() || f.Source.match(v.source())) && (f.Destination.Empty() || f.Destination.match(v.destination()))
}

// Empty is true when the filter matches every end.
func (f *EndFilter) Empty() bool {
	return len(f.Pods)|len(f.Namespaces)|len(f.Containers)|len(f.Prefixes)|len(f.Ports)|
		len(f.Workloads)|len(f.Services)|len(f.Names)|len(f.Labels)|len(f.Cgroups) == 0
}

func (f *EndFilter) match(e end) bool {
	return matchEnd(f.Ports, &e, isPort) && matchEnd(f.Prefixes, &e, isIn) && matchEnd(f.Namespaces, &e, isOfNamespace) &&
		matchEnd(f.Pods, &e, isPod) && matchEnd(f.Containers, &e, isContainerEnd) && matchEnd(f.Workloads, &e, isWorkload) &&
		matchEnd(f.Services, &e, isService) && matchEnd(f.Names, &e, isLookedUp) && matchEnd(f.Labels, &e, hasLabels) &&
		matchEnd(f.Cgroups, &e, isInCgroup)
}

func isPort(port uint16, e *flow.Endpoint) bool        { return e.Addr.Port() == port }
func isIn(p netip.Prefix, e *flow.Endpoint) bool       { return p.Contains(e.Addr.Addr()) }
func isOfNamespace(ns string, e *flow.Endpoint) bool   { return e.Identity.Namespace == ns }
func isContainerEnd(c string, e *flow.Endpoint) bool   { return isContainer(c, &e.Identity) }
func isInCgroup(path string, e *flow.Endpoint) bool    { return isBelow(path, e.Identity.Cgroup) }
func hasLabels(s LabelSelector, e *flow.Endpoint) bool { return s.Match(&e.Identity) }
func isPod(name string, e *flow.Endpoint) bool {
	return isNamed(name, e.Identity.Namespace, e.Identity.Pod)
}
func isWorkload(name string, e *flow.Endpoint) bool {
	return isNamed(name, e.Identity.Namespace, e.Identity.Workload)
}
func isService(name string, e *flow.Endpoint) bool {
	return isNamed(name, e.Identity.Namespace, e.Identity.Service)
}
func isLookedUp(pattern string, e *flow.Endpoint) bool {
	return e.Name != "" && matchPattern(pattern, strings.ToLower(e.Name))
}

func matchValue[T comparable](values []T, v T) bool {
	return len(values) == 0 || slices.Contains(values, v)
}

func matchEnd[T any](values []T, e *end, is func(T, *flow.Endpoint) bool) bool {
	return len(values) == 0 || matchAnyEnd(values, e, is)
}

func matchAnyEnd[T any](values []T, e *end, is func(T, *flow.Endpoint) bool) bool {
	for _, value := range values {
		for _, at := range e.at[:e.n] {
			if is(value, at) {
				return true
			}
		}
	}
	return false
}

// isNamed tells whether a name, or NAMESPACE/NAME, is that of something in the namespace. A value that is not there has no name.
func isNamed(asked, namespace, name string) bool {
	if in, short, qualified := strings.Cut(asked, "/"); qualified {
		return namespace == in && name == short
	}
	return name == asked
}

func isContainer(name string, who *flow.Identity) bool {
	return who.Container == name ||
		len(name) >= minContainerIDPrefix && strings.HasPrefix(who.ContainerID, name)
}
