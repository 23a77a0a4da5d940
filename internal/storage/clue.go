package storage

import (
	"net/netip"
	"slices"

	"github.com/orb8/orb8/internal/flow"
)

// Clue is what an end of a flow that a filter matches must be, or have been seen as at the other end. One of its fields is set.
type Clue struct {
	Identity func(*flow.Identity) bool
	Address  func(netip.Addr) bool
}

// Clues returns a clue for each filter of Allow, by which a store that has an index need not look at every flow. There are none where
// any flow may match, or where a filter asks for nothing that is told by an end's identity or address.
func (s *Selection) Clues() []Clue {
	clues := make([]Clue, 0, len(s.Allow))
	for i := range s.Allow {
		c, ok := s.Allow[i].clue()
		if !ok {
			return nil
		}
		clues = append(clues, c)
	}
	return clues
}

// clue returns that of the field which the fewest flows have, as far as can be told from the field alone.
func (f *Filter) clue() (Clue, bool) {
	ends := []EndFilter{
		{
			Pods: f.Pods, Namespaces: f.Namespaces, Containers: f.Containers, Prefixes: f.Prefixes, Workloads: f.Workloads,
			Services: f.Services, Labels: f.Labels, Cgroups: f.Cgroups,
		},
		f.Source, f.Destination,
	}
	for _, by := range []func(*EndFilter) (Clue, bool){
		func(e *EndFilter) (Clue, bool) { return identityClue(e.Containers, isContainerEnd) },
		func(e *EndFilter) (Clue, bool) { return identityClue(e.Pods, isPod) },
		func(e *EndFilter) (Clue, bool) { return identityClue(e.Cgroups, isInCgroup) },
		func(e *EndFilter) (Clue, bool) { return identityClue(e.Services, isService) },
		func(e *EndFilter) (Clue, bool) { return identityClue(e.Workloads, isWorkload) },
		func(e *EndFilter) (Clue, bool) {
			return Clue{Address: func(a netip.Addr) bool {
				return slices.ContainsFunc(e.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
			}}, len(e.Prefixes) > 0
		},
		func(e *EndFilter) (Clue, bool) { return identityClue(e.Namespaces, isOfNamespace) },
		func(e *EndFilter) (Clue, bool) { return identityClue(e.Labels, hasLabels) },
	} {
		for i := range ends {
			if c, ok := by(&ends[i]); ok {
				return c, true
			}
		}
	}
	return Clue{}, false
}

func identityClue[T any](values []T, is func(T, *flow.Endpoint) bool) (Clue, bool) {
	return Clue{Identity: func(who *flow.Identity) bool {
		e := flow.Endpoint{Identity: *who}
		return slices.ContainsFunc(values, func(v T) bool { return is(v, &e) })
	}}, len(values) > 0
}

// ByIdentity tells whether the selection asks only who the ends are, which node saw the flow, its direction and its transport.
func (s *Selection) ByIdentity() bool {
	other := func(e *EndFilter) bool { return len(e.Prefixes)|len(e.Ports)|len(e.Names) != 0 }
	return !slices.ContainsFunc(slices.Concat(s.Allow, s.Deny), func(f Filter) bool {
		return len(f.Prefixes)|len(f.Ports)|len(f.Names)|len(f.Outcomes) != 0 || other(&f.Source) || other(&f.Destination)
	})
}
