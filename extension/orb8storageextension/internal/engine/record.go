package engine

import (
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/journal"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
)

// The members of a line. Engines keep neither types nor order nor, all of them, names of attributes: the line has all of a record,
// and attributes are what is searched for.
const (
	lineEvent      = "event"
	lineID         = "id"
	lineTime       = "time"
	lineArrived    = "arrived"
	lineBody       = "body"
	lineResource   = "resource"
	lineAttributes = "attributes"
)

// batch makes OpenTelemetry logs of records.
type batch struct {
	logs    plog.Logs
	streams map[string]plog.LogRecordSlice
	event   string
}

func newBatch(event string) *batch {
	return &batch{logs: plog.NewLogs(), streams: map[string]plog.LogRecordSlice{}, event: event}
}

// add adds a record of a node. Put writes it as it travels, who is whose resource it is; the returned map is for what is searched for.
func (b *batch) add(node string, who *flow.Identity, id string, put func(plog.LogRecord), extra func(line pcommon.Map)) pcommon.Map {
	stream, known := b.streams[node]
	if !known {
		rl := b.logs.ResourceLogs().AppendEmpty()
		a := rl.Resource().Attributes()
		a.PutStr(AttrNamespace, Namespace)
		a.PutStr(AttrEvent, b.event)
		a.PutStr(AttrNode, nodeValue(node))
		stream = rl.ScopeLogs().AppendEmpty().LogRecords()
		b.streams[node] = stream
	}
	lr := stream.AppendEmpty()
	put(lr)

	line := pcommon.NewMap()
	line.EnsureCapacity(7)
	line.PutStr(lineEvent, b.event)
	if id != "" {
		line.PutStr(lineID, id)
	}
	line.PutInt(lineTime, int64(lr.Timestamp()))
	if body := lr.Body().Str(); body != "" {
		line.PutStr(lineBody, body)
	}
	resource := line.PutEmptyMap(lineResource)
	resource.PutStr(flow.AttrNodeName, node)
	if who != nil {
		who.PutTo(resource, "")
	}
	lr.Attributes().MoveTo(line.PutEmptyMap(lineAttributes))
	if extra != nil {
		extra(line)
	}
	lr.Body().SetStr(string(appendMap(nil, line)))
	lr.SetEventName("")

	a := lr.Attributes()
	a.EnsureCapacity(16)
	if id != "" {
		a.PutStr(AttrID, id)
	}
	return a
}

// nodeValue is what a stream says of the node: engines take an empty label for none.
func nodeValue(node string) string {
	if node == "" {
		return "unknown"
	}
	return node
}

func attributesOf(line pcommon.Map) pcommon.Map {
	v, _ := line.Get(lineAttributes)
	return v.Map()
}

func (b *batch) flow(r *flow.Record) {
	a := b.add(r.Node, &r.Local().Identity, journal.FlowID(r).String(), r.PutTo, func(line pcommon.Map) {
		putPeers(attributesOf(line), r)
	})
	a.PutStr(flow.AttrConnectionID, r.ConnectionID())
	a.PutStr(AttrTuple, tupleID(r))
	putEnds(a, r)
}

// putPeers writes the identities that the resource cannot hold.
func putPeers(a pcommon.Map, r *flow.Record) {
	if local := r.Local(); local != &r.Source {
		r.Source.Identity.PutTo(a, flow.PrefixSource)
	} else {
		r.Destination.Identity.PutTo(a, flow.PrefixDestination)
	}
}

// putEnds writes what flows and lookups are searched by.
func putEnds(a pcommon.Map, r *flow.Record) {
	a.PutStr(flow.AttrTransport, r.Transport.String())
	for _, end := range []struct {
		prefix string
		*flow.Endpoint
	}{{flow.PrefixSource, &r.Source}, {flow.PrefixDestination, &r.Destination}} {
		a.PutStr(end.prefix+"address", end.Addr.Addr().String())
		a.PutInt(end.prefix+"port", int64(end.Addr.Port()))
		putCaller(a, end.prefix, &end.Identity)
		if end.Name != "" {
			a.PutStr(end.prefix+flow.AttrDNSName, strings.ToLower(end.Name))
		}
	}
}

// putCaller writes what endpoints and callers are searched by.
func putCaller(a pcommon.Map, prefix string, who *flow.Identity) {
	for _, field := range []struct{ name, value string }{
		{flow.AttrPod, who.Pod}, {flow.AttrNamespace, who.Namespace}, {flow.AttrContainer, who.Container}, {flow.AttrContainerID, who.ContainerID},
		{flow.AttrService, who.Service}, {AttrWorkload, who.Workload},
	} {
		if field.value != "" {
			a.PutStr(prefix+field.name, field.value)
		}
	}
}

// tupleID is the connection id that a record has where no handshake was seen.
func tupleID(r *flow.Record) string {
	bare := flow.Record{Transport: r.Transport, Source: flow.Endpoint{Addr: r.Source.Addr}, Destination: flow.Endpoint{Addr: r.Destination.Addr}}
	return bare.ConnectionID()
}

func (b *batch) lookup(l *flow.Lookup) {
	question := l.Record()
	a := b.add(l.Node, &l.Local().Identity, journal.LookupID(l).String(), l.PutTo, func(line pcommon.Map) {
		putPeers(attributesOf(line), &question)
	})
	putEnds(a, &question)
	a.PutStr(flow.AttrQuestionName, strings.ToLower(l.Name))
}

func (b *batch) counts(n *syscalls.Counts) {
	native := syscalls.X86_64
	if len(n.Calls) > 0 {
		native = n.Calls[0].Call.ABI
	}
	a := b.add(n.Node, &n.Identity, journal.CountsID(n).String(), func(lr plog.LogRecord) { n.PutTo(lr, native) }, nil)
	putCaller(a, "", &n.Identity)
	a.PutInt(flow.AttrCgroupID, int64(n.Identity.CgroupID))
}

func (b *batch) anomaly(n *syscalls.Anomaly) {
	a := b.add(n.Node, &n.Identity, journal.AnomalyID(n).String(), n.PutTo, nil)
	putCaller(a, "", &n.Identity)
	a.PutStr(syscalls.AttrRule, n.Rule)
	a.PutStr(syscalls.AttrSeverity, n.Severity.String())
}

// status adds a status of any kind, which lossy tells to speak of a loss.
func (b *batch) status(node string, arrived time.Time, lossy bool, put func(plog.LogRecord)) {
	a := b.add(node, nil, "", put, func(line pcommon.Map) { line.PutInt(lineArrived, arrived.UnixNano()) })
	if lossy {
		a.PutStr(AttrLossy, "true")
	}
}

// line is a record that came back.
type line struct {
	event, id string
	arrived   time.Time
	resource  pcommon.Resource
	record    plog.LogRecord
}

// parse reads what add wrote. The event is not checked: it is what the query asked for.
func parse(text []byte) (line, error) {
	members := pcommon.NewMap()
	if err := readMap(text, members); err != nil {
		return line{}, err
	}
	l := line{resource: pcommon.NewResource(), record: plog.NewLogRecord()}
	for key, v := range members.All() {
		switch {
		case key == lineEvent && v.Type() == pcommon.ValueTypeStr:
			l.event = v.Str()
		case key == lineID && v.Type() == pcommon.ValueTypeStr:
			l.id = v.Str()
		case key == lineBody && v.Type() == pcommon.ValueTypeStr:
			l.record.Body().SetStr(v.Str())
		case key == lineTime && v.Type() == pcommon.ValueTypeInt:
			l.record.SetTimestamp(pcommon.Timestamp(v.Int()))
		case key == lineArrived && v.Type() == pcommon.ValueTypeInt:
			l.arrived = time.Unix(0, v.Int()).UTC()
		case key == lineResource && v.Type() == pcommon.ValueTypeMap:
			v.Map().MoveTo(l.resource.Attributes())
		case key == lineAttributes && v.Type() == pcommon.ValueTypeMap:
			v.Map().MoveTo(l.record.Attributes())
		}
	}
	if l.event == "" || l.record.Timestamp() == 0 {
		return line{}, fmt.Errorf("%s or %s is missing", lineEvent, lineTime)
	}
	l.record.SetEventName(l.event)
	return l, nil
}

// process is what a resource says of a process, which the records of calls do not.
func (l *line) process(who *flow.Identity) {
	if v, ok := l.resource.Attributes().Get(flow.AttrProcessName); ok {
		who.Process = v.Str()
	}
	if v, ok := l.resource.Attributes().Get(flow.AttrProcessPID); ok {
		who.PID = uint32(v.Int())
	}
}

func (l *line) flow() (flow.Record, error) { return flow.RecordFrom(l.resource, l.record) }

func (l *line) lookup() (flow.Lookup, error) { return flow.LookupFrom(l.resource, l.record) }

func (l *line) counts() (syscalls.Counts, error) {
	n, err := syscalls.CountsFrom(l.resource, l.record)
	l.process(&n.Identity)
	return n, err
}

func (l *line) anomaly() (syscalls.Anomaly, error) {
	n, err := syscalls.AnomalyFrom(l.resource, l.record)
	l.process(&n.Identity)
	return n, err
}
