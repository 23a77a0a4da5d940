package main

import (
	"bufio"
	"cmp"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

const defaultTop = 20

func newAggregateCommand(a *app) *cobra.Command {
	req := &orb8v1.AggregateRequest{Top: defaultTop}
	of, output := "flows", outputTable
	cmd := &cobra.Command{
		Use:   "aggregate",
		Short: "Sum flows, lookups, system calls or anomalies by any of their dimensions",
		Long: `Sums the records of a time range into groups and shows the largest: who talks most, to whom, over which
port; which names are asked for most; who makes which calls. SHARE is of all groups, those too that are
not shown. With --bucket each group is shown over time, from the beginning of the range to its end.

What both ends of a connection saw counts once, as its client saw it.

Dimensions (--by) and sums (--sum, the first one orders) are
` + dimensionHelp() + `

` + filterHelp + `

` + endHelp,
		Example: `  # Who talks most to whom
  orb8 aggregate --by source.pod,destination.pod --since 1h

  # Which namespaces reach the outside world, and how well
  orb8 aggregate --by source.namespace,destination.name --not --to 10.0.0.0/8 --sum bytes,retransmits,errors

  # One minute after the other: what a Service is sent
  orb8 aggregate --by source.workload --to svc/shop/cart --since 30m --bucket 1m

  # Who asks for names that do not exist, and which
  orb8 aggregate --signal dns --by client.pod,name --rcode NXDOMAIN --top 5

  # Calls a container and call, for a spreadsheet
  orb8 aggregate --signal syscalls --by pod,container,syscall --top 0 -o csv > calls.csv`,
		Args: noArgs,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Func("signal", "`WHAT` to sum: "+anyOf(signalNames())+" (default flows)", oneOf(&of, signalNames()))
	flags.Func("by", "`DIMENSION` to group by; repeat it or use commas (default none: one sum of all)", each(&req.By, parseDimension))
	flags.Func("sum", "`MEASURE` to sum; the first one orders (default bytes, lookups, calls or anomalies)", each(&req.Measures, parseDimension))
	flags.Func("top", "the `N` largest groups; 0 is as many as the collector gives (default 20)", func(s string) (err error) {
		req.Top, err = parseLimit(s)
		return err
	})
	flags.Func("bucket", "sum each `DURATION` of the range for itself, too: 10s, 1m, 1h", func(s string) error {
		width, err := parseBucket(s)
		req.Bucket = durationpb.New(width)
		return err
	})
	addTimeFlags(cmd, a, "records", &req.Since, &req.Until)
	filter := addSignalFilters(cmd, a)
	addOutputFlag(cmd, &output, rowOutputs())
	complete(cmd, "signal", signalNames())
	completeWords(cmd, "by", func() []string { return signalOf(of).dimensions })
	completeWords(cmd, "sum", func() []string { return signalOf(of).measures })
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s := signalOf(of)
		if err := cmp.Or(filter.check(), s.checkFilters(cmd), checkRange(req)); err != nil {
			return err
		}
		req.Signal = s.id
		s.setFilters(req, filter)
		return a.aggregate(cmd, req, output)
	}
	return cmd
}

// dimensionHelp lists what there is to group by and to sum.
func dimensionHelp() string {
	return `  flows:     source.X and destination.X, where X is pod, namespace, workload, service, container, node,
             address, port, name or process; node, direction, transport, outcome
             bytes, packets, connections, retransmits, zero_windows, errors
  dns:       client.X and server.X (but node and port); node, name, type, rcode
             lookups, queries, errors, latency
  syscalls:  pod, namespace, container, cgroup, node, syscall
             calls, errors, latency
  anomalies: as syscalls, and rule, severity, workload
             anomalies`
}

// parseDimension takes any name: which there are is the collector's to say, and a newer one may have more.
func parseDimension(s string) (string, error) {
	if s == "" || strings.ContainsAny(s, " =") {
		return "", errors.New("use names such as source.pod; --help lists them")
	}
	return s, nil
}

func parseBucket(s string) (time.Duration, error) {
	width, err := parseAge(s)
	if err != nil || width < time.Second {
		return 0, errors.New("use a duration of a second or more, such as 10s, 1m or 1h")
	}
	return width, nil
}

func (a *app) aggregate(cmd *cobra.Command, req *orb8v1.AggregateRequest, output string) error {
	reply, err := call(cmd.Context(), a, orb8v1connect.OrbitServiceClient.Aggregate, req)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	g := newGroups(req, reply, a.now())
	if err := errors.Join(g.write(out, output, screenOf(cmd.OutOrStdout())), out.Flush()); err != nil {
		return err
	}
	w := cmd.ErrOrStderr()
	shown := uint64(len(reply.GetGroups()))
	if shown == 0 {
		notice(w, "nothing matches")
	}
	if reply.GetTruncated() {
		wayOut := "raise --top"
		if top := uint64(req.GetTop()); top == 0 || shown < top {
			wayOut = "the collector gives no more at once, so narrow the filters or the time range"
		}
		notice(w, "%s of %s shown; %s", grouped(shown), plural(max(reply.GetMatched(), shown), "group"), wayOut)
	}
	if lost := reply.GetLost(); lost.GetPackets() > 0 || lost.GetBytes() > 0 {
		notice(w, "lost %s (%s) in this range: they are in no group", plural(lost.GetPackets(), "packet"), humanBytes(lost.GetBytes()))
	}
	reportLostCalls(w, reply, "they are in no group")
	reportGaps(w, "records", req, reply)
	return nil
}
