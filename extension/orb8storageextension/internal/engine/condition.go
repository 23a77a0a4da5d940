package engine

import (
	"slices"
	"strings"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// Conditions are what must hold for a record to be of use: the engine leaves out what cannot match, and whether the rest does is
// decided here, by the same code for all backends. What an engine cannot tell is left out of a condition.

// flowCondition is of those records that alone may select a flow. A flow is selected by what is known of either of its ends, at
// either of them, so that no record needs to have more than one of the things that a filter asks for: the rarest of them is told.
func flowCondition(selection *storage.Selection) Any {
	var any Any
	for i := range selection.Allow {
		f := &selection.Allow[i]
		terms := append(rarest(filterTerms(f)), transportTerms(f)...)
		if len(terms) == 0 {
			return nil
		}
		any = append(any, terms)
	}
	return any
}

func rarest(terms All) All { return terms[:min(1, len(terms))] }

// filterTerms are what a filter asks for, the rarest first.
func filterTerms(f *storage.Filter) All {
	either := storage.EndFilter{
		Pods: f.Pods, Namespaces: f.Namespaces, Containers: f.Containers, Prefixes: f.Prefixes, Ports: f.Ports, Workloads: f.Workloads,
		Services: f.Services, Names: f.Names,
	}
	both := []string{flow.PrefixSource, flow.PrefixDestination}
	all := slices.Concat(endTerms(&either, both...), endTerms(&f.Source, both[0]), endTerms(&f.Destination, both[1]))
	if len(f.Nodes) > 0 {
		all = append(all, ranked{rank: rankNode, Term: Term{Fields: []string{AttrNode}, Equal: f.Nodes}})
	}
	slices.SortStableFunc(all, func(a, b ranked) int { return a.rank - b.rank })
	terms := make(All, len(all))
	for i := range all {
		terms[i] = all[i].Term
	}
	return terms
}

// ranked is a term, and how few records have such a thing: the smaller, the fewer.
type ranked struct {
	Term
	rank int
}

const (
	rankPod = iota
	rankContainer
	rankAddress
	rankName
	rankService
	rankWorkload
	rankNode
	rankNamespace
	rankPort
)

// endTerms are what a filter asks for of an end, or of either.
func endTerms(f *storage.EndFilter, prefixes ...string) []ranked {
	at := func(names ...string) []string {
		var fields []string
		for _, name := range names {
			for _, prefix := range prefixes {
				fields = append(fields, prefix+name)
			}
		}
		return fields
	}
	var all []ranked
	add := func(rank int, t Term) {
		if len(t.Equal)+len(t.Begin)+len(t.Within) > 0 {
			all = append(all, ranked{t, rank})
		}
	}
	add(rankPod, Term{Fields: at(flow.AttrPod), Equal: unqualified(f.Pods)})
	add(rankContainer, Term{Fields: at(flow.AttrContainer, flow.AttrContainerID), Equal: f.Containers, Begin: f.Containers})
	add(rankAddress, Term{Fields: at("address"), Within: f.Prefixes})
	add(rankName, Term{Fields: at(flow.AttrDNSName), Equal: plain(f.Names)})
	add(rankService, Term{Fields: at(flow.AttrService), Equal: unqualified(f.Services)})
	add(rankWorkload, Term{Fields: at(AttrWorkload), Equal: unqualified(f.Workloads)})
	add(rankNamespace, Term{Fields: at(flow.AttrNamespace), Equal: f.Namespaces})
	add(rankPort, Term{Fields: at("port"), Equal: texts(f.Ports, func(p uint16) string { return itoa(uint64(p)) })})
	return all
}

// plain returns names if none is a pattern, which engines do not know.
func plain(names []string) []string {
	if slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, "*") }) {
		return nil
	}
	return names
}

// transportTerms are what both ends see alike.
func transportTerms(f *storage.Filter) All {
	if len(f.Transports) == 0 {
		return nil
	}
	return All{{Fields: []string{flow.AttrTransport}, Equal: texts(f.Transports, flow.Transport.String)}}
}

// lookupCondition is of those lookups that may be selected: a lookup is one record.
func lookupCondition(selection *storage.LookupSelection) Any {
	var any Any
	for i := range selection.Allow {
		f := &selection.Allow[i]
		var names All
		if equal := plain(f.Names); len(equal) > 0 {
			names = All{{Fields: []string{flow.AttrQuestionName}, Equal: equal}}
		}
		questions := []storage.Filter{{}}
		if len(f.Flows.Allow) > 0 {
			questions = f.Flows.Allow
		}
		for j := range questions {
			terms := slices.Concat(names, filterTerms(&questions[j]), transportTerms(&questions[j]))
			if len(terms) == 0 {
				return nil
			}
			any = append(any, terms)
		}
	}
	return any
}

// callerTerms are what a filter asks for of a caller.
func callerTerms(f *storage.SyscallFilter) All {
	var all All
	if len(f.Pods) > 0 {
		all = append(all, Term{Fields: []string{flow.AttrPod}, Equal: unqualified(f.Pods)})
	}
	if len(f.Containers) > 0 {
		all = append(all, Term{Fields: []string{flow.AttrContainer, flow.AttrContainerID}, Equal: f.Containers, Begin: f.Containers})
	}
	if len(f.Namespaces) > 0 {
		all = append(all, Term{Fields: []string{flow.AttrNamespace}, Equal: f.Namespaces})
	}
	if len(f.Workloads) > 0 {
		all = append(all, Term{Fields: []string{AttrWorkload}, Equal: unqualified(f.Workloads)})
	}
	if len(f.Nodes) > 0 {
		all = append(all, Term{Fields: []string{AttrNode}, Equal: f.Nodes})
	}
	return all
}

func syscallCondition(selection *storage.SyscallSelection) Any {
	var any Any
	for i := range selection.Allow {
		terms := callerTerms(&selection.Allow[i])
		if len(terms) == 0 {
			return nil
		}
		any = append(any, terms)
	}
	return any
}

func anomalyCondition(selection *storage.AnomalySelection) Any {
	var any Any
	for i := range selection.Allow {
		f := &selection.Allow[i]
		terms := callerTerms(&f.Call)
		if len(f.Rules) > 0 {
			terms = append(terms, Term{Fields: []string{syscalls.AttrRule}, Equal: f.Rules})
		}
		if len(terms) == 0 {
			return nil
		}
		any = append(any, terms)
	}
	return any
}

// unqualified returns names without their namespaces.
func unqualified(names []string) []string {
	return texts(names, func(name string) string { return name[strings.IndexByte(name, '/')+1:] })
}

func texts[T any](values []T, text func(T) string) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = text(v)
	}
	return all
}
