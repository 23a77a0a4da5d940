package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// rangeRequest is a question about a time range.
type rangeRequest interface {
	GetSince() *timestamppb.Timestamp
	GetUntil() *timestamppb.Timestamp
	GetLimit() uint32
}

// rangeReply is what every answer to one says of itself.
type rangeReply interface {
	GetLost() *orb8v1.Loss
	GetTruncated() bool
	GetMatched() uint64
	GetOldest() *timestamppb.Timestamp
	GetMissingNodes() []string
}

// addRangeFlags gives a command the flags of a rangeRequest for such rows (flows, lookups).
func addRangeFlags(cmd *cobra.Command, a *app, rows string, since, until **timestamppb.Timestamp, limit *uint32) {
	addTimeFlags(cmd, a, rows, since, until)
	cmd.Flags().Func("limit", fmt.Sprintf("at most `N` %s; 0 is all that the collector gives (default %d)", rows, defaultLimit),
		func(s string) (err error) {
			*limit, err = parseLimit(s)
			return err
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
		return 0, errors.New("use a number from 1 to 4294967295, or 0 for all that the collector gives")
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

// reportCount says that there are no rows, or more than are shown.
func reportCount(w io.Writer, noun string, rows int, req rangeRequest, reply rangeReply) {
	reportCounts(w, noun, noun+"s", rows, req, reply)
}

// reportCounts is reportCount for a noun with a plural of its own.
func reportCounts(w io.Writer, noun, nouns string, rows int, req rangeRequest, reply rangeReply) {
	shown := uint64(rows)
	if shown == 0 {
		notice(w, "no %s matches", noun)
	}
	if reply.GetTruncated() {
		wayOut := "raise --limit"
		// A full page is the user's limit, a shorter one the collector's.
		if limit := uint64(req.GetLimit()); limit == 0 || shown < limit {
			wayOut = "the collector gives no more at once, so narrow the filters or the time range"
		}
		// There are two or more: one fits any limit.
		notice(w, "%s of %s %s shown; %s", grouped(shown), grouped(max(reply.GetMatched(), shown)), nouns, wayOut)
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
