package main

import (
	"bufio"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

const defaultLimit = 100

const (
	outputTable = "table"
	outputWide  = "wide"
	outputJSON  = "json"
	outputJSONL = "jsonl"
)

func rowOutputs() []string { return []string{outputTable, outputWide, outputJSON, outputJSONL} }

func newFlowsCommand(a *app) *cobra.Command {
	req := &orb8v1.QueryFlowsRequest{Limit: defaultLimit}
	output := outputTable
	follow, ends := false, false
	cmd := &cobra.Command{
		Use:   "flows",
		Short: "Show flows: who talked to whom, how many packets and bytes",
		Long: `Shows flows, newest first. A flow is one direction of the traffic between two endpoints; bytes are
layer-3 bytes and packets are packets as on the wire.

Where both ends of a connection were seen, tables show one row a direction, counted at the client, and
json shows a row for each end; --ends and --ends=false ask for the other.

A filter flag may be repeated and takes several values between commas: any of them may match. Of
different flags all must match. Sums are of the chosen time range only.`,
		Example: `  # The last five minutes of one pod, busiest first
  orb8 flows --since 5m --pod shop/cart-0 --limit 0 -o jsonl | jq -s 'sort_by(-.bytes)[]'

  # DNS over UDP and TCP, as it comes
  orb8 flows --follow --port 53 --protocol udp,tcp

  # Who reached this network yesterday
  orb8 flows --ip 10.20.0.0/16 --direction ingress --since 2d --until 1d`,
		Args: noArgs,
	}
	flags := cmd.Flags()
	// Help shows the flags in the order in which one narrows a question down.
	flags.SortFlags = false
	addRangeFlags(cmd, a, "flows", &req.Since, &req.Until, &req.Limit)
	filter := addFilterFlags(cmd)
	flags.BoolVar(&ends, "ends", false, "a row for each end that saw a connection (default for json and jsonl)")
	flags.BoolVarP(&follow, "follow", "f", false, "show flow records as they come, until interrupted")
	addOutputFlag(cmd, &output, rowOutputs())

	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if follow {
			for _, name := range []string{"since", "until", "limit", "ends"} {
				if flags.Changed(name) {
					return usagef("--follow shows what is still to come and takes no --%s", name)
				}
			}
			columns := followColumns(a.now().Location())
			if output == outputWide {
				columns = wideColumns(a.now().Location())
			}
			return a.stream(cmd, &orb8v1.StreamEventsRequest{
				Allow: allow(filter),
				Kinds: []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_FLOW, orb8v1.EventKind_EVENT_KIND_END},
			}, output, columns)
		}
		if err := checkRange(req); err != nil {
			return err
		}
		req.Allow = allow(filter)
		// Programs that read JSON add up rows: to them a packet that two ends counted stays two.
		req.SeparateEnds = ends || !flags.Changed("ends") && (output == outputJSON || output == outputJSONL)
		return a.queryFlows(cmd, req, output)
	}
	return cmd
}

// addOutputFlag adds -o with the given formats, the first of which is the default.
func addOutputFlag(cmd *cobra.Command, output *string, formats []string) {
	cmd.Flags().FuncP("output", "o", fmt.Sprintf("`FORMAT`: %s (default %s)", anyOf(formats), formats[0]), oneOf(output, formats))
	complete(cmd, "output", formats)
}

func (a *app) queryFlows(cmd *cobra.Command, req *orb8v1.QueryFlowsRequest, output string) error {
	reply, err := call(cmd.Context(), a, orb8v1connect.OrbitServiceClient.QueryFlows, req)
	if err != nil {
		return err
	}
	rows := make([]row, len(reply.GetFlows()))
	for i, f := range reply.GetFlows() {
		rows[i] = flowRow(f)
	}
	columns := flowColumns(rows, a.now())
	if output == outputWide {
		columns = wideColumns(a.now().Location())
	}
	if err := printRows(cmd, rows, output, columns); err != nil {
		return err
	}
	w := cmd.ErrOrStderr()
	reportCount(w, "flow", len(rows), req, reply)
	if lost := reply.GetLost(); lost.GetPackets() > 0 || lost.GetBytes() > 0 {
		notice(w, "lost %s (%s) in this range: they are in no flow", plural(lost.GetPackets(), "packet"), humanBytes(lost.GetBytes()))
	}
	reportLostEvents(w, reply, "the flows' counts are not affected")
	reportGaps(w, "flows", req, reply)
	return nil
}

// printRows prints the rows of an answer; columns are those of the table, wide or not.
func printRows(cmd *cobra.Command, rows []row, output string, columns []column) error {
	out := bufio.NewWriter(cmd.OutOrStdout())
	if err := writeRows(out, rows, output, columns, screenOf(cmd.OutOrStdout())); err != nil {
		return err
	}
	return out.Flush()
}

// writeRows writes the rows of an answer; columns are those of the table, wide or not.
func writeRows(w io.Writer, rows []row, output string, columns []column, s screen) error {
	switch output {
	case outputJSON:
		return writeJSONArray(w, rows)
	case outputJSONL:
		for _, r := range rows {
			if err := writeJSONLine(w, newJSON(r)); err != nil {
				return err
			}
		}
		return nil
	}
	if len(rows) == 0 {
		return nil
	}
	limit := s.width
	if output == outputWide {
		limit = 0
	}
	t := newTable(columns, rows, limit, s)
	if err := t.writeHeader(w); err != nil {
		return err
	}
	for _, r := range rows {
		if err := t.writeRow(w, r); err != nil {
			return err
		}
	}
	return nil
}
