package main

import (
	"strings"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/gpu"
)

// gpus tells which GPUs a node has, from where that is known, and why not from elsewhere.
func (p statusPrinter) gpus(s *orb8v1.GpuStatus) {
	p.line("gpus", gpuCount(s))
	for _, source := range s.GetSources() {
		p.gpuSource(source)
	}
	scrapes := briefDuration(s.GetScrapeTime().AsDuration()) + " every " + s.GetInterval().AsDuration().String()
	if failed := s.GetFailedScrapes(); failed > 0 {
		p.styled(styleYellow, "gpu scrape", scrapes+"; "+grouped(failed)+" of "+grouped(s.GetScrapes())+" since start were not whole")
	} else {
		p.line("gpu scrape", scrapes)
	}
	if lost := s.GetLostEvents(); lost > 0 {
		p.styled(styleRed, "GPU LOSS", plural(lost, "event")+" since start")
	}
	for _, c := range s.GetConflicts() {
		p.styled(styleRed, "CONFLICT", conflictText(c)+", for "+humanAge(p.now.Sub(c.GetSince().AsTime())))
	}
}

// gpuCount is "2 Tesla T4, 7 MIG instances".
func gpuCount(s *orb8v1.GpuStatus) string {
	var all []string
	for _, m := range s.GetModels() {
		model := m.GetModel()
		if model == "" {
			model = "of a model that no source knows"
		}
		all = append(all, grouped(uint64(m.GetGpus()))+" "+model)
	}
	if n := s.GetMigInstances(); n > 0 {
		all = append(all, plural(uint64(n), "MIG instance"))
	}
	if len(all) == 0 {
		return "none that a source sees"
	}
	return strings.Join(all, ", ")
}

func (p statusPrinter) gpuSource(s *orb8v1.GpuSource) {
	style, took := "", ""
	switch s.GetState() {
	case gpu.SourceFailed:
		style = styleRed
	case gpu.SourcePartial:
		style = styleYellow
	}
	if d := s.GetScrapeTime().AsDuration(); d > 0 && s.GetReason() == "" {
		took = ", " + briefDuration(d)
	}
	p.styled(style, "gpu source", s.GetName()+" "+s.GetState()+took+because(s.GetReason()))
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// conflictText is one line: whose word is believed comes first.
func conflictText(c *orb8v1.GpuConflict) string {
	first := c.GetFirst()
	if first == "" {
		first = "none"
	}
	return c.GetAbout() + " of " + c.GetDevice() + ": " + first + " is believed, " + c.GetOther() + " is said too"
}

// jsonGPUStatus has durations in seconds.
type jsonGPUStatus struct {
	Models          []jsonGPUModel    `json:"models"`
	MIGInstances    uint32            `json:"migInstances"`
	Sources         []jsonGPUSource   `json:"sources"`
	Conflicts       []jsonGPUConflict `json:"conflicts"`
	Scrapes         uint64            `json:"scrapes"`
	FailedScrapes   uint64            `json:"failedScrapes"`
	ScrapeSeconds   float64           `json:"scrapeSeconds"`
	IntervalSeconds float64           `json:"intervalSeconds"`
	LostEvents      uint64            `json:"lostEvents"`
}

type jsonGPUModel struct {
	Model string `json:"model"`
	GPUs  uint32 `json:"gpus"`
}

type jsonGPUSource struct {
	Name          string  `json:"name"`
	State         string  `json:"state"`
	Reason        string  `json:"reason,omitempty"`
	ScrapeSeconds float64 `json:"scrapeSeconds"`
}

type jsonGPUConflict struct {
	Device string `json:"device"`
	Kind   string `json:"kind"`
	About  string `json:"about"`
	First  string `json:"first,omitempty"`
	Other  string `json:"other"`
	Since  string `json:"since"`
}

func newJSONGPUStatus(s *orb8v1.GpuStatus) *jsonGPUStatus {
	if s == nil {
		return nil
	}
	j := &jsonGPUStatus{
		Models: []jsonGPUModel{}, MIGInstances: s.GetMigInstances(), Sources: []jsonGPUSource{}, Conflicts: []jsonGPUConflict{},
		Scrapes: s.GetScrapes(), FailedScrapes: s.GetFailedScrapes(), ScrapeSeconds: s.GetScrapeTime().AsDuration().Seconds(),
		IntervalSeconds: s.GetInterval().AsDuration().Seconds(), LostEvents: s.GetLostEvents(),
	}
	for _, m := range s.GetModels() {
		j.Models = append(j.Models, jsonGPUModel{Model: m.GetModel(), GPUs: m.GetGpus()})
	}
	for _, f := range s.GetSources() {
		j.Sources = append(j.Sources, jsonGPUSource{
			Name: f.GetName(), State: f.GetState(), Reason: f.GetReason(), ScrapeSeconds: f.GetScrapeTime().AsDuration().Seconds(),
		})
	}
	for _, c := range s.GetConflicts() {
		j.Conflicts = append(j.Conflicts, jsonGPUConflict{
			Device: c.GetDevice(), Kind: c.GetKind(), About: c.GetAbout(), First: c.GetFirst(), Other: c.GetOther(), Since: rfc3339(c.GetSince()),
		})
	}
	return j
}

// gpuTotal is how many GPUs a node has; MIG instances are parts of them.
func gpuTotal(s *orb8v1.GpuStatus) (n uint64) {
	for _, m := range s.GetModels() {
		n += uint64(m.GetGpus())
	}
	return n
}

// unavailableSources are those that failed, or do not tell everything.
func unavailableSources(s *orb8v1.GpuStatus) (names []string) {
	for _, source := range s.GetSources() {
		if source.GetState() == gpu.SourceFailed || source.GetState() == gpu.SourcePartial {
			names = append(names, source.GetName())
		}
	}
	return names
}

// explainedNodes is how many nodes a command explains that has nothing to show.
const explainedNodes = 3

// noGPULines say why nothing is known of any GPU, and what to do: by what the nodes' receivers say of their sources.
func noGPULines(nodes []*orb8v1.NodeStatus) []string {
	var receivers []*orb8v1.NodeStatus
	var seen uint64
	for _, n := range nodes {
		if n.GetGpu() != nil {
			receivers = append(receivers, n)
			seen += gpuTotal(n.GetGpu()) + uint64(n.GetGpu().GetMigInstances())
		}
	}
	switch {
	case len(receivers) == 0:
		return []string{`no GPU has reported, and no gpu receiver either: put it into a metrics and a logs pipeline of the agents, as distribution/config/agent.yaml does; see docs/cli.md under "GPUs"`}
	case seen > 0:
		return []string{"no GPU has reported, but " + plural(uint64(len(receivers)), "node") + " with a gpu receiver " +
			"said that there are some: lead its metrics to orb8_store, as the pipeline metrics/gpu of distribution/config does"}
	}
	lines := []string{"no GPU has reported; what the nodes' gpu receivers say of their sources:"}
	for _, n := range receivers[:min(len(receivers), explainedNodes)] {
		for _, source := range n.GetGpu().GetSources() {
			lines = append(lines, n.GetNode()+": "+source.GetName()+" "+source.GetState()+because(source.GetReason()))
		}
	}
	if more := len(receivers) - explainedNodes; more > 0 {
		lines = append(lines, plural(uint64(more), "more node")+": see orb8 status")
	}
	return lines
}
