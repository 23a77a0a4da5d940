package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

const (
	defaultWindow = 10 * time.Second
	longestWindow = time.Hour
	// recordDelay is what a record may take from its node to the collector that is asked, behind the end of its interval.
	recordDelay = 2 * time.Second
	// topGroups is how many lines a live view can be scrolled through.
	topGroups = 500
	// defaultInterval is taken where no node says how often it reports.
	defaultInterval = 5 * time.Second
)

// topMeasures are the columns of top, which are rates.
func topMeasures() []string {
	return []string{"bytes", "packets", "connections", "retransmits", "errors"}
}

// grouping is what a line of top is.
type grouping struct {
	name string
	by   []string
}

func groupings() []grouping {
	pair := func(what string) []string { return []string{"source." + what, "destination." + what} }
	return []grouping{
		{"pods", pair("pod")},
		{"sending pods", []string{"source.pod"}},
		{"workloads", pair("workload")},
		{"namespaces", pair("namespace")},
		{"Services", []string{"destination.service"}},
		{"nodes", pair("node")},
		{"processes", pair("process")},
		{"addresses", pair("address")},
		{"DNS names", []string{"source.process", "destination.name"}},
	}
}

// withoutPods is the grouping that is taken where nothing is known of pods.
const withoutPods = "processes"

func newTopCommand(a *app) *cobra.Command {
	question := topQuestion{sort: "bytes", window: defaultWindow}
	every, output, once := defaultEvery, outputTable, false
	var by []string
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show who talks most, now",
		Long: `Shows the busiest pairs of pods, or of processes where there are no pods, by bytes a second, with packets,
connections, retransmits and errors (connections that were reset, refused or timed out) a second; every
two seconds anew. Keys change what is grouped, sorted, filtered and how long the rates are taken over:
? lists them. Rates are means over --window, and end where the last records of all nodes have come in.

Where the output is no terminal, and with --once, it prints one table.

` + filterHelp,
		Example: `  orb8 top

  # What reaches one Service, by who sends it
  orb8 top --by source.workload --to svc/shop/cart

  # Where segments get lost, in the last five minutes
  orb8 top --sort retransmits --window 5m --once`,
		Args: noArgs,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Func("by", "`DIMENSION` to group by, as for aggregate; repeat it or use commas (default: pods)", each(&by, parseDimension))
	flags.Func("sort", "`MEASURE` that orders: "+anyOf(topMeasures())+" (default bytes)", oneOf(&question.sort, topMeasures()))
	flags.Func("window", "`DURATION` that rates are means of (default 10s)", func(s string) (err error) {
		question.window, err = parseWindow(s)
		return err
	})
	flags.FuncP("every", "n", "`DURATION` from one picture to the next (default 2s)", func(s string) (err error) {
		every, err = parseEvery(s)
		return err
	})
	flags.BoolVar(&once, "once", false, "print one table and end")
	filter := addFlowFilters(cmd, a)
	addOutputFlag(cmd, &output, rowOutputs())
	completeWords(cmd, "by", func() []string { return signalOf("flows").dimensions })
	complete(cmd, "sort", topMeasures())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := filter.check(); err != nil {
			return err
		}
		question.filters = filter
		model := newTopModel(question, by, every)
		model.app, model.ctx = a, cmd.Context()
		if once || a.watched || flags.Changed("output") || !isTerminal(cmd.InOrStdin()) || screenOf(cmd.OutOrStdout()).height == 0 {
			return model.printOnce(cmd, output)
		}
		// What the user is told on the way would be in the picture.
		if _, err := a.connect(cmd.Context()); err != nil {
			return interrupted(cmd.Context(), err)
		}
		return model.run(cmd)
	}
	return cmd
}

func parseWindow(s string) (time.Duration, error) {
	window, err := parseAge(s)
	if err != nil || window < time.Second || window > longestWindow {
		return 0, errors.New("use a duration from 1s to 1h")
	}
	return window, nil
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// topQuestion is what a picture of top is of.
type topQuestion struct {
	by      []string
	sort    string
	window  time.Duration
	filters *filters
}

// topAnswer is what a collector said to one.
type topAnswer struct {
	question topQuestion
	groups   []*orb8v1.AggregateGroup
	// total is of all groups.
	total []uint64
	// until is the end of the window that the rates are of; window is how long that is.
	until   time.Time
	window  time.Duration
	missing []string
	lost    uint64
	err     error
}

// ask sums the flows of a window. Where the store has none that long, the rates are still means of the whole window.
func (a *app) askTop(ctx context.Context, q topQuestion) topAnswer {
	answer := topAnswer{question: q}
	interval, err := a.interval(ctx)
	if err != nil {
		answer.err = err
		return answer
	}
	// Both ends are where intervals begin by the clock: so a flow that goes on has as many records in each window.
	answer.window = max(interval, q.window-q.window%interval)
	answer.until = a.now().Add(-interval - recordDelay).Truncate(interval)
	since := answer.until.Add(-answer.window)
	reply, err := call(ctx, a, orb8v1connect.OrbitServiceClient.Aggregate, &orb8v1.AggregateRequest{
		Signal: orb8v1.Signal_SIGNAL_FLOWS, Since: timestamppb.New(since), Until: timestamppb.New(answer.until),
		Allow: q.filters.allow.flows(), Deny: denied(q.filters, (*choice).flows),
		By: q.by, Measures: sortedMeasures(q.sort), Bucket: durationpb.New(interval), Top: topGroups,
	})
	if err != nil {
		answer.err = err
		return answer
	}
	answer.missing, answer.lost = reply.GetMissingNodes(), reply.GetLost().GetPackets()
	order := func(values []uint64) []uint64 { return inOrder(values, reply.GetMeasures()) }
	answer.total = order(within(reply.GetTotal(), since, answer.until))
	for _, group := range reply.GetGroups() {
		values := order(within(group, since, answer.until))
		if slices.Max(values) > 0 {
			answer.groups = append(answer.groups, &orb8v1.AggregateGroup{By: group.GetBy(), Values: values})
		}
	}
	// A record that began before the window is in the collector's order, but not in these rates.
	key := slices.Index(topMeasures(), q.sort)
	slices.SortStableFunc(answer.groups, func(a, b *orb8v1.AggregateGroup) int { return -cmp.Compare(a.GetValues()[key], b.GetValues()[key]) })
	return answer
}

// interval is the longest in which nodes report.
func (a *app) interval(ctx context.Context) (time.Duration, error) {
	status, err := call(ctx, a, orb8v1connect.OrbitServiceClient.GetStatus, &orb8v1.GetStatusRequest{})
	if err != nil {
		return 0, err
	}
	interval := time.Duration(0)
	for _, n := range status.GetNodes() {
		if !n.GetMissing() {
			interval = max(interval, n.GetNetwork().GetInterval().AsDuration())
		}
	}
	if interval == 0 {
		return defaultInterval, nil
	}
	// Buckets are of whole seconds.
	return max(time.Second, interval.Round(time.Second)), nil
}

// sortedMeasures are all of top, the one that orders first.
func sortedMeasures(first string) []string {
	all := topMeasures()
	return append([]string{first}, slices.DeleteFunc(all, func(m string) bool { return m == first })...)
}

// inOrder puts the values of some measures into the order of topMeasures.
func inOrder(values []uint64, measures []string) []uint64 {
	ordered := make([]uint64, len(topMeasures()))
	for i, name := range topMeasures() {
		ordered[i] = at(values, slices.Index(measures, name))
	}
	return ordered
}

// within sums the buckets that begin in a range.
func within(group *orb8v1.AggregateGroup, since, until time.Time) []uint64 {
	sums := make([]uint64, len(group.GetValues()))
	for _, b := range group.GetBuckets() {
		if start := b.GetStart().AsTime(); start.Before(since) || !start.Before(until) {
			continue
		}
		for i, v := range b.GetValues() {
			if i < len(sums) {
				sums[i] += v
			}
		}
	}
	return sums
}

// columns are those of a table of rates.
func (t *topAnswer) columns() []column {
	var columns []column
	for i, name := range t.question.by {
		columns = append(columns, column{title: strings.ToUpper(name), flexible: true, text: func(r row) string { return at(r.group.GetBy(), i) }})
	}
	titles := map[string]string{"bytes": "BYTES/S", "packets": "PKTS/S", "connections": "CONN/S", "retransmits": "RETX/S", "errors": "ERR/S"}
	for i, name := range topMeasures() {
		c := column{title: titles[name], right: true, text: func(r row) string { return t.rate(name, r.group.GetValues()[i]) }}
		if name == t.question.sort {
			c.title += "↓"
		}
		if name == "retransmits" || name == "errors" {
			c.style = func(r row) string {
				if r.group.GetValues()[i] > 0 {
					return styleYellow
				}
				return ""
			}
		}
		columns = append(columns, c)
	}
	return columns
}

func (t *topAnswer) rows() []row {
	rows := make([]row, len(t.groups))
	for i, group := range t.groups {
		rows[i] = row{group: group}
	}
	return rows
}

// rate is a value a second.
func (t *topAnswer) rate(measure string, v uint64) string {
	perSecond := float64(v) / t.window.Seconds()
	switch {
	case v == 0:
		return "0"
	case measure == "bytes":
		return humanBytes(uint64(perSecond + 0.5))
	case perSecond < 9.95:
		return fmt.Sprintf("%.1f", perSecond)
	}
	return humanCount(uint64(perSecond + 0.5))
}

// json is a line of top as JSON.
func (t *topAnswer) json(group *orb8v1.AggregateGroup) jsonPairs {
	var pairs jsonPairs
	for i, name := range t.question.by {
		pairs = append(pairs, jsonPair{name, at(group.GetBy(), i)})
	}
	for i, name := range topMeasures() {
		pairs = append(pairs, jsonPair{name + "PerSecond", float64(group.GetValues()[i]) / t.window.Seconds()})
	}
	return pairs
}

// printOnce prints one picture as a table, or for programs.
func (m *topModel) printOnce(cmd *cobra.Command, output string) error {
	answer := m.app.askTop(cmd.Context(), m.question())
	if answer.err == nil && m.unnamed(&answer) {
		answer = m.app.askTop(cmd.Context(), m.question())
	}
	if answer.err != nil {
		return answer.err
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	if err := errors.Join(answer.write(out, output, screenOf(cmd.OutOrStdout())), out.Flush()); err != nil {
		return err
	}
	w := cmd.ErrOrStderr()
	if len(answer.groups) == 0 {
		notice(w, "nothing matches")
	}
	for _, warning := range answer.warnings() {
		notice(w, "%s", warning)
	}
	return nil
}

func (t *topAnswer) write(w io.Writer, output string, s screen) error {
	groups := t.groups[:min(len(t.groups), defaultTop)]
	switch output {
	case outputJSON, outputJSONL, outputCSV:
		rows := make([]row, len(groups))
		for i, group := range groups {
			rows[i] = row{json: t.json(group)}
		}
		if output == outputCSV {
			return writePairsCSV(w, t.json(&orb8v1.AggregateGroup{Values: make([]uint64, len(topMeasures()))}), rows)
		}
		l := newRowsWriter(w, output, layout{}, s)
		return errors.Join(l.add(rows), l.end())
	}
	table := &tableWriter{w: w, wide: output == outputWide, screen: s, rows: t.rows()[:len(groups)]}
	table.layout.columns = func([]row, bool) []column { return t.columns() }
	return table.end()
}

// warnings are what the rates do not say of themselves.
func (t *topAnswer) warnings() []string {
	var all []string
	if t.lost > 0 {
		all = append(all, "lost "+plural(t.lost, "packet")+": they are in no rate")
	}
	if len(t.missing) > 0 {
		all = append(all, "no report from "+strings.Join(t.missing, ", "))
	}
	return all
}

// run shows pictures until the user has enough.
func (m *topModel) run(cmd *cobra.Command) error {
	m.screen = screenOf(cmd.OutOrStdout())
	// Signals are main's, which ends the context.
	program := tea.NewProgram(m, tea.WithContext(cmd.Context()), tea.WithInput(cmd.InOrStdin()), tea.WithOutput(cmd.OutOrStdout()), tea.WithoutSignalHandler())
	_, err := program.Run()
	if cmd.Context().Err() != nil {
		return nil
	}
	return err
}
