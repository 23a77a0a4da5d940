package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// packetKinds are the events that a packet makes; the others are flow records, which `orb8 flows --follow` shows.
func packetKinds() []orb8v1.EventKind {
	return []orb8v1.EventKind{
		orb8v1.EventKind_EVENT_KIND_NEW,
		orb8v1.EventKind_EVENT_KIND_SYN,
		orb8v1.EventKind_EVENT_KIND_FIN,
		orb8v1.EventKind_EVENT_KIND_RST,
		orb8v1.EventKind_EVENT_KIND_PACKET,
	}
}

func newTraceNetworkCommand(a *app) *cobra.Command {
	var names []string
	for _, kind := range packetKinds() {
		names = append(names, kindName(kind))
	}
	var kinds []orb8v1.EventKind
	output := outputTable
	cmd := &cobra.Command{
		Use:   "network",
		Short: "Show connections as they open, close and break",
		Long: `Shows network events as they happen, until interrupted: the first packet of a flow that is not TCP
(new), and the TCP segments that open (syn), close (fin) or break (rst) a connection. Where the
collector is told to (events.first_packets, events.sampling) other packets (packet) too. BYTES are
those of the packet.

Filter flags are those of "orb8 flows".`,
		Example: `  # Every connection that is opened on this host
  orb8 trace network --kind syn

  # What breaks in one namespace, for jq
  orb8 trace network --kind rst --namespace shop -o jsonl | jq .source.pod`,
		Args: noArgs,
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().Func("kind", "only events of this `KIND`: "+anyOf(names)+" (default all of them)", each(&kinds, parseKind))
	complete(cmd, "kind", names)
	filter := addFlowFilters(cmd, a)
	addOutputFlag(cmd, &output, rowOutputs())
	node := addTraceNodeFlags(cmd, networkReceiver)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(kinds) == 0 {
			kinds = packetKinds()
		}
		if err := filter.check(); err != nil {
			return err
		}
		if err := node.connectTo(cmd.Context(), a, filter.allow.flow.Nodes); err != nil {
			return err
		}
		return a.stream(cmd, &orb8v1.StreamEventsRequest{
			Allow: filter.allow.flows(), Deny: denied(filter, (*choice).flows), Kinds: kinds,
		}, output, layout{example: jsonFlow{}, columns: func(_ []row, wide bool) []column {
			if wide {
				return slices.Insert(wideColumns(a.now().Location()), 0, kindColumn())
			}
			return eventColumns(a.now().Location())
		}})
	}
	return cmd
}

func parseKind(s string) (orb8v1.EventKind, error) {
	var names []string
	for _, kind := range packetKinds() {
		if strings.EqualFold(s, kindName(kind)) {
			return kind, nil
		}
		names = append(names, kindName(kind))
	}
	return 0, fmt.Errorf("%q is unknown; use %s", s, anyOf(names))
}
