package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

// rangeRequest is a question about a time range.
type rangeRequest interface {
	GetSince() *timestamppb.Timestamp
	GetUntil() *timestamppb.Timestamp
}

// rangeReply is what every answer to one says of itself.
type rangeReply interface {
	GetLost() *orb8v1.Loss
	GetTruncated() bool
	GetMatched() uint64
	GetOldest() *timestamppb.Timestamp
	GetMissingNodes() []string
}

// addRangeFlags gives a command the flags of a question about a time range for such rows (flows, lookups), and of how many.
func addRangeFlags(cmd *cobra.Command, a *app, rows string, since, until **timestamppb.Timestamp, limit *uint32) {
	addTimeFlags(cmd, a, rows, since, until)
	cmd.Flags().Func("limit", fmt.Sprintf("at most `N` %s; 0 is all (default %d)", rows, defaultLimit),
		func(s string) (err error) {
			*limit, err = parseLimit(s)
			return err
		})
	cmd.Flags().BoolFunc("all", "all "+rows+", as --limit 0", func(string) error {
		*limit = 0
		return nil
	})
}

// addTimeFlags gives a command the flags that bound a time range.
func addTimeFlags(cmd *cobra.Command, a *app, rows string, since, until **timestamppb.Timestamp) {
	flags := cmd.Flags()
	flags.Func("since", "only "+rows+" since this `WHEN`: back from now (30s, 5m, 2h, 1d) or an RFC 3339 time",
		func(s string) (err error) {
			*since, err = parseWhen(s, a.now())
			return err
		})
	flags.Func("until", "only "+rows+" before this `WHEN`, as --since",
		func(s string) (err error) {
			*until, err = parseWhen(s, a.now())
			return err
		})
}

func parseLimit(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, errors.New("use a number from 1 to 4294967295, or 0 for all")
	}
	return uint32(n), nil
}

func checkRange(req rangeRequest) error {
	since, until := req.GetSince(), req.GetUntil()
	if since != nil && until != nil && !since.AsTime().Before(until.AsTime()) {
		return usagef("--since (%s) is not before --until (%s); --until must be the later one", rfc3339(since), rfc3339(until))
	}
	return nil
}

// pagedReply is an answer that may have another page after it.
type pagedReply interface {
	rangeReply
	GetNextPageToken() string
}

// question is what differs between the commands that print the rows of a time range.
type question[Req, Res any] struct {
	// noun is what a row is (flow, lookup); nouns is its plural, noun with an s if empty.
	noun, nouns string
	method      func(orb8v1connect.OrbitServiceClient, context.Context, *connect.Request[Req]) (*connect.Response[Res], error)
	// page makes the request one for that page, of at most so many rows; 0 is as many as the collector gives.
	page func(limit uint32, token string)
	rows func(*Res) []row
	layout
}

// pages asks for page after page until there are limit rows (0: all), as a collector gives only so many at once. take returns how
// many rows a page has.
func pages[Req, Res any, Reply interface {
	*Res
	pagedReply
}](ctx context.Context, a *app,
	method func(orb8v1connect.OrbitServiceClient, context.Context, *connect.Request[Req]) (*connect.Response[Res], error),
	req *Req, page func(limit uint32, token string), limit uint32, take func(Reply) (int, error),
) (first, last Reply, err error) {
	token, shown := "", uint32(0)
	for {
		page(limit-min(limit, shown), token)
		last, err = call(ctx, a, method, req)
		if err != nil {
			return nil, nil, err
		}
		if first == nil {
			first = last
		}
		rows, err := take(last)
		if err != nil {
			return nil, nil, err
		}
		shown += uint32(rows)
		token = last.GetNextPageToken()
		// A page without rows leads nowhere, whatever its token is.
		if token == "" || rows == 0 || limit > 0 && shown >= limit {
			return first, last, nil
		}
	}
}

// ask prints the rows of an answer, at most limit of them; 0 is all. The answer of the first page is returned: what it says of the
// range holds for all.
func ask[Req, Res any, Request interface {
	*Req
	rangeRequest
}, Reply interface {
	*Res
	pagedReply
}](cmd *cobra.Command, a *app, q question[Req, Res], req Request, limit uint32, output string) (Reply, error) {
	if err := checkRange(req); err != nil {
		return nil, err
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	w := newRowsWriter(out, output, q.layout, screenOf(cmd.OutOrStdout()))
	shown := 0
	first, last, err := pages(cmd.Context(), a, q.method, (*Req)(req), q.page, limit, func(reply Reply) (int, error) {
		rows := q.rows(reply)
		shown += len(rows)
		return len(rows), w.add(rows)
	})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(w.end(), out.Flush()); err != nil {
		return nil, err
	}
	reportCount(cmd.ErrOrStderr(), q.noun, cmp.Or(q.nouns, q.noun+"s"), uint64(shown), uint64(limit), last.GetTruncated(), first.GetMatched())
	return first, nil
}

// reportCount says that there are no rows, or more than are shown.
func reportCount(w io.Writer, noun, nouns string, shown, limit uint64, truncated bool, matched uint64) {
	if shown == 0 {
		notice(w, "no %s matches", noun)
	}
	if truncated {
		wayOut := "raise --limit"
		// A full page is the user's limit, a shorter one the collector's.
		if limit == 0 || shown < limit {
			wayOut = "the collector gives no more at once, so narrow the filters or the time range"
		}
		// There are two or more: one fits any limit.
		notice(w, "%s of %s %s shown; %s", grouped(shown), grouped(max(matched, shown)), nouns, wayOut)
	}
}

// reportLostEvents says how many events nobody took from the ring buffer in time.
func reportLostEvents(w io.Writer, reply rangeReply, consequence string) {
	if n := reply.GetLost().GetEvents(); n > 0 {
		notice(w, "lost %s in this range: the ring buffer was full; %s", plural(n, "event"), consequence)
	}
}

// reportLostCalls says how many calls no row has.
func reportLostCalls(w io.Writer, reply rangeReply, consequence string) {
	if n := reply.GetLost().GetCalls(); n > 0 {
		notice(w, "lost %s in this range: %s", plural(n, "call"), consequence)
	}
}

// reportGaps says of which times and nodes rows are missing.
func reportGaps(w io.Writer, rows string, req rangeRequest, reply rangeReply) {
	if n := reply.GetLost().GetEvictedRecords(); n > 0 {
		notice(w, "the store was full and dropped %s of this range early", plural(n, "record"))
	}
	if nodes := reply.GetMissingNodes(); len(nodes) > 0 {
		notice(w, "no report from %s: their %s are missing", strings.Join(nodes, ", "), rows)
	}
	if since, oldest := req.GetSince(), reply.GetOldest(); since != nil && oldest != nil && oldest.AsTime().After(since.AsTime()) {
		notice(w, "the store begins at %s: what was before is not shown", oldest.AsTime().Format(time.RFC3339))
	}
}
