package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// filters are what the filter flags of a command line say.
type filters struct {
	allow *choice
	// deny holds one choice for each flag that --not denies.
	deny []*choice
	// not is true between --not and the flag that it is for.
	not bool
}

// choice is what must be true of a row at the same time. It holds what any kind of row can be chosen by; which of it a command has
// flags for is that command's.
type choice struct {
	// flow also has the pods, namespaces, workloads, labels, containers and nodes of system calls.
	flow orb8v1.FlowFilter
	from []end
	to   []end
	// names are DNS names: those of a flow's ends, or those that a lookup asks for.
	names    []string
	types    []string
	rcodes   []string
	cgroups  []string
	syscalls []string
	rules    []string
	devices  []string
	severity orb8v1.Severity
}

// next returns the choice that the flag now being read belongs to.
func (f *filters) next() *choice {
	if !f.not {
		return f.allow
	}
	f.not = false
	f.deny = append(f.deny, &choice{})
	return f.deny[len(f.deny)-1]
}

// check finds a --not that nothing followed.
func (f *filters) check() error {
	if f.not {
		return usagef("--not denies the filter that follows it, and none does; put it before one, such as --not --port 53")
	}
	return nil
}

// filterFlags adds filter flags to a command, with usage texts about such rows (flows, calls).
type filterFlags struct {
	cmd     *cobra.Command
	app     *app
	rows    string
	filters *filters
}

func newFilterFlags(cmd *cobra.Command, a *app, rows string) *filterFlags {
	f := &filterFlags{cmd: cmd, app: a, rows: rows, filters: &filters{allow: &choice{}}}
	cmd.Flags().BoolFunc("not", "deny what the next filter flag chooses: --not --port 53", func(value string) error {
		if value != "true" {
			return errors.New("it takes no value; put it before the filter that it denies")
		}
		// Twice is once: the shell's completion reads the flags twice.
		f.filters.not = true
		return nil
	})
	return f
}

// addList adds a flag that may be repeated and takes several values between commas. usage follows "only flows ".
func addList[T any](f *filterFlags, name, short, usage string, field func(*choice) *[]T, parse func(string) (T, error)) {
	f.cmd.Flags().FuncP(name, short, "only "+f.rows+" "+usage, func(list string) error {
		return each(field(f.filters.next()), parse)(list)
	})
}

// addFlow adds the flags that choose flows, but not how those ended.
func (f *filterFlags) addFlow() {
	const either = ", at either end"
	addList(f, "from", "", "from this `END`: NAMESPACE/POD, NAMESPACE/, svc/SERVICE, an address, ...; see above",
		func(c *choice) *[]end { return &c.from }, parseEnd)
	addList(f, "to", "", "to this `END`, as --from", func(c *choice) *[]end { return &c.to }, parseEnd)
	f.addPods(either)
	addList(f, "service", "", "of this Kubernetes `SERVICE` or NAMESPACE/SERVICE"+either,
		func(c *choice) *[]string { return &c.flow.Services }, parseQualified)
	addList(f, "ip", "", "of this `ADDRESS` or CIDR prefix"+either, func(c *choice) *[]string { return &c.flow.Ips }, parseIP)
	addList(f, "port", "", "of this `PORT`"+either, func(c *choice) *[]uint32 { return &c.flow.Ports }, parsePort)
	addList(f, "protocol", "", "of this `PROTOCOL`: "+strings.Join(protocolNames(), ", ")+" or a number",
		func(c *choice) *[]string { return &c.flow.Protocols }, parseProtocol)
	addList(f, "direction", "", "of this `DIRECTION`: ingress, egress or transit",
		func(c *choice) *[]orb8v1.Direction { return &c.flow.Directions }, parseDirection)
	f.addCgroup(either)
	f.addNode("that this `NODE` saw")
	complete(f.cmd, "protocol", protocolNames())
	complete(f.cmd, "direction", []string{"ingress", "egress", "transit"})
	f.completeEnds()
}

// addFlowName adds the filter by the DNS name of an end.
func (f *filterFlags) addFlowName() {
	addList(f, "name", "", "of an address that was looked up by this DNS `NAME`, at either end; * stands for any letters",
		func(c *choice) *[]string { return &c.names }, parseName)
}

// addOutcome adds the filter by the verdict on a TCP connection.
func (f *filterFlags) addOutcome() {
	addList(f, "outcome", "", "of TCP connections that ended with this `OUTCOME`: "+anyOf(outcomeNames()),
		func(c *choice) *[]string { return &c.flow.Outcomes }, parseOutcome)
	complete(f.cmd, "outcome", outcomeNames())
}

// addLookup adds the flags that choose lookups by what was asked and answered.
func (f *filterFlags) addLookup() {
	addList(f, "name", "", "of this `NAME`; * stands for any letters", func(c *choice) *[]string { return &c.names }, parseName)
	f.addLookupResult()
}

func (f *filterFlags) addLookupResult() {
	addList(f, "type", "", "of this `TYPE`: A, AAAA, PTR, SRV, ...", func(c *choice) *[]string { return &c.types }, parseWord)
	addList(f, "rcode", "", "with this response `CODE`: NOERROR, NXDOMAIN, SERVFAIL, ..., or timeout",
		func(c *choice) *[]string { return &c.rcodes }, parseWord)
	complete(f.cmd, "type", []string{"A", "AAAA", "CNAME", "HTTPS", "MX", "NS", "PTR", "SOA", "SRV", "TXT"})
	complete(f.cmd, "rcode", []string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "timeout"})
}

// addPods adds the flags that choose by the pod and container of a row, or of its ends.
func (f *filterFlags) addPods(where string) {
	addList(f, "pod", "", "of this `POD` or NAMESPACE/POD"+where, func(c *choice) *[]string { return &c.flow.Pods }, parseQualified)
	addList(f, "namespace", "", "of this Kubernetes `NAMESPACE`"+where, func(c *choice) *[]string { return &c.flow.Namespaces }, parseName)
	addList(f, "workload", "", "of this `WORKLOAD` (the owner of pods, such as a Deployment) or NAMESPACE/WORKLOAD"+where,
		func(c *choice) *[]string { return &c.flow.Workloads }, parseQualified)
	// Commas belong to a selector.
	f.cmd.Flags().FuncP("label", "l", "only "+f.rows+" of pods with these labels"+where+": a `SELECTOR` as for kubectl, app=web,tier!=cache",
		func(selector string) error {
			s, err := parseSelector(selector)
			if err != nil {
				return err
			}
			c := f.filters.next()
			c.flow.Labels = append(c.flow.Labels, s)
			return nil
		})
	addList(f, "container", "", "of this container `NAME` or id (its first 4 digits or more)"+where,
		func(c *choice) *[]string { return &c.flow.Containers }, parseName)
	f.completePods()
}

func (f *filterFlags) addNode(usage string) {
	addList(f, "node", "", usage, func(c *choice) *[]string { return &c.flow.Nodes }, parseName)
	f.completeNodes()
}

// addCaller adds the flags that choose by who makes system calls.
func (f *filterFlags) addCaller() {
	f.addPods("")
	f.addCgroup("")
	f.addNode("on this `NODE`")
}

func (f *filterFlags) addCgroup(where string) {
	addList(f, "cgroup", "", "of this cgroup and those below it, by its `PATH`, such as /system.slice/nginx.service"+where,
		func(c *choice) *[]string { return &c.cgroups }, parseCgroup)
}

func (f *filterFlags) addSyscall() {
	// Not "only calls": anomalies are chosen by it too.
	addList(f, "syscall", "", "of this system call, by its `NAME`, or its number where it has none",
		func(c *choice) *[]string { return &c.syscalls }, parseSyscall)
	complete(f.cmd, "syscall", syscallNames())
}

func (f *filterFlags) addAnomaly() {
	f.cmd.Flags().Func("severity", "only "+f.rows+" of this `SEVERITY` or a graver one: "+anyOf(severityNames()), func(s string) (err error) {
		f.filters.next().severity, err = parseSeverity(s)
		return err
	})
	addList(f, "rule", "", "that this `RULE` found", func(c *choice) *[]string { return &c.rules }, parseName)
	complete(f.cmd, "severity", severityNames())
}

// flows are the filters of flows that together match the choice: one for each pair of kinds of ends, as within a filter all must
// match.
func (c *choice) flows() []*orb8v1.FlowFilter {
	base := proto.CloneOf(&c.flow)
	base.Names, base.Cgroups = c.names, c.cgroups
	return c.withEnds(base)
}

func (c *choice) withEnds(base *orb8v1.FlowFilter) []*orb8v1.FlowFilter {
	sources, destinations := endpointFilters(c.from), endpointFilters(c.to)
	if len(sources)+len(destinations) == 0 {
		if proto.Size(base) == 0 {
			return nil
		}
		return []*orb8v1.FlowFilter{base}
	}
	var all []*orb8v1.FlowFilter
	for _, source := range orNone(sources) {
		for _, destination := range orNone(destinations) {
			one := proto.CloneOf(base)
			one.Source, one.Destination = source, destination
			all = append(all, one)
		}
	}
	return all
}

// orNone makes a loop over no filters run once, with none.
func orNone(filters []*orb8v1.EndpointFilter) []*orb8v1.EndpointFilter {
	if len(filters) == 0 {
		return []*orb8v1.EndpointFilter{nil}
	}
	return filters
}

func (c *choice) lookups() []*orb8v1.DnsFilter {
	base := proto.CloneOf(&c.flow)
	base.Cgroups = c.cgroups
	flows := c.withEnds(base)
	if len(flows) == 0 {
		if len(c.names)+len(c.types)+len(c.rcodes) == 0 {
			return nil
		}
		flows = []*orb8v1.FlowFilter{nil}
	}
	all := make([]*orb8v1.DnsFilter, len(flows))
	for i, flow := range flows {
		all[i] = &orb8v1.DnsFilter{Flow: flow, Names: c.names, Types: c.types, Rcodes: c.rcodes}
	}
	return all
}

func (c *choice) calls() []*orb8v1.SyscallFilter {
	f := &orb8v1.SyscallFilter{
		Pods: c.flow.Pods, Namespaces: c.flow.Namespaces, Workloads: c.flow.Workloads, Labels: c.flow.Labels,
		Containers: c.flow.Containers, Nodes: c.flow.Nodes, Cgroups: c.cgroups, Syscalls: c.syscalls,
	}
	if proto.Size(f) == 0 {
		return nil
	}
	return []*orb8v1.SyscallFilter{f}
}

func (c *choice) anomalies() []*orb8v1.AnomalyFilter {
	f := &orb8v1.AnomalyFilter{Rules: c.rules, MinSeverity: c.severity}
	if calls := c.calls(); calls != nil {
		f.Syscall = calls[0]
	}
	if proto.Size(f) == 0 {
		return nil
	}
	return []*orb8v1.AnomalyFilter{f}
}

// denied are the filters of all that is denied; of is a method of choice.
func denied[T any](f *filters, of func(*choice) []T) []T {
	var all []T
	for _, c := range f.deny {
		all = slices.Concat(all, of(c))
	}
	return all
}

// filterHelp goes into the help of commands that have filters.
const filterHelp = `A filter flag may be repeated and takes several values between commas: any of them may match. Of
different flags all must match, and --not before one denies what it chooses.`

// addFlowFilters gives a command the flags that choose flows.
func addFlowFilters(cmd *cobra.Command, a *app) *filters {
	f := newFilterFlags(cmd, a, "flows")
	f.addFlow()
	f.addFlowName()
	f.addOutcome()
	return f.filters
}

// addLookupFilters gives a command the flags that choose DNS lookups.
func addLookupFilters(cmd *cobra.Command, a *app) *filters {
	f := newFilterFlags(cmd, a, "lookups")
	f.addLookup()
	f.addFlow()
	return f.filters
}

// addContainerFilters gives a command the flags that choose by who calls.
func addContainerFilters(cmd *cobra.Command, a *app) *filters {
	f := newFilterFlags(cmd, a, "calls")
	f.addCaller()
	return f.filters
}

// addCallFilters gives a command the flags that choose system calls.
func addCallFilters(cmd *cobra.Command, a *app) *filters {
	f := newFilterFlags(cmd, a, "calls")
	f.addCaller()
	f.addSyscall()
	return f.filters
}

// addAnomalyFilters gives a command the flags that choose anomalies.
func addAnomalyFilters(cmd *cobra.Command, a *app) *filters {
	f := newFilterFlags(cmd, a, "anomalies")
	f.addAnomaly()
	f.addCaller()
	f.addSyscall()
	return f.filters
}
