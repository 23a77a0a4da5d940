package main

import (
	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

const defaultLimit = 100

func newFlowsCommand(a *app) *cobra.Command {
	req := &orb8v1.QueryFlowsRequest{}
	limit, output := uint32(defaultLimit), outputTable
	follow, ends := false, false
	cmd := &cobra.Command{
		Use:   "flows",
		Short: "Show flows: who talked to whom, how many packets and bytes",
		Long: `Shows flows, newest first. A flow is one direction of the traffic between two endpoints; bytes are
layer-3 bytes and packets are packets as on the wire.

Where both ends of a connection were seen, tables show one row a direction, counted at the client, and
json and csv show a row for each end; --ends and --ends=false ask for the other.

` + filterHelp + ` Sums are of the chosen time range only.

` + endHelp,
		Example: `  # The last five minutes of one pod, busiest first
  orb8 flows --since 5m --pod shop/cart-0 --limit 0 -o jsonl | jq -s 'sort_by(-.bytes)[]'

  # DNS over UDP and TCP, as it comes
  orb8 flows --follow --port 53 --protocol udp,tcp

  # From one namespace to a Service, but not to its metrics port
  orb8 flows --from shop/ --to svc/shop/db --not --port 9187

  # Who reached this network yesterday
  orb8 flows --ip 10.20.0.0/16 --direction ingress --since 2d --until 1d

  # All of an hour, for a spreadsheet
  orb8 flows --since 1h --all -o csv > flows.csv`,
		Args: noArgs,
	}
	flags := cmd.Flags()
	// Help shows the flags in the order in which one narrows a question down.
	flags.SortFlags = false
	addRangeFlags(cmd, a, "flows", &req.Since, &req.Until, &limit)
	filter := addFlowFilters(cmd, a)
	flags.BoolVar(&ends, "ends", false, "a row for each end that saw a connection (default for json, jsonl and csv)")
	flags.BoolVarP(&follow, "follow", "f", false, "show flow records as they come, until interrupted")
	addOutputFlag(cmd, &output, rowOutputs())

	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := filter.check(); err != nil {
			return err
		}
		if follow && a.watched {
			return usagef("--follow never ends, so it cannot be asked again and again; leave it or watch out")
		}
		if follow {
			for _, name := range []string{"since", "until", "limit", "all", "ends"} {
				if flags.Changed(name) {
					return usagef("--follow shows what is still to come and takes no --%s", name)
				}
			}
			return a.stream(cmd, &orb8v1.StreamEventsRequest{
				Allow: filter.allow.flows(), Deny: denied(filter, (*choice).flows),
				Kinds: []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_FLOW, orb8v1.EventKind_EVENT_KIND_END},
			}, output, layout{example: jsonFlow{}, columns: func(_ []row, wide bool) []column {
				if wide {
					return wideColumns(a.now().Location())
				}
				return followColumns(a.now().Location())
			}})
		}
		req.Allow, req.Deny = filter.allow.flows(), denied(filter, (*choice).flows)
		// Programs that read rows add them up: to them a packet that two ends counted stays two.
		req.SeparateEnds = ends || !flags.Changed("ends") && output != outputTable && output != outputWide
		return a.queryFlows(cmd, req, limit, output)
	}
	return cmd
}

func (a *app) queryFlows(cmd *cobra.Command, req *orb8v1.QueryFlowsRequest, limit uint32, output string) error {
	reply, err := ask(cmd, a, question[orb8v1.QueryFlowsRequest, orb8v1.QueryFlowsResponse]{
		noun: "flow", method: orb8v1connect.OrbitServiceClient.QueryFlows, layout: a.flowLayout(),
		page: func(limit uint32, token string) { req.Limit, req.PageToken = limit, token },
		rows: func(reply *orb8v1.QueryFlowsResponse) []row {
			rows := make([]row, len(reply.GetFlows()))
			for i, f := range reply.GetFlows() {
				rows[i] = flowRow(f)
			}
			return rows
		},
	}, req, limit, output)
	if err != nil {
		return err
	}
	w := cmd.ErrOrStderr()
	if lost := reply.GetLost(); lost.GetPackets() > 0 || lost.GetBytes() > 0 {
		notice(w, "lost %s (%s) in this range: they are in no flow", plural(lost.GetPackets(), "packet"), humanBytes(lost.GetBytes()))
	}
	reportLostEvents(w, reply, "the flows' counts are not affected")
	reportGaps(w, "flows", req, reply)
	return nil
}

func (a *app) flowLayout() layout {
	return layout{example: jsonFlow{}, columns: func(rows []row, wide bool) []column {
		if wide {
			return wideColumns(a.now().Location())
		}
		return flowColumns(rows, a.now())
	}}
}
