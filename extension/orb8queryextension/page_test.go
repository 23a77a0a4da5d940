package orb8queryextension

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// pagesOf puts the pages of an answer together; each must be full but for the last.
func pagesOf[Row any](t *testing.T, limit int, arrive func(), page func(token string) (rows []Row, truncated bool, next string, err error)) []Row {
	t.Helper()
	var all []Row
	for token, more := "", true; more; more = token != "" {
		rows, truncated, next, err := page(token)
		require.NoError(t, err)
		all = append(all, rows...)
		if next != "" {
			require.Len(t, rows, limit)
			arrive()
		}
		require.Equal(t, next != "", truncated)
		require.Less(t, len(all), 100)
		token = next
	}
	return all
}

func TestPagesOverTheWire(t *testing.T) {
	store, component := newStore(t)
	client := serve(t, component, nil).client(t)
	port := uint16(0)
	write := func(n int) {
		for range n {
			port++
			r := record(port)
			who := r.Source.Identity
			require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{r}))
			require.NoError(t, store.WriteLookups(t.Context(), []flow.Lookup{{
				Time: r.End, Node: "node-a", Direction: flow.Egress, Transport: flow.UDP, Client: r.Source, Server: r.Destination, Name: "a.example",
			}}))
			require.NoError(t, store.WriteSyscalls(t.Context(), []syscalls.Counts{{
				Start: r.Start, End: r.End, Node: "node-a", Identity: flow.Identity{CgroupID: uint64(port)},
				Calls: []syscalls.Count{{Call: syscalls.Call{ABI: syscalls.X86_64, Number: 1}, Calls: uint64(port)}},
			}}))
			require.NoError(t, store.WriteAnomalies(t.Context(), []syscalls.Anomaly{{Time: r.End, Node: "node-a", Identity: who, Calls: uint64(port)}}))
		}
	}
	write(5)
	arrive := func() { write(1) }

	flows := pagesOf(t, 2, arrive, func(token string) ([]*orb8v1.Flow, bool, string, error) {
		r, err := client.QueryFlows(t.Context(), connect.NewRequest(&orb8v1.QueryFlowsRequest{Limit: 2, PageToken: token}))
		if err != nil {
			return nil, false, "", err
		}
		return r.Msg.GetFlows(), r.Msg.GetTruncated(), r.Msg.GetNextPageToken(), nil
	})
	var ports []uint32
	for _, f := range flows {
		ports = append(ports, f.GetDestination().GetPort())
	}
	assert.Equal(t, []uint32{5, 4, 3, 2, 1}, ports, "what has come since is in no page")

	lookups := pagesOf(t, 3, arrive, func(token string) ([]*orb8v1.DnsLookup, bool, string, error) {
		r, err := client.QueryDns(t.Context(), connect.NewRequest(&orb8v1.QueryDnsRequest{Limit: 3, PageToken: token}))
		if err != nil {
			return nil, false, "", err
		}
		return r.Msg.GetLookups(), r.Msg.GetTruncated(), r.Msg.GetNextPageToken(), nil
	})
	assert.Len(t, lookups, 7, "two had come meanwhile")

	calls := pagesOf(t, 4, func() {}, func(token string) ([]*orb8v1.Syscall, bool, string, error) {
		r, err := client.QuerySyscalls(t.Context(), connect.NewRequest(&orb8v1.QuerySyscallsRequest{Limit: 4, PageToken: token}))
		if err != nil {
			return nil, false, "", err
		}
		return r.Msg.GetSyscalls(), r.Msg.GetTruncated(), r.Msg.GetNextPageToken(), nil
	})
	require.Len(t, calls, 9)
	assert.EqualValues(t, 9, calls[0].GetCalls(), "most calls first")
	assert.EqualValues(t, 1, calls[8].GetCalls())

	anomalies := pagesOf(t, 4, arrive, func(token string) ([]*orb8v1.Anomaly, bool, string, error) {
		r, err := client.QueryAnomalies(t.Context(), connect.NewRequest(&orb8v1.QueryAnomaliesRequest{Limit: 4, PageToken: token}))
		if err != nil {
			return nil, false, "", err
		}
		return r.Msg.GetAnomalies(), r.Msg.GetTruncated(), r.Msg.GetNextPageToken(), nil
	})
	assert.Len(t, anomalies, 9)
}

func TestPageOfAnotherRequest(t *testing.T) {
	store, component := newStore(t)
	server := serve(t, component, nil)
	require.NoError(t, store.WriteFlows(t.Context(), []flow.Record{record(1), record(2), record(3)}))
	r, err := server.client(t).QueryFlows(t.Context(), connect.NewRequest(&orb8v1.QueryFlowsRequest{Limit: 1}))
	require.NoError(t, err)
	token := r.Msg.GetNextPageToken()

	code, body := post(t, server, orb8v1connect.OrbitServiceQueryFlowsProcedure, `{"limit": 5, "pageToken": "`+token+`"}`)
	require.Equal(t, 200, code, body)
	assert.Len(t, body["flows"], 2, "another limit is no other request")
	for _, tt := range []struct{ procedure, request, want string }{
		{orb8v1connect.OrbitServiceQueryFlowsProcedure, `{"separateEnds": true, "pageToken": "` + token + `"}`, "page_token: it is of another request; send all else as it was, but for the limit"},
		{orb8v1connect.OrbitServiceQueryDnsProcedure, `{"pageToken": "` + token + `"}`, "page_token: it is of another request"},
		{orb8v1connect.OrbitServiceQueryFlowsProcedure, `{"pageToken": "1"}`, "page_token: not what a reply said; send next_page_token as it came"},
		{orb8v1connect.OrbitServiceQueryFlowsProcedure, `{"pageToken": "` + token + `?"}`, "page_token: not what a reply said"},
		{orb8v1connect.OrbitServiceQuerySyscallsProcedure, `{"pageToken": "1"}`, "page_token: not what a reply said"},
		{orb8v1connect.OrbitServiceQueryAnomaliesProcedure, `{"pageToken": "1"}`, "page_token: not what a reply said"},
	} {
		code, body := post(t, server, tt.procedure, tt.request)
		assert.Equal(t, 400, code)
		assert.Contains(t, body["message"], tt.want)
	}
}

// The range of all pages ends when the first one was asked for, or where the request says, if that is earlier.
func TestPagesEndWithTheFirst(t *testing.T) {
	asked := time.Unix(1000, 5).UTC()
	for until, want := range map[time.Time]time.Time{
		{}: asked, time.Unix(2000, 0): asked, time.Unix(500, 0): time.Unix(500, 0).UTC(),
	} {
		req := &orb8v1.QueryFlowsRequest{}
		if !until.IsZero() {
			req.Until = timestamppb.New(until)
		}
		token := nextPage(req, asked, until, "cursor")
		req.PageToken = token
		query, err := parseQuery(req, limits{rows: 10})
		require.NoError(t, err)
		assert.Equal(t, storage.FlowQuery{Until: want, After: "cursor", Limit: 10}, query)
		assert.Equal(t, token, nextPage(req, asked.Add(time.Hour), query.Until, "cursor"), "later pages ask for the same")
		assert.Empty(t, nextPage(req, asked, until, ""), "the last page")
	}
}

func TestParseTokenRefuses(t *testing.T) {
	good := formatToken(7, time.Unix(1, 2), "x")
	later := "Ag" + good[2:]
	for token, want := range map[string]string{
		".":                           "not what a reply said",
		"x":                           "not what a reply said",
		strings.TrimSuffix(good, "x"): "not what a reply said",
		good[1:]:                      "not what a reply said",
		later:                         "it is of version 2, and this orb8 knows 1; ask for the first page again",
		good + strings.Repeat("x", maxTokenBytes): "not what a reply said",
	} {
		_, _, _, err := parseToken(token)
		assert.ErrorContains(t, err, want, token)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(formatToken(1, time.Unix(1, 0), "cursor"))
	f.Add(formatToken(^uint64(0), time.Unix(-1, 0), "AQA"))
	f.Add("....")
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		hash, until, cursor, err := parseToken(token)
		if err == nil {
			require.Equal(t, token, formatToken(hash, until, cursor), "what is taken is what is given")
		}
	})
}
