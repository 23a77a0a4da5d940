package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

func newAnomaliesCommand(a *app) *cobra.Command {
	req := &orb8v1.QueryAnomaliesRequest{}
	limit, output := uint32(defaultLimit), outputTable
	cmd := &cobra.Command{
		Use:   "anomalies",
		Short: "Show system calls that are not what their workload does",
		Long: `Shows anomalies, newest first: a system call that a workload never made while it was learned, one that
is dangerous by itself, or one that is made far more often than before.

` + filterHelp,
		Example: `  # What is worth waking somebody
  orb8 anomalies --severity critical --since 1d

  # What was seen of it, for jq
  orb8 anomalies --pod shop/cart-0 -o jsonl | jq '{time, rule, message, evidence}'`,
		Args: noArgs,
	}
	cmd.Flags().SortFlags = false
	addRangeFlags(cmd, a, "anomalies", &req.Since, &req.Until, &limit)
	filter := addAnomalyFilters(cmd, a)
	addOutputFlag(cmd, &output, rowOutputs())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := filter.check(); err != nil {
			return err
		}
		req.Allow, req.Deny = filter.allow.anomalies(), denied(filter, (*choice).anomalies)
		return a.queryAnomalies(cmd, req, limit, output)
	}
	return cmd
}

func (a *app) queryAnomalies(cmd *cobra.Command, req *orb8v1.QueryAnomaliesRequest, limit uint32, output string) error {
	reply, err := ask(cmd, a, question[orb8v1.QueryAnomaliesRequest, orb8v1.QueryAnomaliesResponse]{
		noun: "anomaly", nouns: "anomalies", method: orb8v1connect.OrbitServiceClient.QueryAnomalies,
		layout: a.anomalyLayout(func(rows []row) string { return layoutFor(rows, a.now()) }),
		page:   func(limit uint32, token string) { req.Limit, req.PageToken = limit, token },
		rows: func(reply *orb8v1.QueryAnomaliesResponse) []row {
			rows := make([]row, len(reply.GetAnomalies()))
			for i, n := range reply.GetAnomalies() {
				rows[i] = row{time: n.GetTime().AsTime(), anomaly: n}
			}
			return rows
		},
	}, req, limit, output)
	if err != nil {
		return err
	}
	w := cmd.ErrOrStderr()
	reportLostCalls(w, reply, "nobody knows whether one was an anomaly")
	reportLostEvents(w, reply, "anomalies may be missing")
	reportGaps(w, "anomalies", req, reply)
	return nil
}

// anomalyLayout is that of anomalies; when is the layout of their times in a table that is not wide.
func (a *app) anomalyLayout(when func([]row) string) layout {
	return layout{example: jsonAnomaly{}, columns: func(rows []row, wide bool) []column {
		if wide {
			return wideAnomalyColumns(a.now().Location())
		}
		return anomalyColumns(when(rows), a.now().Location())
	}}
}

func newTraceAnomalyCommand(a *app) *cobra.Command {
	output := outputTable
	cmd := &cobra.Command{
		Use:   "anomaly",
		Short: "Show anomalies as they are found",
		Long: `Shows system calls that are not what their workload does, as they are found, until interrupted.

Filter flags are those of "orb8 anomalies".`,
		Example: `  # What is more than a note
  orb8 trace anomaly --severity warning`,
		Args: noArgs,
	}
	cmd.Flags().SortFlags = false
	filter := addAnomalyFilters(cmd, a)
	addOutputFlag(cmd, &output, rowOutputs())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := filter.check(); err != nil {
			return err
		}
		return a.stream(cmd, &orb8v1.StreamEventsRequest{
			Anomalies: filter.allow.anomalies(), DenyAnomalies: denied(filter, (*choice).anomalies),
			Kinds: []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_ANOMALY},
		}, output, a.anomalyLayout(func([]row) string { return eventLayout }))
	}
	return cmd
}

func severityNames() []string { return []string{"info", "warning", "critical"} }

func parseSeverity(s string) (orb8v1.Severity, error) {
	number, known := orb8v1.Severity_value["SEVERITY_"+strings.ToUpper(s)]
	if !known || number == 0 {
		return 0, fmt.Errorf("%q is unknown; use %s", s, anyOf(severityNames()))
	}
	return orb8v1.Severity(number), nil
}

func severityName(s orb8v1.Severity) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "SEVERITY_"))
}

// anomalyColumns leave the end of the line to the message, which is never cut.
func anomalyColumns(layout string, zone *time.Location) []column {
	return []column{
		timeColumn("TIME", layout, zone, row.when),
		severityColumn(),
		{title: "WORKLOAD", text: shortWorkload, flexible: true, room: containerRoom},
		{title: "MESSAGE", text: shortMessage, endless: true},
	}
}

// wideAnomalyColumns show the evidence too.
func wideAnomalyColumns(zone *time.Location) []column {
	rate := func(value func(*orb8v1.Anomaly) float64) func(row) string {
		return func(r row) string {
			if r.anomaly.GetRate() == 0 && r.anomaly.GetBaseline() == 0 {
				return ""
			}
			return strconv.FormatFloat(value(r.anomaly), 'g', 3, 64)
		}
	}
	return []column{
		timeColumn("TIME", wideLayout, zone, row.when),
		{title: "NODE", text: func(r row) string { return r.anomaly.GetNode() }, room: 16},
		severityColumn(),
		{title: "RULE", text: func(r row) string { return r.anomaly.GetRule() }, room: containerRoom},
		{title: "WORKLOAD", text: workload, room: nameRoom},
		{title: "NAMESPACE", text: func(r row) string { return r.anomaly.GetContainer().GetNamespace() }, room: 16},
		{title: "POD", text: func(r row) string { return r.anomaly.GetContainer().GetPod() }, room: 32},
		{title: "CONTAINER", text: func(r row) string { return r.anomaly.GetContainer().GetName() }, room: 16},
		{title: "PROCESS", text: func(r row) string { return callingProcess(r.anomaly.GetEvidence()) }, room: len("postgres[1234567]")},
		{title: "CALLS", text: anomalyCalls, right: true},
		{title: "RATE", text: rate((*orb8v1.Anomaly).GetRate), right: true},
		{title: "BASELINE", text: rate((*orb8v1.Anomaly).GetBaseline), right: true},
		{title: "CGROUP", text: func(r row) string { return r.anomaly.GetContainer().GetCgroup() }, room: nameRoom},
		{title: "CALL", text: anomalyCall, room: nameRoom},
		{title: "MESSAGE", text: shortMessage, endless: true},
	}
}

func severityColumn() column {
	return column{
		title: "SEVERITY", text: func(r row) string { return severityName(r.anomaly.GetSeverity()) },
		style: func(r row) string {
			switch r.anomaly.GetSeverity() {
			case orb8v1.Severity_SEVERITY_CRITICAL:
				return styleRed
			case orb8v1.Severity_SEVERITY_WARNING:
				return styleYellow
			}
			return ""
		},
	}
}

func workload(r row) string {
	return cmp.Or(r.anomaly.GetWorkload(), containerName(r.anomaly.GetContainer()))
}

// shortWorkload is the name of a container where the workload is that one container, by its id.
func shortWorkload(r row) string {
	if id := r.anomaly.GetContainer().GetId(); id != "" && r.anomaly.GetWorkload() == id {
		return containerName(r.anomaly.GetContainer())
	}
	return workload(r)
}

// anomalyCalls is nothing where one event met the rule.
func anomalyCalls(r row) string {
	if r.anomaly.GetCalls() == 0 {
		return ""
	}
	return humanCount(r.anomaly.GetCalls())
}

// shortMessage leaves out the workload that a message begins with: it has a column of its own.
func shortMessage(r row) string {
	message := r.anomaly.GetMessage()
	if rest, ok := strings.CutPrefix(message, r.anomaly.GetWorkload()); ok {
		message = strings.TrimLeft(rest, ": ")
	}
	return message
}

// anomalyCall is the call with its arguments, where it was seen.
func anomalyCall(r row) string {
	if r.anomaly.GetEvidence() != nil {
		return callText(r.anomaly.GetEvidence())
	}
	return callName(r.anomaly.GetAbi(), r.anomaly.GetName())
}

// jsonAnomaly is an anomaly as JSON.
type jsonAnomaly struct {
	// Kind is present in streams.
	Kind     string `json:"kind,omitempty"`
	Time     string `json:"time"`
	Severity string `json:"severity"`
	Rule     string `json:"rule"`
	Workload string `json:"workload"`
	Message  string `json:"message"`
	jsonCaller
	jsonCall
	Calls    uint64        `json:"calls,omitempty"`
	Rate     float64       `json:"rate,omitempty"`
	Baseline float64       `json:"baseline,omitempty"`
	Evidence *jsonEvidence `json:"evidence,omitempty"`
}

// jsonEvidence is the call that was seen. Who made it is the anomaly's to say.
type jsonEvidence struct {
	Time string `json:"time"`
	jsonMadeCall
}

func newJSONAnomaly(r row) jsonAnomaly {
	n := r.anomaly
	j := jsonAnomaly{
		Time: rfc3339(n.GetTime()), Severity: severityName(n.GetSeverity()), Rule: n.GetRule(), Workload: n.GetWorkload(), Message: n.GetMessage(),
		jsonCaller: newJSONCaller(n.GetNode(), n.GetContainer()),
		jsonCall:   jsonCall{Syscall: n.GetName(), ABI: n.GetAbi(), Number: n.GetNumber()},
		Calls:      n.GetCalls(), Rate: n.GetRate(), Baseline: n.GetBaseline(),
	}
	if r.kind != orb8v1.EventKind_EVENT_KIND_UNSPECIFIED {
		j.Kind = kindName(r.kind)
	}
	if e := n.GetEvidence(); e != nil {
		j.Evidence = &jsonEvidence{Time: rfc3339(e.GetTime()), jsonMadeCall: newJSONMadeCall(e)}
	}
	return j
}
