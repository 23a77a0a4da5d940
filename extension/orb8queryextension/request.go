package orb8queryextension

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

// maxFilterValues bounds what a request can make the store do for every record, and the writer for every event.
const maxFilterValues = 1024

// mappedBits is the length of the prefix ::ffff:0:0/96, below which IPv6 holds IPv4.
const mappedBits = 96

var errEmpty = errors.New("must not be empty")

// parseQuery checks a request. Errors name the field and its value.
func parseQuery(req *orb8v1.QueryFlowsRequest, maxRows int) (storage.FlowQuery, error) {
	since, until, err := parseRange(req.GetSince(), req.GetUntil())
	if err != nil {
		return storage.FlowQuery{}, err
	}
	selection, err := parseSelection(req.GetAllow(), req.GetDeny())
	if err != nil {
		return storage.FlowQuery{}, err
	}
	return storage.FlowQuery{
		Since: since, Until: until, Selection: selection, SeparateEnds: req.GetSeparateEnds(),
		Limit: parseLimit(req.GetLimit(), maxRows),
	}, nil
}

func parseRange(from, to *timestamppb.Timestamp) (since, until time.Time, err error) {
	if since, err = parseTime("since", from); err != nil {
		return since, until, err
	}
	if until, err = parseTime("until", to); err != nil {
		return since, until, err
	}
	if !since.IsZero() && !until.IsZero() && !since.Before(until) {
		err = fmt.Errorf("since: %s is not before until, %s", since.Format(time.RFC3339Nano), until.Format(time.RFC3339Nano))
	}
	return since, until, err
}

// parseLimit takes 0 for as many rows as there may be.
func parseLimit(asked uint32, maxRows int) int {
	if asked == 0 {
		return maxRows
	}
	return int(min(int64(asked), int64(maxRows)))
}

// parseEventSelection checks a request. Errors name the field and its value.
func parseEventSelection(req *orb8v1.StreamEventsRequest) (storage.EventSelection, error) {
	selection, err := parseSelection(req.GetAllow(), req.GetDeny())
	if err != nil {
		return storage.EventSelection{}, err
	}
	kinds, err := parseAll("kinds", req.GetKinds(), parseEventKind)
	if err != nil {
		return storage.EventSelection{}, err
	}
	lookups, err := parseLookupSelection("dns", req.GetDns())
	if err != nil {
		return storage.EventSelection{}, err
	}
	calls, err := parseSyscallFilters("syscalls", req.GetSyscalls())
	if err != nil {
		return storage.EventSelection{}, err
	}
	anomalies, err := parseAnomalyFilters("anomalies", req.GetAnomalies())
	// However often a kind is repeated, the writer compares with it once.
	slices.Sort(kinds)
	return storage.EventSelection{
		Kinds: slices.Compact(kinds), Flows: selection, Lookups: lookups,
		Syscalls:  storage.SyscallSelection{Allow: calls},
		Anomalies: storage.AnomalySelection{Allow: anomalies},
	}, err
}

func parseEventKind(k orb8v1.EventKind) (storage.EventKind, error) {
	switch k {
	case orb8v1.EventKind_EVENT_KIND_SYSCALL:
		return storage.EventSyscall, nil
	case orb8v1.EventKind_EVENT_KIND_ANOMALY:
		return storage.EventAnomaly, nil
	}
	kind, err := flow.ParseEventKind(strings.TrimPrefix(k.String(), "EVENT_KIND_"))
	return storage.EventKind(kind), err
}

func parseTime(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", field, err)
	}
	return t.AsTime(), nil
}

func parseSelection(allow, deny []*orb8v1.FlowFilter) (storage.Selection, error) {
	values := 0
	for _, f := range slices.Concat(allow, deny) {
		values += 1 + filterValues(f)
	}
	if err := checkFilterValues("allow and deny", values); err != nil {
		return storage.Selection{}, err
	}
	var s storage.Selection
	var err error
	if s.Allow, err = parseAll("allow", allow, parseFilter); err != nil {
		return storage.Selection{}, err
	}
	if s.Deny, err = parseAll("deny", deny, parseFilter); err != nil {
		return storage.Selection{}, err
	}
	return s, nil
}

// checkFilterValues bounds what one list of filters makes of a record; a filter that is set to nothing still costs one.
func checkFilterValues(field string, values int) error {
	if values > maxFilterValues {
		return fmt.Errorf("%s: %d filters and values are too many; use at most %d", field, values, maxFilterValues)
	}
	return nil
}

func filterValues(f *orb8v1.FlowFilter) int {
	return len(f.GetPods()) + len(f.GetNamespaces()) + len(f.GetContainers()) + len(f.GetIps()) + len(f.GetPorts()) +
		len(f.GetProtocols()) + len(f.GetDirections()) + len(f.GetOutcomes())
}

func parseFilter(f *orb8v1.FlowFilter) (storage.Filter, error) {
	var out storage.Filter
	var errs [8]error
	out.Pods, errs[0] = parseAll("pods", f.GetPods(), parsePod)
	out.Namespaces, errs[1] = parseAll("namespaces", f.GetNamespaces(), parseName)
	out.Containers, errs[2] = parseAll("containers", f.GetContainers(), parseName)
	out.Prefixes, errs[3] = parseAll("ips", f.GetIps(), parsePrefix)
	out.Ports, errs[4] = parseAll("ports", f.GetPorts(), parsePort)
	out.Transports, errs[5] = parseAll("protocols", f.GetProtocols(), flow.ParseTransport)
	out.Directions, errs[6] = parseAll("directions", f.GetDirections(), func(d orb8v1.Direction) (flow.Direction, error) {
		return flow.ParseDirection(strings.TrimPrefix(d.String(), "DIRECTION_"))
	})
	out.Outcomes, errs[7] = parseAll("outcomes", f.GetOutcomes(), parseOutcome)
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

// parseOutcome takes no empty value: it would be the outcome of everything that has not ended.
func parseOutcome(s string) (flow.Outcome, error) {
	if s == "" {
		return flow.OutcomeUnknown, errEmpty
	}
	return flow.ParseOutcome(s)
}

func parsePod(s string) (string, error) {
	namespace, pod, qualified := strings.Cut(s, "/")
	if !qualified {
		return parseName(s)
	}
	if namespace == "" || pod == "" || strings.Contains(pod, "/") {
		return "", fmt.Errorf("%q is not a pod; use NAME or NAMESPACE/NAME", s)
	}
	return s, nil
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
