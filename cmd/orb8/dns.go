package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

func newDNSCommand(a *app) *cobra.Command {
	req := &orb8v1.QueryDnsRequest{}
	limit, output := uint32(defaultLimit), outputTable
	cmd := &cobra.Command{
		Use:   "dns",
		Short: "Show DNS lookups: who asked for what, and what came of it",
		Long: `Shows DNS lookups, newest first. Where both client and server are observed, each has a row: DIR is out
at the client and in at the server. LATENCY is the time from the first query to the response.

A lookup is a flow from client to server: that is what --from, --to, --pod and the like mean here.

` + filterHelp + `

` + endHelp,
		Example: `  # What failed in the last five minutes
  orb8 dns --since 5m --rcode SERVFAIL,NXDOMAIN,timeout

  # Who looks up names of one domain, and what they get
  orb8 dns --name '*.example.com' -o jsonl | jq '{client: .client.pod, name, answers: [.answers[].data]}'

  # What is asked of any resolver but the cluster's own
  orb8 dns --not --to svc/kube-system/kube-dns

  # The slowest lookups of a pod
  orb8 dns --pod shop/cart-0 --direction egress --limit 0 -o jsonl | jq -s 'sort_by(-.latency)[:10][]'`,
		Args: noArgs,
	}
	cmd.Flags().SortFlags = false
	addRangeFlags(cmd, a, "lookups", &req.Since, &req.Until, &limit)
	filter := addLookupFilters(cmd, a)
	addOutputFlag(cmd, &output, rowOutputs())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := filter.check(); err != nil {
			return err
		}
		req.Allow, req.Deny = filter.allow.lookups(), denied(filter, (*choice).lookups)
		return a.queryDNS(cmd, req, limit, output)
	}
	return cmd
}

func (a *app) queryDNS(cmd *cobra.Command, req *orb8v1.QueryDnsRequest, limit uint32, output string) error {
	reply, err := ask(cmd, a, question[orb8v1.QueryDnsRequest, orb8v1.QueryDnsResponse]{
		noun: "lookup", method: orb8v1connect.OrbitServiceClient.QueryDns,
		layout: a.lookupLayout(func(rows []row) []column { return lookupColumns(rows, a.now()) }),
		page:   func(limit uint32, token string) { req.Limit, req.PageToken = limit, token },
		rows: func(reply *orb8v1.QueryDnsResponse) []row {
			rows := make([]row, len(reply.GetLookups()))
			for i, l := range reply.GetLookups() {
				rows[i] = lookupRow(l)
			}
			return rows
		},
	}, req, limit, output)
	if err != nil {
		return err
	}
	w := cmd.ErrOrStderr()
	reportLostEvents(w, reply, "lookups may be missing")
	reportGaps(w, "lookups", req, reply)
	return nil
}

// lookupLayout is that of lookups, with the columns of a table that is not wide.
func (a *app) lookupLayout(narrow func([]row) []column) layout {
	return layout{example: jsonLookup{}, columns: func(rows []row, wide bool) []column {
		if wide {
			return wideLookupColumns(a.now().Location())
		}
		return narrow(rows)
	}}
}

func newTraceDNSCommand(a *app) *cobra.Command {
	output := outputTable
	cmd := &cobra.Command{
		Use:   "dns",
		Short: "Show DNS lookups as they are answered or given up",
		Long: `Shows DNS lookups when they are answered, or when no response has come for too long (timeout), until
interrupted.

Filter flags are those of "orb8 dns".`,
		Example: `  # Names that do not resolve
  orb8 trace dns --rcode NXDOMAIN,SERVFAIL,timeout

  # What one container asks for
  orb8 trace dns --container cart --direction egress`,
		Args: noArgs,
	}
	cmd.Flags().SortFlags = false
	filter := addLookupFilters(cmd, a)
	addOutputFlag(cmd, &output, rowOutputs())
	node := addTraceNodeFlags(cmd, networkReceiver)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := filter.check(); err != nil {
			return err
		}
		if err := node.connectTo(cmd.Context(), a, filter.allow.flow.Nodes); err != nil {
			return err
		}
		return a.stream(cmd, &orb8v1.StreamEventsRequest{
			Dns: filter.allow.lookups(), DenyDns: denied(filter, (*choice).lookups), Kinds: []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_DNS},
		}, output, a.lookupLayout(func([]row) []column { return traceLookupColumns(a.now().Location()) }))
	}
	return cmd
}

// parseWord takes what may be the name of a type or a response code: there are more of them than one knows.
func parseWord(s string) (string, error) {
	isOther := func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}
	if s == "" || strings.ContainsFunc(s, isOther) {
		return "", errors.New("use letters and digits, such as AAAA or NXDOMAIN")
	}
	return s, nil
}
