package orb8queryextension

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

func (s *service) QueryDns(ctx context.Context, req *connect.Request[orb8v1.QueryDnsRequest]) (*connect.Response[orb8v1.QueryDnsResponse], error) {
	asked := time.Now()
	return answer(ctx, s, req, parseLookupQuery, s.store.QueryLookups, func(query *storage.LookupQuery, result *storage.LookupResult) *orb8v1.QueryDnsResponse {
		m := lookupsResponse(result)
		m.NextPageToken = nextPage(req.Msg, asked, query.Until, result.Next)
		return m
	})
}

// parseLookupQuery checks a request. Errors name the field and its value.
func parseLookupQuery(req *orb8v1.QueryDnsRequest, max limits) (storage.LookupQuery, error) {
	since, until, err := parseRange(req.GetSince(), req.GetUntil())
	if err != nil {
		return storage.LookupQuery{}, err
	}
	selection, err := parseLookupSelection("allow", "deny", req.GetAllow(), req.GetDeny())
	if err != nil {
		return storage.LookupQuery{}, err
	}
	after, until, err := parsePage(req, until)
	if err != nil {
		return storage.LookupQuery{}, err
	}
	return storage.LookupQuery{Since: since, Until: until, After: after, Selection: selection, Limit: parseLimit(req.GetLimit(), max.rows)}, nil
}

func parseLookupSelection(allowField, denyField string, allow, deny []*orb8v1.DnsFilter) (s storage.LookupSelection, err error) {
	s.Allow, s.Deny, err = parseLists(allowField, denyField, allow, deny, func(f *orb8v1.DnsFilter) int {
		return filterValues(f.GetFlow()) + len(f.GetNames()) + len(f.GetTypes()) + len(f.GetRcodes())
	}, parseLookupFilter)
	return s, err
}

func parseLookupFilter(f *orb8v1.DnsFilter) (storage.LookupFilter, error) {
	var out storage.LookupFilter
	var errs [4]error
	if f.GetFlow() != nil {
		var question storage.Filter
		if question, errs[0] = parseFilter(f.GetFlow()); errs[0] != nil {
			errs[0] = fmt.Errorf("flow: %w", errs[0])
		}
		out.Flows.Allow = []storage.Filter{question}
	}
	out.Names, errs[1] = parseAll("names", f.GetNames(), parseNamePattern)
	out.Types, errs[2] = parseAll("types", f.GetTypes(), parseName)
	out.RCodes, errs[3] = parseAll("rcodes", f.GetRcodes(), parseName)
	return out, cmp.Or(errs[:]...)
}

func lookupsResponse(result *storage.LookupResult) *orb8v1.QueryDnsResponse {
	lookups, labels := make([]*orb8v1.DnsLookup, len(result.Lookups)), labelSets{}
	for i := range lookups {
		lookups[i] = lookupMessage(&result.Lookups[i], labels)
	}
	return &orb8v1.QueryDnsResponse{
		Lookups:      lookups,
		Lost:         lossMessage(result.Lost),
		Truncated:    result.Next != "",
		Matched:      uint64(result.Matched),
		Oldest:       timestamppb.New(result.Oldest),
		MissingNodes: result.MissingNodes,
	}
}

func lookupMessage(l *flow.Lookup, labels labelSets) *orb8v1.DnsLookup {
	answers := make([]*orb8v1.DnsAnswer, len(l.Answers))
	for i, a := range l.Answers {
		answers[i] = &orb8v1.DnsAnswer{Name: a.Name, Type: a.Type, TtlSeconds: uint32(a.TTL / time.Second), Data: a.Data}
	}
	return &orb8v1.DnsLookup{
		Time:       timestamppb.New(l.Time),
		Node:       l.Node,
		Direction:  orb8v1.Direction(l.Direction),
		Transport:  l.Transport.String(),
		Client:     endpointMessage(&l.Client, labels),
		Server:     endpointMessage(&l.Server, labels),
		Interface:  l.Interface,
		Name:       l.Name,
		Type:       l.Type,
		Rcode:      l.RCode,
		Latency:    durationpb.New(l.Latency),
		Queries:    l.Queries,
		Answers:    answers,
		Truncated:  l.Truncated,
		Incomplete: l.Incomplete,
	}
}
