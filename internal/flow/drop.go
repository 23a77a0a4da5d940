package flow

import (
	"net/netip"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

// Drop is what the kernel dropped of one flow for one reason in one interval.
type Drop struct {
	// Time is the end of the interval.
	Time time.Time
	// Reason is the running kernel's name for it, as no_socket.
	Reason string
	// Packets are packets as on the wire.
	Packets uint64
	// CgroupID is that of the socket which sent the packets or was to receive them; 0 when none is known.
	CgroupID uint64
	// Source and Destination are the zero AddrPort, and Transport means nothing, where the packets had no IP header that
	// could be read, or there were more flows than the kernel had room for.
	Source, Destination netip.AddrPort
	Transport           Transport
}

// PutTo writes the drop into a log record of a resource that has the cgroup's id. EventName is EventNameDrop.
func (d *Drop) PutTo(lr plog.LogRecord) {
	lr.SetEventName(EventNameDrop)
	lr.SetTimestamp(pcommon.NewTimestampFromTime(d.Time))
	a := lr.Attributes()
	a.PutStr(AttrDropReason, d.Reason)
	a.PutInt(AttrDropPackets, int64(d.Packets))
	if d.Source.IsValid() {
		putAddresses(a, d.Source, d.Destination, d.Transport)
	}
}
