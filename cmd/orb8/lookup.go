package main

import (
	"slices"
	"strconv"
	"strings"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

const (
	// Streams leave room for these.
	clientRoom  = 20
	dnsNameRoom = 40
	answersRoom = len("255.255.255.255")

	rcodeSuccess = "NOERROR"
)

func lookupRow(l *orb8v1.DnsLookup) row {
	return row{time: l.GetTime().AsTime(), dns: l}
}

// lookupColumns fit 80 columns.
func lookupColumns(rows []row, now time.Time) []column {
	return slices.Insert(lookupDetails(), 0, timeColumn("TIME", layoutFor(rows, now), now.Location(), row.when))
}

// traceLookupColumns are for streams.
func traceLookupColumns(zone *time.Location) []column {
	return slices.Insert(lookupDetails(), 0, timeColumn("TIME", eventLayout, zone, row.when))
}

func lookupDetails() []column {
	return []column{
		lookupDirectionColumn(),
		{title: "CLIENT", text: func(r row) string { return nameOf(r.dns.GetClient()) }, flexible: true, room: clientRoom},
		{title: "NAME", text: func(r row) string { return r.dns.GetName() }, flexible: true, room: dnsNameRoom},
		lookupTypeColumn(),
		rcodeColumn(),
		latencyColumn(),
		{title: "ANSWERS", text: answers, flexible: true, room: answersRoom},
	}
}

// wideLookupColumns show all that is known of a lookup.
func wideLookupColumns(zone *time.Location) []column {
	return []column{
		timeColumn("TIME", wideLayout, zone, row.when),
		{title: "NODE", text: func(r row) string { return r.dns.GetNode() }, room: 16},
		{title: "INTERFACE", text: func(r row) string { return r.dns.GetInterface() }},
		lookupDirectionColumn(),
		{title: "PROTO", text: func(r row) string { return r.dns.GetTransport() }},
		{title: "CLIENT", text: func(r row) string { return socketAddress(r.dns.GetClient()) }, room: addressRoom},
		{title: "SERVER", text: func(r row) string { return socketAddress(r.dns.GetServer()) }, room: addressRoom},
		lookupTypeColumn(),
		rcodeColumn(),
		latencyColumn(),
		{title: "QUERIES", text: func(r row) string { return humanCount(r.dns.GetQueries()) }, right: true},
		{title: "PROCESS", text: func(r row) string { return process(r.askedAt()) }, room: addressRoom},
		{title: "CLIENT-NAME", text: func(r row) string { return fullName(r.dns.GetClient()) }, room: nameRoom},
		{title: "SERVER-NAME", text: func(r row) string { return fullName(r.dns.GetServer()) }, room: nameRoom},
		{title: "NAME", text: func(r row) string { return r.dns.GetName() }, room: dnsNameRoom},
		{title: "ANSWERS", text: allAnswers},
	}
}

// askedAt is the endpoint that the lookup was seen at.
func (r row) askedAt() *orb8v1.Endpoint {
	if r.dns.GetDirection() == orb8v1.Direction_DIRECTION_INGRESS {
		return r.dns.GetServer()
	}
	return r.dns.GetClient()
}

func lookupDirectionColumn() column {
	return column{title: "DIR", text: func(r row) string { return directionWord(r.dns.GetDirection()) }}
}

func lookupTypeColumn() column {
	return column{title: "TYPE", text: func(r row) string { return r.dns.GetType() }, room: len("HTTPS")}
}

func rcodeColumn() column {
	return column{
		title: "RCODE", text: func(r row) string { return r.dns.GetRcode() }, room: len("NXDOMAIN"),
		style: func(r row) string {
			if r.dns.GetRcode() != rcodeSuccess {
				return styleRed
			}
			return ""
		},
	}
}

func latencyColumn() column {
	return column{title: "LATENCY", text: func(r row) string { return shortDuration(r.dns.GetLatency()) }, right: true, room: rttRoom}
}

// answers is the first of the addresses that the client got or, when it got none, of what else it got, and how many more
// there are.
func answers(r row) string {
	var addresses, others []string
	for _, a := range r.dns.GetAnswers() {
		if a.GetType() == "A" || a.GetType() == "AAAA" {
			addresses = append(addresses, a.GetData())
		} else {
			others = append(others, a.GetData())
		}
	}
	if len(addresses) == 0 {
		addresses = others
	}
	if more := len(addresses) - 1; more > 0 {
		addresses = []string{addresses[0], "+" + strconv.Itoa(more)}
	}
	return strings.Join(append(addresses, shortcomings(r.dns)...), ",")
}

// allAnswers is the whole answer section, as in a zone file.
func allAnswers(r row) string {
	var all []string
	for _, a := range r.dns.GetAnswers() {
		all = append(all, strings.Join([]string{a.GetName(), strconv.FormatUint(uint64(a.GetTtlSeconds()), 10), a.GetType(), a.GetData()}, " "))
	}
	return strings.Join(append(all, shortcomings(r.dns)...), ", ")
}

func shortcomings(l *orb8v1.DnsLookup) []string {
	var words []string
	if l.GetTruncated() {
		words = append(words, "truncated")
	}
	if l.GetIncomplete() {
		words = append(words, "…")
	}
	return words
}

// jsonLookup is a lookup as JSON.
type jsonLookup struct {
	// Kind is present in streams.
	Kind       string       `json:"kind,omitempty"`
	Time       string       `json:"time"`
	Node       string       `json:"node"`
	Interface  string       `json:"interface,omitempty"`
	Direction  string       `json:"direction"`
	Transport  string       `json:"transport"`
	Client     jsonEndpoint `json:"client"`
	Server     jsonEndpoint `json:"server"`
	Name       string       `json:"name"`
	Type       string       `json:"type"`
	RCode      string       `json:"rcode"`
	Latency    float64      `json:"latency"`
	Queries    uint64       `json:"queries"`
	Answers    []jsonAnswer `json:"answers"`
	Truncated  bool         `json:"truncated"`
	Incomplete bool         `json:"incomplete"`
}

type jsonAnswer struct {
	Name string `json:"name"`
	Type string `json:"type"`
	TTL  uint32 `json:"ttl"`
	Data string `json:"data"`
}

func newJSONLookup(r row) jsonLookup {
	l := r.dns
	j := jsonLookup{
		Time:       rfc3339(l.GetTime()),
		Node:       l.GetNode(),
		Interface:  l.GetInterface(),
		Direction:  directionName(l.GetDirection()),
		Transport:  l.GetTransport(),
		Client:     newJSONEndpoint(l.GetClient()),
		Server:     newJSONEndpoint(l.GetServer()),
		Name:       l.GetName(),
		Type:       l.GetType(),
		RCode:      l.GetRcode(),
		Latency:    l.GetLatency().AsDuration().Seconds(),
		Queries:    l.GetQueries(),
		Answers:    make([]jsonAnswer, len(l.GetAnswers())),
		Truncated:  l.GetTruncated(),
		Incomplete: l.GetIncomplete(),
	}
	if r.kind != orb8v1.EventKind_EVENT_KIND_UNSPECIFIED {
		j.Kind = kindName(r.kind)
	}
	for i, a := range l.GetAnswers() {
		j.Answers[i] = jsonAnswer{Name: a.GetName(), Type: a.GetType(), TTL: a.GetTtlSeconds(), Data: a.GetData()}
	}
	return j
}
