package syscalls

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/flow"
)

// PutTo writes the counts into a log record of a resource that holds their identity. EventName is EventNameCounts, the
// timestamp is c.End. native is the node's own ABI.
func (c *Counts) PutTo(lr plog.LogRecord, native ABI) {
	lr.SetEventName(EventNameCounts)
	lr.SetTimestamp(pcommon.NewTimestampFromTime(c.End))
	a := lr.Attributes()
	a.EnsureCapacity(6)
	a.PutInt(AttrStart, c.Start.UnixNano())
	a.PutStr(AttrABI, native.String())
	calls := a.PutEmptyMap(AttrCalls)
	calls.EnsureCapacity(len(c.Calls))
	for i := range c.Calls {
		calls.PutInt(c.Calls[i].Call.qualified(native), int64(c.Calls[i].Calls))
	}
	c.putErrors(a, native)
	c.putLatencies(a, native)
	if c.LostCalls != 0 {
		a.PutInt(AttrLostCalls, int64(c.LostCalls))
	}
}

func (c *Counts) putErrors(a pcommon.Map, native ABI) {
	if !slices.ContainsFunc(c.Calls, func(n Count) bool { return len(n.Errors) > 0 }) {
		return
	}
	all := a.PutEmptyMap(AttrErrors)
	for i := range c.Calls {
		if len(c.Calls[i].Errors) == 0 {
			continue
		}
		errors := all.PutEmptyMap(c.Calls[i].Call.qualified(native))
		for _, name := range slices.Sorted(maps.Keys(c.Calls[i].Errors)) {
			errors.PutInt(name, int64(c.Calls[i].Errors[name]))
		}
	}
}

func (c *Counts) putLatencies(a pcommon.Map, native ABI) {
	if !slices.ContainsFunc(c.Calls, func(n Count) bool { return n.Latency != nil }) {
		return
	}
	all := a.PutEmptyMap(AttrLatencies)
	for i := range c.Calls {
		latency := c.Calls[i].Latency
		if latency == nil {
			continue
		}
		list := all.PutEmptySlice(c.Calls[i].Call.qualified(native))
		list.EnsureCapacity(1 + LatencyBuckets)
		list.AppendEmpty().SetInt(int64(latency.Sum))
		for _, n := range latency.Buckets {
			list.AppendEmpty().SetInt(int64(n))
		}
	}
}

// CountsFrom reads what Counts.PutTo wrote, with the identity that later components added. It fails, naming the attribute and
// its value, when the ABI or a call is missing or malformed.
func CountsFrom(res pcommon.Resource, lr plog.LogRecord) (Counts, error) {
	a := lr.Attributes()
	c := Counts{
		Start:     time.Unix(0, num(a, AttrStart)).UTC(),
		End:       lr.Timestamp().AsTime(),
		Node:      str(res.Attributes(), flow.AttrNodeName),
		Identity:  flow.ReadIdentity(res.Attributes(), ""),
		LostCalls: uint64(num(a, AttrLostCalls)),
	}
	native, err := ParseABI(str(a, AttrABI))
	if err != nil {
		return c, fmt.Errorf("attribute %s: %w", AttrABI, err)
	}
	calls, errors, latencies := submap(a, AttrCalls), submap(a, AttrErrors), submap(a, AttrLatencies)
	c.Calls = make([]Count, 0, calls.Len())
	for name, v := range calls.All() {
		call, err := parseQualified(native, name)
		if err != nil {
			return c, fmt.Errorf("attribute %s: %w", AttrCalls, err)
		}
		n := Count{Call: call, Calls: uint64(v.Int())}
		if list, ok := latencies.Get(name); ok {
			if n.Latency, err = latencyFrom(list); err != nil {
				return c, fmt.Errorf("attribute %s: %s: %w", AttrLatencies, name, err)
			}
		}
		if failed, ok := errors.Get(name); ok && failed.Type() == pcommon.ValueTypeMap && failed.Map().Len() > 0 {
			n.Errors = make(map[string]uint64, failed.Map().Len())
			for errno, v := range failed.Map().All() {
				n.Errors[flow.Text(errno)] = uint64(v.Int())
			}
		}
		c.Calls = append(c.Calls, n)
	}
	return c, nil
}

func latencyFrom(v pcommon.Value) (*Latency, error) {
	if v.Type() != pcommon.ValueTypeSlice || v.Slice().Len() != 1+LatencyBuckets {
		return nil, fmt.Errorf("%s is not a list of a sum and %d buckets", v.AsString(), LatencyBuckets)
	}
	l := Latency{Sum: time.Duration(v.Slice().At(0).Int())}
	for i := range l.Buckets {
		l.Buckets[i] = uint64(v.Slice().At(1 + i).Int())
	}
	return &l, nil
}

// PutTo writes the event into a log record of a resource that holds the identity of its cgroup. EventName is EventNameEvent.
func (e *Event) PutTo(lr plog.LogRecord) {
	lr.SetEventName(EventNameEvent)
	lr.SetTimestamp(pcommon.NewTimestampFromTime(e.Time))
	a := lr.Attributes()
	a.EnsureCapacity(8)
	e.Call.putTo(a)
	e.putDetails(a)
}

func (c Call) putTo(a pcommon.Map) {
	a.PutStr(AttrName, c.Name())
	a.PutInt(AttrNumber, int64(c.Number))
	a.PutStr(AttrABI, c.ABI.String())
}

func (e *Event) putDetails(a pcommon.Map) {
	a.PutStr(flow.AttrProcessName, e.Identity.Process)
	a.PutInt(flow.AttrProcessPID, int64(e.Identity.PID))
	a.PutInt(AttrTID, int64(e.TID))
	a.PutInt(AttrSampling, int64(e.Sampling))
	if len(e.Arguments) > 0 {
		arguments := a.PutEmptyMap(AttrArguments)
		arguments.EnsureCapacity(len(e.Arguments))
		for _, argument := range e.Arguments {
			arguments.PutStr(argument.Name, argument.Value)
		}
	}
}

// EventFrom reads what Event.PutTo wrote, with the identity that later components added. It fails, naming the attribute and its
// value, when the ABI is missing or malformed.
func EventFrom(res pcommon.Resource, lr plog.LogRecord) (Event, error) {
	a := lr.Attributes()
	call, err := callFrom(a)
	e := Event{Time: lr.Timestamp().AsTime(), Node: str(res.Attributes(), flow.AttrNodeName), Call: call}
	e.readDetails(a)
	process, pid := e.Identity.Process, e.Identity.PID
	e.Identity = flow.ReadIdentity(res.Attributes(), "")
	e.Identity.Process, e.Identity.PID = process, pid
	return e, err
}

func callFrom(a pcommon.Map) (Call, error) {
	abi, err := ParseABI(str(a, AttrABI))
	if err != nil {
		return Call{}, fmt.Errorf("attribute %s: %w", AttrABI, err)
	}
	number, ok := a.Get(AttrNumber)
	if !ok {
		return Call{}, fmt.Errorf("attribute %s: missing", AttrNumber)
	}
	return Call{ABI: abi, Number: int32(number.Int())}, nil
}

func (e *Event) readDetails(a pcommon.Map) {
	e.Identity.Process = str(a, flow.AttrProcessName)
	e.Identity.PID = uint32(num(a, flow.AttrProcessPID))
	e.TID = uint32(num(a, AttrTID))
	e.Sampling = uint32(num(a, AttrSampling))
	for name, v := range submap(a, AttrArguments).All() {
		e.Arguments = append(e.Arguments, Argument{Name: flow.Text(name), Value: flow.Text(v.Str())})
	}
}

var severityNumbers = map[Severity]plog.SeverityNumber{
	SeverityInfo: plog.SeverityNumberInfo, SeverityWarning: plog.SeverityNumberWarn, SeverityCritical: plog.SeverityNumberError,
}

// PutTo writes the anomaly into a log record of a resource that holds its identity. EventName is EventNameAnomaly, the body is
// the message, the severity is the OpenTelemetry one: INFO, WARN or ERROR.
func (n *Anomaly) PutTo(lr plog.LogRecord) {
	lr.SetEventName(EventNameAnomaly)
	lr.SetTimestamp(pcommon.NewTimestampFromTime(n.Time))
	lr.SetSeverityNumber(severityNumbers[n.Severity])
	lr.SetSeverityText(n.Severity.String())
	lr.Body().SetStr(n.Message)
	a := lr.Attributes()
	a.EnsureCapacity(16)
	a.PutStr(AttrRule, n.Rule)
	a.PutStr(AttrSeverity, n.Severity.String())
	a.PutStr(AttrWorkload, n.Workload)
	a.PutStr(AttrMessage, n.Message)
	n.Call.putTo(a)
	if n.Calls != 0 {
		a.PutInt(AttrObserved, int64(n.Calls))
	}
	if n.Rate != 0 || n.Baseline != 0 {
		a.PutDouble(AttrRate, n.Rate)
		a.PutDouble(AttrBaseline, n.Baseline)
	}
	if n.Evidence != nil {
		a.PutInt(AttrSeen, n.Evidence.Time.UnixNano())
		n.Evidence.putDetails(a)
	}
}

// AnomalyFrom reads what Anomaly.PutTo wrote. It fails, naming the attribute and its value, when the severity or the call is
// missing or malformed.
func AnomalyFrom(res pcommon.Resource, lr plog.LogRecord) (Anomaly, error) {
	a := lr.Attributes()
	n := Anomaly{
		Time:     lr.Timestamp().AsTime(),
		Node:     str(res.Attributes(), flow.AttrNodeName),
		Identity: flow.ReadIdentity(res.Attributes(), ""),
		Workload: str(a, AttrWorkload),
		Rule:     str(a, AttrRule),
		Message:  str(a, AttrMessage),
		Calls:    uint64(num(a, AttrObserved)),
		Rate:     double(a, AttrRate),
		Baseline: double(a, AttrBaseline),
	}
	var err error
	if n.Severity, err = ParseSeverity(str(a, AttrSeverity)); err != nil {
		return n, fmt.Errorf("attribute %s: %w", AttrSeverity, err)
	}
	if n.Call, err = callFrom(a); err != nil {
		return n, err
	}
	if seen := num(a, AttrSeen); seen != 0 {
		n.Evidence = &Event{Time: time.Unix(0, seen).UTC(), Node: n.Node, Call: n.Call}
		n.Evidence.readDetails(a)
		n.Identity.Process, n.Identity.PID = n.Evidence.Identity.Process, n.Evidence.Identity.PID
	}
	return n, nil
}

// PutTo writes the status into a log record of the node's resource. EventName is EventNameStatus.
func (s *Status) PutTo(lr plog.LogRecord) {
	lr.SetEventName(EventNameStatus)
	lr.SetTimestamp(pcommon.NewTimestampFromTime(s.Time))
	a := lr.Attributes()
	a.EnsureCapacity(16)
	a.PutStr(flow.AttrAgentVersion, s.Version)
	a.PutStr(flow.AttrKernelVersion, s.Kernel)
	a.PutInt(flow.AttrAgentStarted, s.Started.UnixNano())
	a.PutInt(AttrInterval, int64(s.Interval))
	a.PutInt(AttrCountedCalls, int64(s.Calls))
	a.PutInt(AttrTotalLostCalls, int64(s.LostCalls))
	a.PutInt(AttrTotalLostEvents, int64(s.LostEvents))
	a.PutInt(AttrCgroups, int64(s.Cgroups))
	a.PutInt(AttrRingBufferBytes, int64(s.RingBufferBytes))
	a.PutDouble(AttrRingBufferUtilization, s.RingBufferUtilization)
	a.PutInt(AttrThinning, int64(s.Thinning))
	a.PutBool(AttrLatency, s.Latency)
	a.PutDouble(AttrCallRate, s.CallsPerSecond)
	flow.PutProbes(a, s.Probes)
	if len(s.Unavailable) > 0 {
		unavailable := a.PutEmptyMap(AttrUnavailable)
		for feature, why := range s.Unavailable {
			unavailable.PutStr(feature, why)
		}
	}
}

// StatusFrom reads what Status.PutTo wrote.
func StatusFrom(res pcommon.Resource, lr plog.LogRecord) Status {
	a := lr.Attributes()
	s := Status{
		Node:                  str(res.Attributes(), flow.AttrNodeName),
		Version:               str(a, flow.AttrAgentVersion),
		Kernel:                str(a, flow.AttrKernelVersion),
		Time:                  lr.Timestamp().AsTime(),
		Started:               time.Unix(0, num(a, flow.AttrAgentStarted)).UTC(),
		Interval:              time.Duration(num(a, AttrInterval)),
		Calls:                 uint64(num(a, AttrCountedCalls)),
		LostCalls:             uint64(num(a, AttrTotalLostCalls)),
		LostEvents:            uint64(num(a, AttrTotalLostEvents)),
		Cgroups:               uint64(num(a, AttrCgroups)),
		RingBufferBytes:       uint64(num(a, AttrRingBufferBytes)),
		RingBufferUtilization: double(a, AttrRingBufferUtilization),
		Thinning:              uint32(num(a, AttrThinning)),
		CallsPerSecond:        double(a, AttrCallRate),
		Probes:                flow.Probes(a),
	}
	if v, ok := a.Get(AttrLatency); ok {
		s.Latency = v.Bool()
	}
	if unavailable := submap(a, AttrUnavailable); unavailable.Len() > 0 {
		s.Unavailable = make(map[string]string, unavailable.Len())
		for feature, why := range unavailable.All() {
			s.Unavailable[flow.Text(feature)] = flow.Text(why.Str())
		}
	}
	return s
}

func str(a pcommon.Map, key string) string {
	if v, ok := a.Get(key); ok {
		return flow.Text(v.Str())
	}
	return ""
}

func num(a pcommon.Map, key string) int64 {
	if v, ok := a.Get(key); ok {
		return v.Int()
	}
	return 0
}

func double(a pcommon.Map, key string) float64 {
	if v, ok := a.Get(key); ok {
		return v.Double()
	}
	return 0
}

// submap returns an empty map where there is none.
func submap(a pcommon.Map, key string) pcommon.Map {
	if v, ok := a.Get(key); ok && v.Type() == pcommon.ValueTypeMap {
		return v.Map()
	}
	return pcommon.NewMap()
}
