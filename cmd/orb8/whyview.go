package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/orb8/orb8/internal/why"
)

const (
	// whyCalls, whyTalkers and whyStretches are how many of each a text has; JSON has all.
	whyCalls     = 5
	whyTalkers   = 3
	whyStretches = 5
)

// whyPrinter writes an answer for people.
type whyPrinter struct{ statusPrinter }

func (p whyPrinter) answer(a *whyAnswer) {
	r := a.report
	p.title(a.kind, a.name)
	style := ""
	switch r.Verdict {
	case why.Busy:
		style = styleGreen
	case why.NotEnough:
		style = styleYellow
	}
	p.styled(style, "verdict", whySentence(a))
	p.line("range", fmt.Sprintf("%s to %s, in slots of %s", p.clock(a.input.Start, time.DateTime), p.clock(a.end(), time.TimeOnly), a.input.Slot))
	for _, d := range a.devices {
		p.line("GPU", fmt.Sprintf("%d of %s, %s: %s busy", d.device.GetIndex(), a.node, cmp.Or(d.device.GetModel(), d.device.GetId()), knownPercent(d.utilization)))
	}
	if r.Verdict != why.Busy && len(r.Shares) > 0 {
		fmt.Fprintln(p.w)
		p.title("while idle,", percent(r.Idle)+" of the time")
		p.causes(a)
	}
	if len(r.Stretches) > 0 && r.Verdict != why.Busy {
		fmt.Fprintln(p.w)
		p.stretches(r.Stretches)
	}
	if len(a.missing) > 0 {
		fmt.Fprintln(p.w)
		p.title("not", "known")
		for _, text := range a.missing {
			p.styled(styleYellow, "missing", text)
		}
	}
}

func (p whyPrinter) clock(t time.Time, layout string) string {
	return t.In(p.now.Location()).Format(layout)
}

func (a *whyAnswer) end() time.Time {
	return a.input.Start.Add(time.Duration(a.input.Slots) * a.input.Slot)
}

func knownPercent(share float64) string {
	if math.IsNaN(share) {
		return "not known how"
	}
	return percent(share)
}

// whySentence is the verdict as a sentence.
func whySentence(a *whyAnswer) string {
	r := a.report
	idle := "the GPUs were idle " + percent(r.Idle) + " of the time"
	most := func(cause why.Cause, text string) string {
		return fmt.Sprintf("%s: %s, and for %s of that %s", r.Verdict, idle, percent(r.Shares[cause]), text)
	}
	switch r.Verdict {
	case why.Busy:
		return "busy: the GPUs were busy " + percent(r.Utilization) + " of the time"
	case why.Verdict(why.Network):
		return most(why.Network, "the pod waited for the network")
	case why.Verdict(why.Syscalls):
		return most(why.Syscalls, "the pod was in system calls")
	case why.Verdict(why.Synchronising):
		return most(why.Synchronising, "the pod waited for CUDA to synchronise")
	case why.Verdict(why.CPU):
		return most(why.CPU, "the pod waited for nothing that is measured: it worked on the CPU")
	case why.Mixed:
		return "mixed: " + idle + ": " + sharesText(r.Shares)
	}
	if r.Shares[why.Unseen] >= why.Decisive {
		return "not enough data: " + idle + ", and for " + percent(r.Shares[why.Unseen]) + " of that the pod made no system call: " +
			"it computed, or waited in one that goes on"
	}
	if r.Known > 0 && r.Idle > 1-why.BusyShare {
		return "not enough data: " + idle + "; below is what is missing"
	}
	return "not enough data: below is what is missing"
}

// sharesText names the causes that have a share, the greatest first.
func sharesText(shares map[why.Cause]float64) string {
	var parts []string
	for _, cause := range causesOf(shares) {
		parts = append(parts, string(cause)+" "+percent(shares[cause]))
	}
	return strings.Join(parts, ", ")
}

// causesOf are the causes of at least half a percent, the greatest first.
func causesOf(shares map[why.Cause]float64) []why.Cause {
	causes := slices.DeleteFunc(why.Causes(), func(c why.Cause) bool { return shares[c] < 0.005 })
	slices.SortStableFunc(causes, func(a, b why.Cause) int { return cmp.Compare(shares[b], shares[a]) })
	return causes
}

// causes tells the share of each, and the evidence for it.
func (p whyPrinter) causes(a *whyAnswer) {
	r := a.report
	for _, cause := range causesOf(r.Shares) {
		share := percent(r.Shares[cause])
		switch cause {
		case why.Network:
			p.line("network", share+": received "+trafficText(r.Received)+", sent "+trafficText(r.Sent))
			for _, peer := range a.peers[:min(whyTalkers, len(a.peers))] {
				p.line("", peerText(peer))
			}
		case why.Syscalls:
			p.line("syscalls", share)
		case why.Synchronising:
			p.line("sync", fmt.Sprintf("%s: %s in CUDA's synchronising functions", share, thread(r.Synchronising)))
		case why.CPU:
			p.line("cpu", share+": not measured, but what is left after all that is")
		case why.Unseen:
			p.line("unseen", share+": no system call was made, and none returned")
		}
		p.uses(r.Calls, cause)
	}
	if slices.ContainsFunc(r.Calls, func(u why.Use) bool { return u.Cause == "" && u.Took > 0 }) {
		p.line("no cause", "waits for the pod's own threads, for work or for nothing")
		p.uses(r.Calls, "")
	}
}

// uses lists the longest calls that count to a cause.
func (p whyPrinter) uses(uses []why.Use, cause why.Cause) {
	shown := 0
	for _, u := range uses {
		if u.Cause != cause || u.Took < time.Millisecond || shown == whyCalls {
			continue
		}
		shown++
		text := fmt.Sprintf("%s: %s, %s", u.Name, plural(u.Made, "call"), thread(u.Took.Seconds()))
		if u.Made > 0 {
			text += ", " + shortDuration(durationpb.New(u.Took/time.Duration(u.Made))) + " each"
		}
		if u.Pending > 0 {
			text += fmt.Sprintf("; %d had not returned", u.Pending)
		}
		p.line("", text)
	}
}

// thread is a time that threads spent, each for itself.
func thread(seconds float64) string {
	if seconds < 10 {
		return fmt.Sprintf("%.2f s", seconds)
	}
	return grouped(round(seconds)) + " s"
}

func trafficText(t why.Traffic) string {
	text := humanBytes(t.Bytes) + " in " + plural(t.Packets, "packet")
	if t.Retransmits > 0 {
		text += " (" + grouped(t.Retransmits) + " sent again)"
	}
	return text
}

func peerText(peer whyPeer) string {
	text := peer.name + ": received " + trafficText(peer.received) + ", sent " + trafficText(peer.sent)
	if peer.rtt > 0 {
		text += ", round trip up to " + peer.rtt.Round(10*time.Microsecond).String()
	}
	return text
}

// stretches lists the longest, in order of time.
func (p whyPrinter) stretches(all []why.Stretch) {
	longest := slices.Clone(all)
	slices.SortStableFunc(longest, func(a, b why.Stretch) int { return cmp.Compare(b.End.Sub(b.Start), a.End.Sub(a.Start)) })
	longest = longest[:min(whyStretches, len(longest))]
	slices.SortFunc(longest, func(a, b why.Stretch) int { return a.Start.Compare(b.Start) })
	title := "not busy"
	if len(longest) < len(all) {
		title = fmt.Sprintf("longest %d of %d", len(longest), len(all))
	}
	p.title("stretches,", title)
	for _, s := range longest {
		text := fmt.Sprintf("to %s (%s): %s busy", p.clock(s.End, time.TimeOnly), s.End.Sub(s.Start), percent(s.Utilization))
		if shares := sharesText(s.Shares); shares != "" {
			text += "; the rest: " + shares
		}
		p.line(p.clock(s.Start, time.TimeOnly), text)
	}
}

// jsonWhy is the answer as JSON. Shares are from 0 to 1, times in seconds.
type jsonWhy struct {
	Pod     string `json:"pod"`
	Node    string `json:"node,omitempty"`
	Verdict string `json:"verdict"`
	Summary string `json:"summary"`
	Since   string `json:"since"`
	Until   string `json:"until"`
	// Slot is the length of the slots that were looked at, Known the share of them that has samples of the GPUs.
	Slot        float64               `json:"slot"`
	Known       float64               `json:"known"`
	Utilization float64               `json:"utilization"`
	Idle        float64               `json:"idle"`
	Shares      map[why.Cause]float64 `json:"shares,omitempty"`
	Devices     []jsonWhyDevice       `json:"devices,omitempty"`
	Stretches   []jsonWhyStretch      `json:"stretches,omitempty"`
	// What follows is of the slots in which the GPUs were not busy.
	Syscalls      []jsonWhyCall   `json:"syscalls,omitempty"`
	Network       *jsonWhyNetwork `json:"network,omitempty"`
	Synchronising *float64        `json:"synchronising,omitempty"`
	Missing       []string        `json:"missing,omitempty"`
}

type jsonWhyDevice struct {
	UUID        string   `json:"uuid"`
	GPU         uint32   `json:"gpu"`
	Model       string   `json:"model,omitempty"`
	Utilization *float64 `json:"utilization,omitempty"`
}

type jsonWhyStretch struct {
	Since       string                `json:"since"`
	Until       string                `json:"until"`
	Utilization float64               `json:"utilization"`
	Shares      map[why.Cause]float64 `json:"shares,omitempty"`
}

type jsonWhyCall struct {
	Syscall string `json:"syscall"`
	// Cause is empty where a call counts to none.
	Cause why.Cause `json:"cause"`
	Calls uint64    `json:"calls"`
	Time  float64   `json:"time"`
	// Pending had not returned by the end of the range.
	Pending uint64 `json:"pending,omitempty"`
}

type jsonWhyNetwork struct {
	Received jsonWhyTraffic `json:"received"`
	Sent     jsonWhyTraffic `json:"sent"`
	Peers    []jsonWhyPeer  `json:"peers"`
}

type jsonWhyTraffic struct {
	Bytes       uint64 `json:"bytes"`
	Packets     uint64 `json:"packets"`
	Retransmits uint64 `json:"retransmits"`
}

type jsonWhyPeer struct {
	Name     string         `json:"name"`
	Received jsonWhyTraffic `json:"received"`
	Sent     jsonWhyTraffic `json:"sent"`
	// RTT is the greatest smoothed round-trip time; 0 is not known.
	RTT float64 `json:"rtt,omitempty"`
}

func newJSONWhy(a *whyAnswer) jsonWhy {
	r := a.report
	instant := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	j := jsonWhy{
		Pod: a.name, Node: a.node, Verdict: string(r.Verdict), Summary: whySentence(a), Since: instant(a.input.Start), Until: instant(a.end()),
		Slot: a.input.Slot.Seconds(), Known: digits(r.Known), Utilization: digits(r.Utilization), Idle: digits(r.Idle), Shares: digitsOf(r.Shares),
		Missing: a.missing,
	}
	for _, d := range a.devices {
		device := jsonWhyDevice{UUID: d.device.GetId(), GPU: d.device.GetIndex(), Model: d.device.GetModel()}
		if !math.IsNaN(d.utilization) {
			device.Utilization = new(digits(d.utilization))
		}
		j.Devices = append(j.Devices, device)
	}
	for _, s := range r.Stretches {
		j.Stretches = append(j.Stretches, jsonWhyStretch{instant(s.Start), instant(s.End), digits(s.Utilization), digitsOf(s.Shares)})
	}
	for _, u := range r.Calls {
		j.Syscalls = append(j.Syscalls, jsonWhyCall{u.Name, u.Cause, u.Made, digits(u.Took.Seconds()), u.Pending})
	}
	if a.network {
		j.Network = &jsonWhyNetwork{Received: jsonWhyTraffic(r.Received), Sent: jsonWhyTraffic(r.Sent), Peers: []jsonWhyPeer{}}
		for _, p := range a.peers {
			j.Network.Peers = append(j.Network.Peers, jsonWhyPeer{p.name, jsonWhyTraffic(p.received), jsonWhyTraffic(p.sent), p.rtt.Seconds()})
		}
	}
	if a.synchronise {
		j.Synchronising = new(digits(r.Synchronising))
	}
	return j
}

// digits leaves those that say something.
func digits(v float64) float64 { return math.Round(v*1e4) / 1e4 }

func digitsOf(shares map[why.Cause]float64) map[why.Cause]float64 {
	rounded := map[why.Cause]float64{}
	for cause, share := range shares {
		rounded[cause] = digits(share)
	}
	return rounded
}
