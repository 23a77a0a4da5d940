package gpu

import (
	"iter"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/flow"
)

// EventNameStatus is the OpenTelemetry EventName of a log record that is a Status.
const EventNameStatus = "orb8.gpu.status"

// Attributes of status records, next to flow's for version, start and kernel.
const (
	AttrInterval      = "orb8.gpu.interval"
	AttrScrapes       = "orb8.gpu.scrapes"
	AttrFailedScrapes = "orb8.gpu.scrapes.failed"
	AttrScrapeTime    = "orb8.gpu.scrape.duration"
	AttrLostEvents    = "orb8.gpu.lost.events"
	AttrInstances     = "orb8.gpu.mig.instances"
	// AttrModels is a map from the model to how many GPUs are of it.
	AttrModels = "orb8.gpu.models"
	// AttrSources and AttrConflicts are lists of maps, whose keys are below.
	AttrSources   = "orb8.gpu.sources"
	AttrConflicts = "orb8.gpu.conflicts"

	keyName, keyState, keyReason, keyTime = "name", "state", "reason", "duration"

	keyDevice, keyKind, keyAbout, keyFirst, keyOther, keySince = "device", "kind", "about", "first", "other", "since"
)

// States of sources.
const (
	SourceUp = "up"
	// SourcePartial is of a source that tells something, and not all.
	SourcePartial = "partial"
	// SourceAbsent is of one that the host does not have, which is no error.
	SourceAbsent = "absent"
	SourceFailed = "failed"
	SourceOff    = "off"
)

// Status is the state of a node's gpu receiver, as of a scrape. Counts are since Started.
type Status struct {
	Node    string
	Version string
	Kernel  string
	Time    time.Time
	Started time.Time
	// Interval is the time between two reports.
	Interval time.Duration
	// Models are how many GPUs there are of each model, which is empty where no source knows it. Instances are of MIG.
	Models    map[string]uint32
	Instances uint32
	// Sources are in the order in which they are asked.
	Sources []SourceStatus
	// Conflicts last: they are there, and have been for a while.
	Conflicts []Conflict
	// FailedScrapes are those in which a source failed.
	Scrapes, FailedScrapes uint64
	// ScrapeTime is of the last one.
	ScrapeTime time.Duration
	// LostEvents are log records that the pipeline refused.
	LostEvents uint64
}

// SourceStatus is what became of one source in a scrape.
type SourceStatus struct {
	Name  string
	State string
	// Reason is why it is not up.
	Reason     string
	ScrapeTime time.Duration
}

// Conflict is something about a device that two sources disagree about.
type Conflict struct {
	// Device is its UUID.
	Device string
	// Kind is owner or value.
	Kind string
	// About is the metric, or what says whose the device is.
	About string
	// First and Other are what the sources say; the first is believed.
	First, Other string
	Since        time.Time
}

// PutTo writes the status into a log record of the node's resource. EventName is EventNameStatus.
func (s *Status) PutTo(lr plog.LogRecord) {
	lr.SetEventName(EventNameStatus)
	lr.SetTimestamp(pcommon.NewTimestampFromTime(s.Time))
	a := lr.Attributes()
	a.EnsureCapacity(12)
	a.PutStr(flow.AttrAgentVersion, s.Version)
	a.PutStr(flow.AttrKernelVersion, s.Kernel)
	a.PutInt(flow.AttrAgentStarted, s.Started.UnixNano())
	a.PutInt(AttrInterval, int64(s.Interval))
	a.PutInt(AttrScrapes, int64(s.Scrapes))
	a.PutInt(AttrFailedScrapes, int64(s.FailedScrapes))
	a.PutInt(AttrScrapeTime, int64(s.ScrapeTime))
	a.PutInt(AttrLostEvents, int64(s.LostEvents))
	a.PutInt(AttrInstances, int64(s.Instances))
	models := a.PutEmptyMap(AttrModels)
	for model, n := range s.Models {
		models.PutInt(model, int64(n))
	}
	sources := a.PutEmptySlice(AttrSources)
	for i := range s.Sources {
		m := sources.AppendEmpty().SetEmptyMap()
		m.PutStr(keyName, s.Sources[i].Name)
		m.PutStr(keyState, s.Sources[i].State)
		m.PutStr(keyReason, s.Sources[i].Reason)
		m.PutInt(keyTime, int64(s.Sources[i].ScrapeTime))
	}
	conflicts := a.PutEmptySlice(AttrConflicts)
	for i := range s.Conflicts {
		c := &s.Conflicts[i]
		m := conflicts.AppendEmpty().SetEmptyMap()
		for key, value := range map[string]string{keyDevice: c.Device, keyKind: c.Kind, keyAbout: c.About, keyFirst: c.First, keyOther: c.Other} {
			m.PutStr(key, value)
		}
		m.PutInt(keySince, c.Since.UnixNano())
	}
}

// StatusFrom reads what Status.PutTo wrote.
func StatusFrom(res pcommon.Resource, lr plog.LogRecord) Status {
	a := lr.Attributes()
	s := Status{
		Node:          text(res.Attributes(), flow.AttrNodeName),
		Version:       text(a, flow.AttrAgentVersion),
		Kernel:        text(a, flow.AttrKernelVersion),
		Time:          lr.Timestamp().AsTime(),
		Started:       time.Unix(0, integer(a, flow.AttrAgentStarted)).UTC(),
		Interval:      time.Duration(integer(a, AttrInterval)),
		Scrapes:       uint64(integer(a, AttrScrapes)),
		FailedScrapes: uint64(integer(a, AttrFailedScrapes)),
		ScrapeTime:    time.Duration(integer(a, AttrScrapeTime)),
		LostEvents:    uint64(integer(a, AttrLostEvents)),
		Instances:     uint32(integer(a, AttrInstances)),
	}
	if v, ok := a.Get(AttrModels); ok && v.Type() == pcommon.ValueTypeMap && v.Map().Len() > 0 {
		s.Models = make(map[string]uint32, v.Map().Len())
		for model, n := range v.Map().All() {
			s.Models[flow.Text(model)] = uint32(n.Int())
		}
	}
	for m := range mapsOf(a, AttrSources) {
		s.Sources = append(s.Sources, SourceStatus{
			Name: text(m, keyName), State: text(m, keyState), Reason: text(m, keyReason), ScrapeTime: time.Duration(integer(m, keyTime)),
		})
	}
	for m := range mapsOf(a, AttrConflicts) {
		s.Conflicts = append(s.Conflicts, Conflict{
			Device: text(m, keyDevice), Kind: text(m, keyKind), About: text(m, keyAbout), First: text(m, keyFirst), Other: text(m, keyOther),
			Since: time.Unix(0, integer(m, keySince)).UTC(),
		})
	}
	return s
}

func integer(a pcommon.Map, key string) int64 {
	if v, ok := a.Get(key); ok {
		return v.Int()
	}
	return 0
}

// mapsOf are the maps of a list; what is none is left out.
func mapsOf(a pcommon.Map, key string) iter.Seq[pcommon.Map] {
	return func(yield func(pcommon.Map) bool) {
		v, ok := a.Get(key)
		if !ok || v.Type() != pcommon.ValueTypeSlice {
			return
		}
		for _, m := range v.Slice().All() {
			if m.Type() == pcommon.ValueTypeMap && !yield(m.Map()) {
				return
			}
		}
	}
}
