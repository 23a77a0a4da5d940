package main

import (
	"slices"
	"strings"
	"time"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

const (
	clockLayout = "15:04:05"
	dateLayout  = "01-02 15:04:05"
	eventLayout = "15:04:05.000"
	wideLayout  = "2006-01-02T15:04:05.000Z07:00"

	// Streams leave room for these; what is longer pushes its line to the right, or is shortened.
	pairRoom    = 2*len("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535") + len(arrow)
	addressRoom = len("255.255.255.255:65535")
	nameRoom    = 40
	commRoom    = 10
	rttRoom     = len("123.456ms")
)

// flowColumns fit 80 columns. LOST is there only when a row is not exact, TROUBLE only when a connection has some, and the
// date only when a row is not of today.
func flowColumns(rows []row, now time.Time) []column {
	columns := []column{
		timeColumn("TIME", layoutFor(rows, now), now.Location(), row.when),
		directionColumn(),
		protocolColumn(),
		{title: "SOURCE", text: sourceName, flexible: true},
		{title: "DESTINATION", text: destinationName, flexible: true},
		packetsColumn(),
		bytesColumn(),
	}
	if slices.ContainsFunc(rows, func(r row) bool { return r.flow.GetLost() > 0 }) {
		columns = append(columns, lostColumn())
	}
	if slices.ContainsFunc(rows, func(r row) bool { return trouble(r) != "" }) {
		columns = append(columns, troubleColumn())
	}
	return columns
}

// layoutFor shows the date where a row is not of today.
func layoutFor(rows []row, now time.Time) string {
	isPast := func(r row) bool {
		return r.time.In(now.Location()).Format(time.DateOnly) != now.Format(time.DateOnly)
	}
	if slices.ContainsFunc(rows, isPast) {
		return dateLayout
	}
	return clockLayout
}

// followColumns and eventColumns are for streams: both ends share one column, so that a long name has the space that a
// short one leaves.
func followColumns(zone *time.Location) []column {
	return []column{
		timeColumn("TIME", clockLayout, zone, row.when),
		directionColumn(),
		protocolColumn(),
		pairColumn(),
		packetsColumn(),
		bytesColumn(),
		lostColumn(),
	}
}

func eventColumns(zone *time.Location) []column {
	return []column{
		timeColumn("TIME", eventLayout, zone, row.when),
		kindColumn(),
		protocolColumn(),
		pairColumn(),
		{title: "PROCESS", text: func(r row) string { return r.local().GetProcess() }, flexible: true, room: commRoom},
		bytesColumn(),
	}
}

// wideColumns show all that is known of a row, however long the lines. What varies most in length comes last.
func wideColumns(zone *time.Location) []column {
	return []column{
		timeColumn("START", wideLayout, zone, func(r row) time.Time { return r.flow.GetStart().AsTime() }),
		timeColumn("TIME", wideLayout, zone, row.when),
		{title: "NODE", text: func(r row) string { return r.flow.GetNode() }, room: 16},
		{title: "INTERFACES", text: func(r row) string { return strings.Join(r.flow.GetInterfaces(), ",") }},
		directionColumn(),
		protocolColumn(),
		{title: "SOURCE", text: func(r row) string { return socketAddress(r.flow.GetSource()) }, room: addressRoom},
		{title: "DESTINATION", text: func(r row) string { return socketAddress(r.flow.GetDestination()) }, room: addressRoom},
		packetsColumn(),
		bytesColumn(),
		{title: "CONNECTIONS", text: func(r row) string { return humanCount(r.flow.GetConnections()) }, right: true},
		lostColumn(),
		{title: "ENDED", text: ended},
		{title: "CONNECTION-ID", text: func(r row) string { return r.flow.GetConnectionId() }, room: 16},
		{title: "DETAIL", text: detail, room: len("fin,syn,psh,ack")},
		{title: "OUTCOME", text: func(r row) string { return r.flow.GetOutcome() }},
		{title: "INITIATOR", text: func(r row) string { return initiatorName(r.flow.GetInitiator()) }, room: len("destination")},
		{title: "RETRANSMITS", text: func(r row) string { return humanCount(r.flow.GetRetransmits()) }, right: true},
		{title: "ZERO-WINDOWS", text: func(r row) string { return humanCount(r.flow.GetZeroWindows()) }, right: true},
		{title: "HANDSHAKE", text: func(r row) string { return shortDuration(r.flow.GetHandshake()) }, right: true},
		{title: "SRTT", text: func(r row) string { return shortDuration(r.flow.GetSrtt()) }, right: true, room: rttRoom},
		{title: "MIN-RTT", text: func(r row) string { return shortDuration(r.flow.GetMinRtt()) }, right: true, room: rttRoom},
		{title: "OTHER-NODE", text: func(r row) string { return r.flow.GetOtherEnd().GetNode() }},
		{title: "OTHER-PACKETS", text: otherEnd((*orb8v1.OtherEnd).GetPackets, humanCount), right: true},
		{title: "OTHER-BYTES", text: otherEnd((*orb8v1.OtherEnd).GetBytes, humanBytes), right: true},
		{title: "ORIGIN", text: func(r row) string { return addressAndName(r.flow.GetOrigin()) }},
		{title: "BACKEND", text: func(r row) string { return addressAndName(r.flow.GetBackend()) }},
		{title: "PROCESS", text: func(r row) string { return process(r.local()) }, room: addressRoom},
		{title: "SOURCE-NAME", text: func(r row) string { return fullName(r.flow.GetSource()) }, room: nameRoom},
		{title: "DESTINATION-NAME", text: func(r row) string { return fullName(r.flow.GetDestination()) }, room: nameRoom},
		{title: "CONTAINER-ID", text: func(r row) string { return r.local().GetContainerId() }, room: 64},
		{title: "CGROUP", text: func(r row) string { return r.local().GetCgroup() }},
	}
}

// timeColumn shows one of a row's instants.
func timeColumn(title, layout string, zone *time.Location, when func(row) time.Time) column {
	text := func(r row) string { return when(r).In(zone).Format(layout) }
	return column{title: title, text: text, room: len(text(row{}))}
}

func kindColumn() column {
	return column{
		title: "KIND",
		// A newer collector may know kinds with longer names.
		text: func(r row) string { return shorten(kindName(r.kind), len("KIND")) },
		style: func(r row) string {
			switch r.kind {
			case orb8v1.EventKind_EVENT_KIND_NEW, orb8v1.EventKind_EVENT_KIND_SYN:
				return styleGreen
			case orb8v1.EventKind_EVENT_KIND_RST:
				return styleRed
			}
			return ""
		},
	}
}

func directionColumn() column {
	return column{title: "DIR", text: func(r row) string { return directionWord(r.flow.GetDirection()) }}
}

func directionWord(d orb8v1.Direction) string {
	switch d {
	case orb8v1.Direction_DIRECTION_INGRESS:
		return "in"
	case orb8v1.Direction_DIRECTION_EGRESS:
		return "out"
	case orb8v1.Direction_DIRECTION_TRANSIT:
		return "via"
	}
	return "?"
}

func protocolColumn() column {
	return column{title: "PROTO", text: func(r row) string {
		return shorten(strings.Replace(r.flow.GetTransport(), "ipv6-icmp", "icmp6", 1), len("PROTO"))
	}}
}

func pairColumn() column {
	return column{
		title: "SOURCE" + arrow + "DESTINATION",
		text: func(r row) string {
			return shortName(r.flow.GetSource()) + arrow + shortName(r.flow.GetDestination())
		},
		flexible: true,
		room:     pairRoom,
	}
}

func packetsColumn() column {
	return column{title: "PACKETS", text: func(r row) string { return humanCount(r.flow.GetPackets()) }, right: true}
}

func bytesColumn() column {
	return column{title: "BYTES", text: func(r row) string { return humanBytes(r.flow.GetBytes()) },
		right: true, room: len("1023 KiB")}
}

func lostColumn() column {
	return column{
		title: "LOST",
		text:  func(r row) string { return humanCount(r.flow.GetLost()) },
		style: func(r row) string {
			if r.flow.GetLost() > 0 {
				return styleRed
			}
			return ""
		},
		right: true,
		room:  len("9999999"),
	}
}

func troubleColumn() column {
	return column{
		title: "TROUBLE",
		text:  trouble,
		style: func(r row) string {
			if brokenOutcome(r) != "" {
				return styleRed
			}
			return styleYellow
		},
	}
}

// otherEnd makes the text of what the other end counted, where it was seen.
func otherEnd(count func(*orb8v1.OtherEnd) uint64, human func(uint64) string) func(row) string {
	return func(r row) string {
		if r.flow.GetOtherEnd() == nil {
			return ""
		}
		return human(count(r.flow.GetOtherEnd()))
	}
}

func ended(r row) string {
	if r.flow.GetEnded() {
		return "yes"
	}
	return "no"
}
