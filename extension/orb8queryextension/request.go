package orb8queryextension

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

// parseQuery checks a request. Errors name the field and its value.
func parseQuery(req *orb8v1.QueryFlowsRequest, max limits) (storage.FlowQuery, error) {
	since, until, err := parseRange(req.GetSince(), req.GetUntil())
	if err != nil {
		return storage.FlowQuery{}, err
	}
	selection, err := parseSelection(req.GetAllow(), req.GetDeny())
	if err != nil {
		return storage.FlowQuery{}, err
	}
	after, until, err := parsePage(req, until)
	if err != nil {
		return storage.FlowQuery{}, err
	}
	return storage.FlowQuery{
		Since: since, Until: until, After: after, Selection: selection, SeparateEnds: req.GetSeparateEnds(),
		Limit: parseLimit(req.GetLimit(), max.rows),
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
	lookups, err := parseLookupSelection("dns", "deny_dns", req.GetDns(), req.GetDenyDns())
	if err != nil {
		return storage.EventSelection{}, err
	}
	calls, err := parseSyscallSelection("syscalls", "deny_syscalls", req.GetSyscalls(), req.GetDenySyscalls())
	if err != nil {
		return storage.EventSelection{}, err
	}
	anomalies, err := parseAnomalySelection("anomalies", "deny_anomalies", req.GetAnomalies(), req.GetDenyAnomalies())
	// However often a kind is repeated, the writer compares with it once.
	slices.Sort(kinds)
	return storage.EventSelection{
		Kinds: slices.Compact(kinds), Flows: selection, Lookups: lookups, Syscalls: calls, Anomalies: anomalies,
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
