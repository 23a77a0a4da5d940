package storage

import (
	"strings"
	"time"

	"github.com/orb8/orb8/internal/flow"
)

// LookupQuery selects DNS lookups. The zero value selects all that the store covers.
type LookupQuery struct {
	// Since and Until bound the range [Since, Until) of Lookup.Time. Zero values are no bounds.
	Since, Until time.Time
	Selection    LookupSelection
	// Limit is the most lookups to return; 0 means no limit.
	Limit int
	// After is as in FlowQuery.
	After string
}

// LookupResult is the answer to a LookupQuery.
type LookupResult struct {
	// Lookups are ordered newest first, of the same instant by node, client, server, name, and what else LookupKey has.
	Lookups []flow.Lookup
	// Any lost event may have been a part of a lookup.
	Coverage
}

// LookupSelection matches a lookup that matches any filter of Allow (any lookup, when Allow is empty) and none of Deny.
type LookupSelection struct {
	Allow, Deny []LookupFilter
}

// Empty is true when the selection matches every lookup.
func (s *LookupSelection) Empty() bool {
	return len(s.Allow) == 0 && len(s.Deny) == 0
}

// Match tells whether the lookup is selected.
func (s *LookupSelection) Match(l *flow.Lookup) bool {
	return matchLists(s.Allow, s.Deny, func(f *LookupFilter) bool { return f.match(l) })
}

// LookupFilter matches a lookup when each field that is set matches. Within a field any value may match.
type LookupFilter struct {
	// Flows selects by the question's flow, from client to server.
	Flows Selection
	// Names are patterns of the name that was asked for, in lower case; "*" stands for any letters, dots included.
	Names []string
	// Types and RCodes are in the letters of flow.Lookup, or in others: case does not matter.
	Types, RCodes []string
}

func (f *LookupFilter) match(l *flow.Lookup) bool {
	if !matchFold(f.Types, l.Type) || !matchFold(f.RCodes, l.RCode) || !matchNames(f.Names, l.Name) {
		return false
	}
	if f.Flows.Empty() {
		return true
	}
	question := l.Record()
	return f.Flows.Match(&question)
}

func matchFold(values []string, s string) bool {
	for _, v := range values {
		if strings.EqualFold(v, s) {
			return true
		}
	}
	return len(values) == 0
}

func matchNames(patterns []string, name string) bool {
	if len(patterns) == 0 {
		return true
	}
	name = strings.ToLower(name)
	for _, p := range patterns {
		if matchPattern(p, name) {
			return true
		}
	}
	return false
}

// matchPattern takes for each part between asterisks its first place in the rest of the name: a later one could match no
// more than that.
func matchPattern(pattern, name string) bool {
	part, rest, more := strings.Cut(pattern, "*")
	if !more {
		return part == name
	}
	name, ok := strings.CutPrefix(name, part)
	for ok {
		if part, rest, more = strings.Cut(rest, "*"); !more {
			return strings.HasSuffix(name, part)
		}
		_, name, ok = strings.Cut(name, part)
	}
	return false
}
