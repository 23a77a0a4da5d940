package orb8queryextension

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/storage"
)

// minBucket keeps the number of buckets in proportion to what is known: nodes report every few seconds.
const minBucket = time.Second

func (s *service) Aggregate(ctx context.Context, req *connect.Request[orb8v1.AggregateRequest]) (*connect.Response[orb8v1.AggregateResponse], error) {
	return answer(ctx, s, req, parseAggregateQuery, s.store.Aggregate, aggregateResponse)
}

// parseAggregateQuery checks a request. Errors name the field and its value.
func parseAggregateQuery(req *orb8v1.AggregateRequest, max limits) (storage.AggregateQuery, error) {
	query := storage.AggregateQuery{By: req.GetBy(), Measures: req.GetMeasures(), Top: parseLimit(req.GetTop(), max.rows), MaxGroups: max.groups}
	var err error
	if query.Since, query.Until, err = parseRange(req.GetSince(), req.GetUntil()); err != nil {
		return storage.AggregateQuery{}, err
	}
	if query.Signal, err = parseSignal(req.GetSignal()); err != nil {
		return storage.AggregateQuery{}, err
	}
	if err := checkFilterSignals(req); err != nil {
		return storage.AggregateQuery{}, err
	}
	var errs [4]error
	query.Flows, errs[0] = parseSelection(req.GetAllow(), req.GetDeny())
	query.Lookups, errs[1] = parseLookupSelection("dns", "deny_dns", req.GetDns(), req.GetDenyDns())
	query.Syscalls, errs[2] = parseSyscallSelection("syscalls", "deny_syscalls", req.GetSyscalls(), req.GetDenySyscalls())
	query.Anomalies, errs[3] = parseAnomalySelection("anomalies", "deny_anomalies", req.GetAnomalies(), req.GetDenyAnomalies())
	if err := errors.Join(errs[:]...); err != nil {
		return storage.AggregateQuery{}, err
	}
	if b := req.GetBucket(); b != nil {
		query.Bucket = b.AsDuration()
		if !b.IsValid() || query.Bucket < minBucket {
			return storage.AggregateQuery{}, fmt.Errorf("bucket: %s is too short; use %s or more", query.Bucket, minBucket)
		}
	}
	if len(query.Measures) == 0 {
		query.Measures = storage.Measures(query.Signal)[:1]
	}
	if _, err := storage.NewGroups(&query); err != nil {
		return storage.AggregateQuery{}, err
	}
	return query, nil
}

func parseSignal(s orb8v1.Signal) (storage.Signal, error) {
	switch s {
	case orb8v1.Signal_SIGNAL_UNSPECIFIED, orb8v1.Signal_SIGNAL_FLOWS:
		return storage.SignalFlows, nil
	case orb8v1.Signal_SIGNAL_DNS:
		return storage.SignalLookups, nil
	case orb8v1.Signal_SIGNAL_SYSCALLS:
		return storage.SignalSyscalls, nil
	case orb8v1.Signal_SIGNAL_ANOMALIES:
		return storage.SignalAnomalies, nil
	}
	return 0, fmt.Errorf("signal: %d is none; use SIGNAL_FLOWS, SIGNAL_DNS, SIGNAL_SYSCALLS or SIGNAL_ANOMALIES", s)
}

// checkFilterSignals refuses filters that would say nothing.
func checkFilterSignals(req *orb8v1.AggregateRequest) error {
	asked := req.GetSignal()
	if asked == orb8v1.Signal_SIGNAL_UNSPECIFIED {
		asked = orb8v1.Signal_SIGNAL_FLOWS
	}
	for _, filter := range []struct {
		field  string
		count  int
		signal orb8v1.Signal
	}{
		{"allow", len(req.GetAllow()), orb8v1.Signal_SIGNAL_FLOWS},
		{"deny", len(req.GetDeny()), orb8v1.Signal_SIGNAL_FLOWS},
		{"dns", len(req.GetDns()), orb8v1.Signal_SIGNAL_DNS},
		{"deny_dns", len(req.GetDenyDns()), orb8v1.Signal_SIGNAL_DNS},
		{"syscalls", len(req.GetSyscalls()), orb8v1.Signal_SIGNAL_SYSCALLS},
		{"deny_syscalls", len(req.GetDenySyscalls()), orb8v1.Signal_SIGNAL_SYSCALLS},
		{"anomalies", len(req.GetAnomalies()), orb8v1.Signal_SIGNAL_ANOMALIES},
		{"deny_anomalies", len(req.GetDenyAnomalies()), orb8v1.Signal_SIGNAL_ANOMALIES},
	} {
		if filter.count > 0 && filter.signal != asked {
			return fmt.Errorf("%s: %d filters of %s, where %s was asked for; use the filters of that", filter.field, filter.count, filter.signal, asked)
		}
	}
	return nil
}

func aggregateResponse(query *storage.AggregateQuery, result *storage.AggregateResult) *orb8v1.AggregateResponse {
	groups := make([]*orb8v1.AggregateGroup, len(result.Groups))
	for i := range groups {
		groups[i] = groupMessage(&result.Groups[i])
	}
	return &orb8v1.AggregateResponse{
		By:           query.By,
		Measures:     query.Measures,
		Groups:       groups,
		Total:        groupMessage(&result.Total),
		Lost:         lossMessage(result.Lost),
		Truncated:    result.Matched > len(groups),
		Matched:      uint64(result.Matched),
		Oldest:       timestamppb.New(result.Oldest),
		MissingNodes: result.MissingNodes,
	}
}

func groupMessage(g *storage.Group) *orb8v1.AggregateGroup {
	buckets := make([]*orb8v1.AggregateBucket, len(g.Buckets))
	for i, b := range g.Buckets {
		buckets[i] = &orb8v1.AggregateBucket{Start: timestamppb.New(b.Start), Values: b.Values}
	}
	return &orb8v1.AggregateGroup{By: g.By, Values: g.Values, Buckets: buckets}
}
