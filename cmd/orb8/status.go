package main

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

func newStatusCommand(a *app) *cobra.Command {
	output := outputTable
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the state of every node, what it lost, and the store",
		Long: `Shows every node that has reported to the collector: since when it runs, where it is attached, which
packets and system calls it has counted since then and what it lost; which GPUs it has, and why a source
of what is known of them is not there; and how full the store is. With -o wide, jsonl and csv a node is a
line.`,
		Example: `  orb8 status

  # A line a node, those that lost most packets last
  orb8 status -o wide | sort -k 11 -n

  # Which nodes have lost packets?
  orb8 status -o json | jq '.nodes[] | select(.network.lost.packets > 0) | .node'`,
		Args: noArgs,
	}
	addOutputFlag(cmd, &output, rowOutputs())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		reply, err := call(cmd.Context(), a, orb8v1connect.OrbitServiceClient.GetStatus, &orb8v1.GetStatusRequest{})
		if err != nil {
			return err
		}
		if output == outputJSON {
			return writeJSONDocument(cmd.OutOrStdout(), newJSONStatus(reply))
		}
		out := bufio.NewWriter(cmd.OutOrStdout())
		if output != outputTable {
			rows := make([]row, len(reply.GetNodes()))
			for i, n := range reply.GetNodes() {
				rows[i] = nodeRow(n)
			}
			columns := func([]row, bool) []column { return nodeColumns(a.now()) }
			w := newRowsWriter(out, output, layout{example: jsonNode{}, columns: columns}, screenOf(cmd.OutOrStdout()))
			return errors.Join(w.add(rows), w.end(), out.Flush())
		}
		p := statusPrinter{w: out, screen: screenOf(cmd.OutOrStdout()), now: a.now()}
		p.collector(a.connection.name, reply)
		return out.Flush()
	}
	return cmd
}

// statusPrinter writes a status for people. Errors are left to its writer, which keeps the first one.
type statusPrinter struct {
	w      *bufio.Writer
	screen screen
	now    time.Time
}

func (p statusPrinter) collector(name string, s *orb8v1.GetStatusResponse) {
	p.title("collector", name)
	p.line("version", s.GetVersion())
	if len(s.GetNodes()) == 0 {
		p.line("nodes", "none has reported yet")
	}
	for _, n := range s.GetNodes() {
		fmt.Fprintln(p.w)
		p.node(n)
	}
	if s.GetStore() != nil {
		fmt.Fprintln(p.w)
		p.store(s.GetStore())
	}
}

func (p statusPrinter) node(n *orb8v1.NodeStatus) {
	p.title("node", n.GetNode())
	if n.GetMissing() {
		p.styled(styleRed, "seen", p.ago(n.GetLastSeen())+": MISSING")
	} else {
		p.line("seen", p.ago(n.GetLastSeen()))
	}
	p.line("agent", n.GetVersion()+", up "+humanAge(n.GetLastSeen().AsTime().Sub(n.GetStarted().AsTime()))+
		" (since "+n.GetStarted().AsTime().In(p.now.Location()).Format(time.DateTime)+")")
	p.line("kernel", n.GetKernel())
	if n.GetNetwork() != nil {
		p.network(n.GetNetwork())
	}
	if n.GetSyscalls() != nil {
		p.syscalls(n.GetSyscalls())
	}
	if n.GetGpu() != nil {
		p.gpus(n.GetGpu())
	}
}

func (p statusPrinter) network(net *orb8v1.NetworkStatus) {
	p.line("attached", net.GetAttachMode()+", "+plural(uint64(net.GetAttachPoints()), "hook"))
	p.line("counted", plural(net.GetPackets(), "packet")+", "+humanBytes(net.GetBytes())+" since start")
	p.line("rate", plural(round(net.GetPacketsPerSecond()), "packet")+" a second, "+humanBytes(round(net.GetBytesPerSecond()))+" a second")
	p.lost("lost", net.GetLost())
	p.line("unparsed", plural(net.GetUnparsedPackets(), "packet"))
	p.drops(net.GetDrops())
	p.line("flows", grouped(net.GetLiveFlows())+" live")
	p.line("flow table", share(net.GetFlowTableEntries(), net.GetFlowTableSize())+" of "+grouped(net.GetFlowTableSize())+
		" entries in the last "+net.GetInterval().AsDuration().String())
	p.line("ring buffer", percent(net.GetRingBufferUtilization())+" of "+humanBytes(net.GetRingBufferBytes())+" used")
	p.probes(net.GetProbes())
	p.unavailable(net.GetUnavailable())
}

func (p statusPrinter) syscalls(s *orb8v1.SyscallStatus) {
	p.line("calls", plural(s.GetCalls(), "system call")+" since start, "+plural(s.GetCgroups(), "cgroup")+
		" in the last "+s.GetInterval().AsDuration().String())
	p.line("call rate", plural(round(s.GetCallsPerSecond()), "call")+" a second")
	p.lost("call loss", s.GetLost())
	p.line("call ring", percent(s.GetRingBufferUtilization())+" of "+humanBytes(s.GetRingBufferBytes())+" used")
	if n := s.GetThinning(); n > 1 {
		p.styled(styleYellow, "thinned", "events "+grouped(uint64(n))+" times as sparse as configured: the ring buffer was nearly full")
	}
	if s.GetLatency() {
		p.line("latency", "measured")
	} else {
		p.line("latency", "not measured")
	}
	p.probes(s.GetProbes())
	p.unavailable(s.GetUnavailable())
}

// probes tells what each program takes of the kernel's time, where that is measured.
func (p statusPrinter) probes(costs []*orb8v1.ProbeCost) {
	for _, c := range costs {
		p.line("probe", fmt.Sprintf("%s: %d ns a run, %s", c.GetProgram(), c.GetRunTime().AsDuration().Nanoseconds()/int64(max(c.GetRuns(), 1)),
			plural(c.GetRuns(), "run")))
	}
}

// round takes a rate to the next whole number.
func round(rate float64) uint64 { return uint64(max(rate, 0) + 0.5) }

func (p statusPrinter) unavailable(features map[string]string) {
	for _, feature := range slices.Sorted(maps.Keys(features)) {
		p.styled(styleYellow, "missing", feature+": "+features[feature])
	}
}

// topDrops is how many reasons are shown.
const topDrops = 3

// drops names what the kernel dropped most for. It says nothing where nothing was dropped or nobody counts.
func (p statusPrinter) drops(drops []*orb8v1.Drops) {
	var reasons []string
	for _, d := range drops[:min(topDrops, len(drops))] {
		reasons = append(reasons, d.GetReason()+" "+grouped(d.GetPackets()))
	}
	if more := uint64(len(drops) - len(reasons)); more > 0 {
		reasons = append(reasons, plural(more, "other reason"))
	}
	if len(reasons) > 0 {
		p.line("dropped", "by the kernel since start: "+strings.Join(reasons, ", "))
	}
}

// lost is loud about anything but nothing.
func (p statusPrinter) lost(name string, l *orb8v1.Loss) {
	var losses []string
	if l.GetCalls() > 0 {
		losses = append(losses, plural(l.GetCalls(), "call"))
	}
	if l.GetPackets() > 0 || l.GetBytes() > 0 {
		losses = append(losses, plural(l.GetPackets(), "packet")+" ("+humanBytes(l.GetBytes())+")")
	}
	if l.GetEvents() > 0 {
		losses = append(losses, plural(l.GetEvents(), "event"))
	}
	if len(losses) == 0 {
		p.styled(styleGreen, name, "nothing")
		return
	}
	p.styled(styleRed, strings.ToUpper(name), strings.Join(losses, ", ")+" since start")
}

func (p statusPrinter) store(s *orb8v1.StoreStatus) {
	p.title("store", s.GetBackend())
	if s.GetMaxBytes() > 0 {
		p.line("records", grouped(s.GetRecords()))
		size := humanBytes(s.GetBytes()) + " of " + humanBytes(s.GetMaxBytes()) + " (" + share(s.GetBytes(), s.GetMaxBytes()) + ")"
		if s.GetHeadBytes() > 0 {
			size += " in files, " + humanBytes(s.GetHeadBytes()) + " in memory"
		}
		p.line("size", size)
		p.line("oldest", p.ago(s.GetOldest()))
		p.line("evicted", plural(s.GetEvictedRecords(), "record")+" before their time")
	} else {
		p.line("records", "kept by "+s.GetBackend()+", which knows how many they are; queries look back "+humanAge(p.now.Sub(s.GetOldest().AsTime())))
	}
	p.line("streams", plural(uint64(s.GetSubscribers()), "subscriber")+", "+plural(s.GetSubscriberDrops(), "event")+" dropped")
}

func (p statusPrinter) title(kind, name string) {
	fmt.Fprintln(p.w, p.screen.paint(styleBold, kind+" "+printable(name)))
}

func (p statusPrinter) line(name, fact string) {
	p.styled("", name, fact)
}

func (p statusPrinter) styled(style, name, fact string) {
	fmt.Fprintf(p.w, "  %-11s  %s\n", name, p.screen.paint(style, printable(fact)))
}

func (p statusPrinter) ago(ts *timestamppb.Timestamp) string {
	if ts == nil {
		return "never"
	}
	return humanAge(p.now.Sub(ts.AsTime())) + " ago"
}

func share(part, whole uint64) string {
	if whole == 0 {
		return percent(0)
	}
	return percent(float64(part) / float64(whole))
}

func percent(share float64) string {
	return fmt.Sprintf("%.0f %%", 100*share)
}
