package flow

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

// RCodeTimeout stands in Lookup.RCode for a response that did not come.
const RCodeTimeout = "timeout"

// Lookup is a DNS question and what came of it, seen at one endpoint: the client's, or the server's.
type Lookup struct {
	// Time is when the question was sent (Egress) or arrived (Ingress); the first time, if it was asked again.
	Time time.Time
	Node string
	// Direction is the question's: Egress where the local endpoint asked, Ingress where it was asked.
	Direction      Direction
	Transport      Transport
	Client, Server Endpoint
	// Interface is where the lookup was seen; empty when it was seen at the socket.
	Interface string
	// Name is what was asked for, without the last dot, and Type is A, AAAA, PTR, ... or TYPE and a number.
	Name, Type string
	// RCode is NOERROR, NXDOMAIN, ... or RCODE and a number, or RCodeTimeout.
	RCode string
	// Latency is the time from the first question to the response, or until it was given up.
	Latency time.Duration
	// Queries is how often the question was asked before it was answered or given up: 1 unless packets got lost.
	Queries uint64
	// Answers is the answer section of the response.
	Answers []Answer
	// Truncated is the response's flag that asks the client to come again by TCP.
	Truncated bool
	// Incomplete says that the response was longer than what is captured: answers at its end are missing.
	Incomplete bool
}

// Answer is a resource record.
type Answer struct {
	// Name has no last dot. Type is as in Lookup.
	Name string
	Type string
	TTL  time.Duration
	// Data is as in a zone file, names without their last dots.
	Data string
}

// String returns "NAME TTL TYPE DATA", the TTL in seconds.
func (a *Answer) String() string {
	return fmt.Sprintf("%s %d %s %s", a.Name, a.TTL/time.Second, a.Type, a.Data)
}

// ParseAnswer is the inverse of String. It takes one line.
func ParseAnswer(s string) (Answer, error) {
	if strings.ContainsRune(s, '\n') {
		return Answer{}, fmt.Errorf("answer %q: has a line break; escape it as in a zone file", s)
	}
	fields := strings.SplitN(s, " ", 4)
	if len(fields) != 4 {
		return Answer{}, fmt.Errorf("answer %q: use NAME TTL TYPE DATA", s)
	}
	ttl, err := strconv.ParseUint(fields[1], 10, 32)
	if err != nil {
		return Answer{}, fmt.Errorf("answer %q: TTL %q is not a number of seconds from 0 to 4294967295", s, fields[1])
	}
	return Answer{Name: fields[0], TTL: time.Duration(ttl) * time.Second, Type: fields[2], Data: fields[3]}, nil
}

// Local returns the endpoint that is on the lookup's node.
func (l *Lookup) Local() *Endpoint {
	if l.Direction == Ingress {
		return &l.Server
	}
	return &l.Client
}

// Record returns the question as a flow without counts, for what deals with flows.
func (l *Lookup) Record() Record {
	r := Record{
		Start: l.Time, End: l.Time.Add(l.Latency), Node: l.Node, Direction: l.Direction, Transport: l.Transport,
		Source: l.Client, Destination: l.Server,
	}
	if l.Interface != "" {
		r.Interfaces = []string{l.Interface}
	}
	return r
}

// PutTo writes the lookup into a log record of a resource that holds the identity of l.Local. EventName is
// EventNameLookup, the timestamp is l.Time. The client is the source, the server the destination.
func (l *Lookup) PutTo(lr plog.LogRecord) {
	lr.SetEventName(EventNameLookup)
	lr.SetTimestamp(pcommon.NewTimestampFromTime(l.Time))
	a := lr.Attributes()
	a.EnsureCapacity(18)
	question := l.Record()
	question.putEnds(a)
	a.PutStr(AttrQuestionName, l.Name)
	a.PutStr(AttrQuestionType, l.Type)
	a.PutStr(AttrRCode, l.RCode)
	a.PutDouble(AttrLatency, l.Latency.Seconds())
	a.PutInt(AttrQueries, int64(l.Queries))
	if len(l.Answers) > 0 {
		l.putAnswers(a)
	}
	if l.Truncated {
		a.PutBool(AttrTruncated, true)
	}
	if l.Incomplete {
		a.PutBool(AttrIncomplete, true)
	}
}

func (l *Lookup) putAnswers(a pcommon.Map) {
	records := a.PutEmptySlice(AttrRecords)
	records.EnsureCapacity(len(l.Answers))
	for i := range l.Answers {
		records.AppendEmpty().SetStr(l.Answers[i].String())
	}
	var addresses []string
	for _, answer := range l.Answers {
		if _, err := netip.ParseAddr(answer.Data); err == nil && (answer.Type == "A" || answer.Type == "AAAA") {
			addresses = append(addresses, answer.Data)
		}
	}
	if len(addresses) > 0 {
		slice := a.PutEmptySlice(AttrAnswers)
		for _, address := range addresses {
			slice.AppendEmpty().SetStr(address)
		}
	}
}

// LookupFrom reads what Lookup.PutTo wrote, with the identities that later components added. It fails, naming the
// attribute and its value, when an end, the question's name or type, the response code or an answer is missing or
// malformed.
func LookupFrom(res pcommon.Resource, lr plog.LogRecord) (Lookup, error) {
	a := lr.Attributes()
	var question Record
	if err := question.readEnds(res, a); err != nil {
		return Lookup{}, err
	}
	l := Lookup{
		Time: lr.Timestamp().AsTime(), Node: question.Node, Direction: question.Direction, Transport: question.Transport,
		Client: question.Source, Server: question.Destination, Interface: str(a, AttrInterface),
		Name: str(a, AttrQuestionName), Type: str(a, AttrQuestionType), RCode: str(a, AttrRCode),
		Latency: seconds(a, AttrLatency), Queries: num(a, AttrQueries),
		Truncated: flag(a, AttrTruncated), Incomplete: flag(a, AttrIncomplete),
	}
	for _, required := range []struct{ key, value string }{
		{AttrQuestionName, l.Name}, {AttrQuestionType, l.Type}, {AttrRCode, l.RCode},
	} {
		if required.value == "" {
			return l, fmt.Errorf("attribute %s: missing", required.key)
		}
	}
	records, ok := a.Get(AttrRecords)
	if !ok || records.Type() != pcommon.ValueTypeSlice {
		return l, nil
	}
	for _, v := range records.Slice().All() {
		answer, err := ParseAnswer(Text(v.Str()))
		if err != nil {
			return l, fmt.Errorf("attribute %s: %w", AttrRecords, err)
		}
		l.Answers = append(l.Answers, answer)
	}
	return l, nil
}

func flag(a pcommon.Map, key string) bool {
	v, ok := a.Get(key)
	return ok && v.Bool()
}
