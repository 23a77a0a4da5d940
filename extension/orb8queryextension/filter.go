package orb8queryextension

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

const (
	// maxFilterValues bounds what a request can make the store do for every record, and the writer for every event.
	maxFilterValues = 1024
	// maxPatternBytes is room for the longest DNS name, 253 letters, and an asterisk between any two of them.
	maxPatternBytes = 512
	// mappedBits is the length of the prefix ::ffff:0:0/96, below which IPv6 holds IPv4.
	mappedBits = 96
)

var errEmpty = errors.New("must not be empty")

func parseSelection(allow, deny []*orb8v1.FlowFilter) (s storage.Selection, err error) {
	s.Allow, s.Deny, err = parseLists("allow", "deny", allow, deny, filterValues, parseFilter)
	return s, err
}

// parseLists parses the filters of two fields, once it knows that they are not too many: values says how many values a filter compares
// a record with. A filter that is set to nothing still costs one.
func parseLists[In, Out any](
	allowField, denyField string, allow, deny []In, values func(In) int, parse func(In) (Out, error),
) (allowed, denied []Out, err error) {
	n := 0
	for _, f := range slices.Concat(allow, deny) {
		n += 1 + values(f)
	}
	if n > maxFilterValues {
		return nil, nil, fmt.Errorf("%s and %s: %d filters and values are too many; use at most %d", allowField, denyField, n, maxFilterValues)
	}
	if allowed, err = parseAll(allowField, allow, parse); err != nil {
		return nil, nil, err
	}
	if denied, err = parseAll(denyField, deny, parse); err != nil {
		return nil, nil, err
	}
	return allowed, denied, nil
}

// endFields are the fields that say whom a filter looks for, at either end of a flow or at one.
type endFields interface {
	GetPods() []string
	GetNamespaces() []string
	GetContainers() []string
	GetIps() []string
	GetPorts() []uint32
	GetWorkloads() []string
	GetServices() []string
	GetNames() []string
	GetLabels() []string
	GetCgroups() []string
}

func endValues(f endFields) int {
	return len(f.GetPods()) + len(f.GetNamespaces()) + len(f.GetContainers()) + len(f.GetIps()) + len(f.GetPorts()) +
		len(f.GetWorkloads()) + len(f.GetServices()) + len(f.GetNames()) + labelValues(f.GetLabels()) +
		len(f.GetCgroups())
}

// labelValues counts what selectors compare with, which is no more than the commas tell.
func labelValues(selectors []string) int {
	n := len(selectors)
	for _, s := range selectors {
		n += strings.Count(s, ",")
	}
	return n
}

func filterValues(f *orb8v1.FlowFilter) int {
	return endValues(f) + endValues(f.GetSource()) + endValues(f.GetDestination()) +
		len(f.GetProtocols()) + len(f.GetDirections()) + len(f.GetOutcomes()) + len(f.GetNodes())
}

func parseEnd(f endFields) (storage.EndFilter, error) {
	var out storage.EndFilter
	var errs [10]error
	out.Pods, errs[0] = parseAll("pods", f.GetPods(), parseQualified("pod"))
	out.Namespaces, errs[1] = parseAll("namespaces", f.GetNamespaces(), parseName)
	out.Containers, errs[2] = parseAll("containers", f.GetContainers(), parseName)
	out.Prefixes, errs[3] = parseAll("ips", f.GetIps(), parsePrefix)
	out.Ports, errs[4] = parseAll("ports", f.GetPorts(), parsePort)
	out.Workloads, errs[5] = parseAll("workloads", f.GetWorkloads(), parseQualified("workload"))
	out.Services, errs[6] = parseAll("services", f.GetServices(), parseQualified("Service"))
	out.Names, errs[7] = parseAll("names", f.GetNames(), parseNamePattern)
	out.Labels, errs[8] = parseAll("labels", f.GetLabels(), storage.ParseLabelSelector)
	out.Cgroups, errs[9] = parseAll("cgroups", f.GetCgroups(), parseCgroup)
	return out, cmp.Or(errs[:]...)
}

func parseFilter(f *orb8v1.FlowFilter) (storage.Filter, error) {
	either, err := parseEnd(f)
	if err != nil {
		return storage.Filter{}, err
	}
	out := storage.Filter{
		Pods: either.Pods, Namespaces: either.Namespaces, Containers: either.Containers, Prefixes: either.Prefixes, Ports: either.Ports,
		Workloads: either.Workloads, Services: either.Services, Names: either.Names, Labels: either.Labels,
		Cgroups: either.Cgroups,
	}
	if out.Source, err = parseEnd(f.GetSource()); err != nil {
		return storage.Filter{}, fmt.Errorf("source: %w", err)
	}
	if out.Destination, err = parseEnd(f.GetDestination()); err != nil {
		return storage.Filter{}, fmt.Errorf("destination: %w", err)
	}
	var errs [4]error
	out.Transports, errs[0] = parseAll("protocols", f.GetProtocols(), flow.ParseTransport)
	out.Directions, errs[1] = parseAll("directions", f.GetDirections(), func(d orb8v1.Direction) (flow.Direction, error) {
		return flow.ParseDirection(strings.TrimPrefix(d.String(), "DIRECTION_"))
	})
	out.Outcomes, errs[2] = parseAll("outcomes", f.GetOutcomes(), parseOutcome)
	out.Nodes, errs[3] = parseAll("nodes", f.GetNodes(), parseName)
	if slices.ContainsFunc(f.GetProtocols(), func(p string) bool { return strings.EqualFold(p, flow.ICMP.String()) }) {
		out.Transports = append(out.Transports, flow.ICMPv6)
	}
	return out, cmp.Or(errs[:]...)
}

// parseAll parses the values of a repeated field; an error names the field and the position.
func parseAll[In, Out any](field string, in []In, parse func(In) (Out, error)) ([]Out, error) {
	var out []Out
	for i, v := range in {
		o, err := parse(v)
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", field, i, err)
		}
		out = append(out, o)
	}
	return out, nil
}

func parseName(s string) (string, error) {
	if s == "" {
		return "", errEmpty
	}
	return s, nil
}

// parseNamePattern takes a name with its last dot as well: names are kept without.
func parseNamePattern(s string) (string, error) {
	if len(s) > 1 {
		s = strings.TrimSuffix(s, ".")
	}
	// Repeated asterisks say no more than one.
	for strings.Contains(s, "**") {
		s = strings.ReplaceAll(s, "**", "*")
	}
	if len(s) > maxPatternBytes {
		return "", fmt.Errorf("a pattern of %d letters is longer than any name; use at most %d", len(s), maxPatternBytes)
	}
	return parseName(strings.ToLower(s))
}

// parseOutcome takes no empty value: it would be the outcome of everything that has not ended.
func parseOutcome(s string) (flow.Outcome, error) {
	if s == "" {
		return flow.OutcomeUnknown, errEmpty
	}
	return flow.ParseOutcome(s)
}

// parseQualified returns the parser of a name that may say its namespace.
func parseQualified(what string) func(string) (string, error) {
	return func(s string) (string, error) {
		namespace, name, qualified := strings.Cut(s, "/")
		if !qualified {
			return parseName(s)
		}
		if namespace == "" || name == "" || strings.Contains(name, "/") {
			return "", fmt.Errorf("%q is not a %s; use NAME or NAMESPACE/NAME", s, what)
		}
		return s, nil
	}
}

// parsePrefix takes an address as the prefix of its full length. The store knows IPv4 addresses as such only, and no
// zones.
func parsePrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		addr = addr.Unmap().WithZone("")
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an IP address nor a prefix; use for example 10.0.0.1 or 2001:db8::/32", s)
	}
	if prefix.Addr().Is4In6() && prefix.Bits() >= mappedBits {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-mappedBits)
	}
	return prefix.Masked(), nil
}

func parsePort(port uint32) (uint16, error) {
	if port > math.MaxUint16 {
		return 0, fmt.Errorf("%d is not a port; use 0 to %d", port, math.MaxUint16)
	}
	return uint16(port), nil
}
