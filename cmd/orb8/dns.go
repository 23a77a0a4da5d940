package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

func newDNSCommand(a *app) *cobra.Command {
	req := &orb8v1.QueryDnsRequest{Limit: defaultLimit}
	output := outputTable
	cmd := &cobra.Command{
		Use:   "dns",
		Short: "Show DNS lookups: who asked for what, and what came of it",
		Long: `Shows DNS lookups, newest first. Where both client and server are observed, each has a row: DIR is out
at the client and in at the server. LATENCY is the time from the first query to the response.

A filter flag may be repeated and takes several values between commas: any of them may match. Of
different flags all must match.`,
		Example: `  # What failed in the last five minutes
  orb8 dns --since 5m --rcode SERVFAIL,NXDOMAIN,timeout

  # Who looks up names of one domain, and what they get
  orb8 dns --name '*.example.com' -o jsonl | jq '{client: .client.pod, name, answers: [.answers[].data]}'

  # The slowest lookups of a pod
  orb8 dns --pod shop/cart-0 --direction egress --limit 0 -o jsonl | jq -s 'sort_by(-.latency)[:10][]'`,
		Args: noArgs,
	}
	cmd.Flags().SortFlags = false
	addRangeFlags(cmd, a, "lookups", &req.Since, &req.Until, &req.Limit)
	filter := addDNSFlags(cmd)
	addOutputFlag(cmd, &output, rowOutputs())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkRange(req); err != nil {
			return err
		}
		req.Allow = allowDNS(filter)
		return a.queryDNS(cmd, req, output)
	}
	return cmd
}

func (a *app) queryDNS(cmd *cobra.Command, req *orb8v1.QueryDnsRequest, output string) error {
	reply, err := call(cmd.Context(), a, orb8v1connect.OrbitServiceClient.QueryDns, req)
	if err != nil {
		return err
	}
	rows := make([]row, len(reply.GetLookups()))
	for i, l := range reply.GetLookups() {
		rows[i] = lookupRow(l)
	}
	columns := lookupColumns(rows, a.now())
	if output == outputWide {
		columns = wideLookupColumns(a.now().Location())
	}
	if err := printRows(cmd, rows, output, columns); err != nil {
		return err
	}
	w := cmd.ErrOrStderr()
	reportCount(w, "lookup", len(rows), req, reply)
	reportLostEvents(w, reply, "lookups may be missing")
	reportGaps(w, "lookups", req, reply)
	return nil
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
	filter := addDNSFlags(cmd)
	addOutputFlag(cmd, &output, rowOutputs())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		columns := traceLookupColumns(a.now().Location())
		if output == outputWide {
			columns = wideLookupColumns(a.now().Location())
		}
		return a.stream(cmd, &orb8v1.StreamEventsRequest{
			Dns: allowDNS(filter), Kinds: []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_DNS},
		}, output, columns)
	}
	return cmd
}

// addDNSFlags gives a command the flags that choose lookups. It returns the filter that they fill.
func addDNSFlags(cmd *cobra.Command) *orb8v1.DnsFilter {
	f := &orb8v1.DnsFilter{}
	flags := cmd.Flags()
	flags.Func("name", "only lookups of this `NAME`; * stands for any letters", each(&f.Names, parseName))
	flags.Func("type", "only lookups of this `TYPE`: A, AAAA, PTR, SRV, ...", each(&f.Types, parseWord))
	flags.Func("rcode", "only lookups with this response `CODE`: NOERROR, NXDOMAIN, SERVFAIL, ..., or timeout", each(&f.Rcodes, parseWord))
	complete(cmd, "type", []string{"A", "AAAA", "CNAME", "HTTPS", "MX", "NS", "PTR", "SOA", "SRV", "TXT"})
	complete(cmd, "rcode", []string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "timeout"})
	f.Flow = addEndFlags(cmd)
	return f
}

// allowDNS is the filter as a request wants it: no filter at all when no flag was given.
func allowDNS(f *orb8v1.DnsFilter) []*orb8v1.DnsFilter {
	out := &orb8v1.DnsFilter{Names: f.Names, Types: f.Types, Rcodes: f.Rcodes}
	if !isEmpty(f.Flow) {
		out.Flow = f.Flow
	} else if len(f.Names)+len(f.Types)+len(f.Rcodes) == 0 {
		return nil
	}
	return []*orb8v1.DnsFilter{out}
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
