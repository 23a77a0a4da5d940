package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// recordSignal is a kind of record that can be summed: what its records can be grouped by, summed to, and chosen by. The server has the
// last word on the first two: they are here for help and completion.
type recordSignal struct {
	name       string
	id         orb8v1.Signal
	dimensions []string
	// measures begin with the default.
	measures []string
	// filters are the flags that choose among its records.
	filters []string
}

func signals() []recordSignal {
	everywhere := []string{"not", "pod", "namespace", "workload", "label", "container", "cgroup", "node"}
	ends := append(slices.Clone(everywhere), "from", "to", "service", "ip", "port", "protocol", "direction", "name")
	calls := append(slices.Clone(everywhere), "syscall")
	ofCaller := []string{"pod", "namespace", "container", "cgroup", "node", "syscall"}
	return []recordSignal{
		{
			name: "flows", id: orb8v1.Signal_SIGNAL_FLOWS,
			dimensions: append(ofEnds("source", "destination"), "node", "direction", "transport", "outcome"),
			measures:   []string{"bytes", "packets", "connections", "retransmits", "zero_windows", "errors"},
			filters:    append(slices.Clone(ends), "outcome"),
		},
		{
			name: "dns", id: orb8v1.Signal_SIGNAL_DNS,
			dimensions: append(ofEnds("client", "server"), "node", "name", "type", "rcode"),
			measures:   []string{"lookups", "queries", "errors", "latency"},
			filters:    append(slices.Clone(ends), "type", "rcode"),
		},
		{
			name: "syscalls", id: orb8v1.Signal_SIGNAL_SYSCALLS,
			dimensions: ofCaller, measures: []string{"calls", "errors", "latency"}, filters: calls,
		},
		{
			name: "anomalies", id: orb8v1.Signal_SIGNAL_ANOMALIES,
			dimensions: append(slices.Clone(ofCaller), "rule", "severity", "workload"), measures: []string{"anomalies"},
			filters: append(slices.Clone(calls), "severity", "rule"),
		},
	}
}

// ofEnds are the dimensions of the ends of a flow or lookup.
func ofEnds(ends ...string) []string {
	var all []string
	for _, end := range ends {
		for _, what := range []string{"pod", "namespace", "workload", "service", "container", "node", "address", "port", "name", "process", "cgroup"} {
			if end != "source" && end != "destination" && (what == "node" || what == "port") {
				continue // a lookup has one node, and its ports say nothing
			}
			all = append(all, end+"."+what)
		}
	}
	return all
}

func signalNames() []string {
	var names []string
	for _, s := range signals() {
		names = append(names, s.name)
	}
	return names
}

func signalOf(name string) recordSignal {
	all := signals()
	return all[slices.IndexFunc(all, func(s recordSignal) bool { return s.name == name })]
}

// addSignalFilters gives a command the flags that choose records of any signal.
func addSignalFilters(cmd *cobra.Command, a *app) *filters {
	f := newFilterFlags(cmd, a, "records")
	f.addFlow()
	f.addFlowName()
	f.addOutcome()
	f.addLookupResult()
	f.addSyscall()
	f.addAnomaly()
	return f.filters
}

// checkFilters finds filters that say nothing about the records of a signal.
func (s recordSignal) checkFilters(cmd *cobra.Command) error {
	for _, other := range signals() {
		for _, flag := range other.filters {
			if cmd.Flags().Changed(flag) && !slices.Contains(s.filters, flag) {
				return usagef("--%s does not choose among %s; use some of --%s", flag, s.name, strings.Join(s.filters, ", --"))
			}
		}
	}
	return nil
}

// setFilters puts the filters into a request.
func (s recordSignal) setFilters(req *orb8v1.AggregateRequest, f *filters) {
	switch s.id {
	case orb8v1.Signal_SIGNAL_FLOWS:
		req.Allow, req.Deny = f.allow.flows(), denied(f, (*choice).flows)
	case orb8v1.Signal_SIGNAL_DNS:
		req.Dns, req.DenyDns = f.allow.lookups(), denied(f, (*choice).lookups)
	case orb8v1.Signal_SIGNAL_SYSCALLS:
		req.Syscalls, req.DenySyscalls = f.allow.calls(), denied(f, (*choice).calls)
	case orb8v1.Signal_SIGNAL_ANOMALIES:
		req.Anomalies, req.DenyAnomalies = f.allow.anomalies(), denied(f, (*choice).anomalies)
	}
}
