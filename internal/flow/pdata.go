package flow

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

// PutTo writes the record into a log record of a resource that holds the identity of r.Local. EventName is
// EventNameFlow, the timestamp is r.End.
func (r *Record) PutTo(lr plog.LogRecord) {
	lr.SetEventName(EventNameFlow)
	r.putFlow(lr)
	a := lr.Attributes()
	a.PutInt(AttrFlowStart, r.Start.UnixNano())
	if r.Ended {
		a.PutBool(AttrEnded, true)
	}
	if r.Outcome != OutcomeUnknown {
		a.PutStr(AttrOutcome, r.Outcome.String())
	}
	r.putHealth(a)
	if r.LostPackets != 0 {
		a.PutInt(AttrLostPackets, int64(r.LostPackets))
	}
}

// PutTo writes the event into a log record. EventName is EventNameEvent, the timestamp is that of the packet.
func (e *Event) PutTo(lr plog.LogRecord) {
	lr.SetEventName(EventNameEvent)
	e.putFlow(lr)
	lr.Attributes().PutStr(AttrEventKind, e.Kind.String())
}

// putHealth writes durations in seconds, as the semantic conventions do, and leaves out what is not known.
func (r *Record) putHealth(a pcommon.Map) {
	putSeconds(a, AttrSRTT, r.SRTT)
	putSeconds(a, AttrMinRTT, r.MinRTT)
	putSeconds(a, AttrHandshake, r.Handshake)
	if r.Retransmits != 0 {
		a.PutInt(AttrRetransmits, int64(r.Retransmits))
	}
	if r.ZeroWindows != 0 {
		a.PutInt(AttrZeroWindows, int64(r.ZeroWindows))
	}
}

func putSeconds(a pcommon.Map, key string, d time.Duration) {
	if d != 0 {
		a.PutDouble(key, d.Seconds())
	}
}

func (r *Record) putInitiator(a pcommon.Map) {
	client, server := r.Source.Addr, r.Destination.Addr
	switch r.Initiator {
	case InitiatorUnknown:
		return
	case InitiatorDestination:
		client, server = server, client
	}
	a.PutStr(AttrClientAddress, client.Addr().String())
	a.PutInt(AttrClientPort, int64(client.Port()))
	a.PutStr(AttrServerAddress, server.Addr().String())
	a.PutInt(AttrServerPort, int64(server.Port()))
}

func (r *Record) putFlow(lr plog.LogRecord) {
	lr.SetTimestamp(pcommon.NewTimestampFromTime(r.End))
	a := lr.Attributes()
	capacity := 16 // room for nearly all that there may be, and not much more: most of a record's memory is this
	if r.Transport == TCP {
		capacity = 24
	}
	a.EnsureCapacity(capacity)
	r.putEnds(a)
	a.PutInt(AttrBytes, int64(r.Bytes))
	a.PutInt(AttrPackets, int64(r.Packets))
	a.PutInt(AttrConnections, int64(r.Connections))
	a.PutStr(AttrConnectionID, r.ConnectionID())
	switch r.Transport {
	case TCP:
		a.PutInt(AttrTCPFlags, int64(r.TCPFlags))
		if r.HasISNs {
			a.PutInt(AttrClientISN, int64(r.ClientISN))
			a.PutInt(AttrServerISN, int64(r.ServerISN))
		}
		r.putInitiator(a)
	case ICMP, ICMPv6:
		a.PutInt(AttrICMPType, int64(r.ICMPType))
		a.PutInt(AttrICMPCode, int64(r.ICMPCode))
	}
}

// putEnds writes who talks to whom, and where that was seen.
func (r *Record) putEnds(a pcommon.Map) {
	putAddresses(a, r.Source.Addr, r.Destination.Addr, r.Transport)
	a.PutStr(AttrDirection, r.Direction.String())
	r.putInterfaces(a)
	local := r.Local().Identity
	if local.Process != "" {
		a.PutStr(AttrProcessName, local.Process)
	}
	if local.PID != 0 {
		a.PutInt(AttrProcessPID, int64(local.PID))
	}
	if r.Source.Name != "" {
		a.PutStr(PrefixSource+AttrDNSName, r.Source.Name)
	}
	if r.Destination.Name != "" {
		a.PutStr(PrefixDestination+AttrDNSName, r.Destination.Name)
	}
}

func putAddresses(a pcommon.Map, source, destination netip.AddrPort, transport Transport) {
	a.PutStr(AttrSourceAddress, source.Addr().String())
	a.PutInt(AttrSourcePort, int64(source.Port()))
	a.PutStr(AttrDestinationAddress, destination.Addr().String())
	a.PutInt(AttrDestinationPort, int64(destination.Port()))
	a.PutStr(AttrTransport, transport.String())
	if source.Addr().Is4() {
		a.PutStr(AttrNetworkType, "ipv4")
	} else {
		a.PutStr(AttrNetworkType, "ipv6")
	}
}

// RecordFrom reads what Record.PutTo wrote, with the identities that later components added. It fails, naming the
// attribute and its value, when an address, the transport or the direction is missing or malformed.
func RecordFrom(res pcommon.Resource, lr plog.LogRecord) (Record, error) {
	var r Record
	a := lr.Attributes()
	r.End = lr.Timestamp().AsTime()
	r.Start = r.End
	if v, ok := a.Get(AttrFlowStart); ok {
		r.Start = time.Unix(0, v.Int()).UTC()
	}
	if err := r.readEnds(res, a); err != nil {
		return r, err
	}
	r.Bytes = num(a, AttrBytes)
	r.Packets = num(a, AttrPackets)
	r.Connections = num(a, AttrConnections)
	r.LostPackets = num(a, AttrLostPackets)
	r.TCPFlags = uint8(num(a, AttrTCPFlags))
	r.ICMPType = uint8(num(a, AttrICMPType))
	r.ICMPCode = uint8(num(a, AttrICMPCode))
	if v, ok := a.Get(AttrEnded); ok {
		r.Ended = v.Bool()
	}
	var err error
	if r.Outcome, err = ParseOutcome(str(a, AttrOutcome)); err != nil {
		return r, fmt.Errorf("attribute %s: %w", AttrOutcome, err)
	}
	r.readHealth(a)
	return r, nil
}

// putInterfaces writes the list, and the only one of it by the name that the semantic conventions have for one.
func (r *Record) putInterfaces(a pcommon.Map) {
	if len(r.Interfaces) == 1 {
		a.PutStr(AttrInterface, r.Interfaces[0])
	}
	if len(r.Interfaces) > 0 {
		list := a.PutEmptySlice(AttrInterfaces)
		list.EnsureCapacity(len(r.Interfaces))
		for _, name := range r.Interfaces {
			list.AppendEmpty().SetStr(name)
		}
	}
}

func (r *Record) readInterfaces(a pcommon.Map) {
	if list, ok := a.Get(AttrInterfaces); ok && list.Type() == pcommon.ValueTypeSlice {
		for _, name := range list.Slice().All() {
			r.Interfaces = append(r.Interfaces, Text(name.Str()))
		}
	}
}

// readEnds reads what putEnds wrote, with the identities that later components added.
func (r *Record) readEnds(res pcommon.Resource, a pcommon.Map) (err error) {
	if r.Source.Addr, err = addrPort(a, AttrSourceAddress, AttrSourcePort); err != nil {
		return err
	}
	if r.Destination.Addr, err = addrPort(a, AttrDestinationAddress, AttrDestinationPort); err != nil {
		return err
	}
	if r.Transport, err = ParseTransport(str(a, AttrTransport)); err != nil {
		return fmt.Errorf("attribute %s: %w", AttrTransport, err)
	}
	if r.Direction, err = ParseDirection(str(a, AttrDirection)); err != nil {
		return fmt.Errorf("attribute %s: %w", AttrDirection, err)
	}
	r.Node = str(res.Attributes(), AttrNodeName)
	r.readInterfaces(a)
	r.Source.Name = str(a, PrefixSource+AttrDNSName)
	r.Destination.Name = str(a, PrefixDestination+AttrDNSName)
	readIdentity(&r.Source.Identity, a, PrefixSource)
	readIdentity(&r.Destination.Identity, a, PrefixDestination)
	local := r.Local()
	readIdentity(&local.Identity, res.Attributes(), "")
	local.Identity.KubernetesNode = ""
	local.Identity.Process = str(a, AttrProcessName)
	local.Identity.PID = uint32(num(a, AttrProcessPID))
	return nil
}

func (r *Record) readHealth(a pcommon.Map) {
	if client, ok := a.Get(AttrClientISN); ok {
		r.ClientISN, r.ServerISN, r.HasISNs = uint32(client.Int()), uint32(num(a, AttrServerISN)), true
	}
	r.SRTT, r.MinRTT, r.Handshake = seconds(a, AttrSRTT), seconds(a, AttrMinRTT), seconds(a, AttrHandshake)
	r.Retransmits, r.ZeroWindows = num(a, AttrRetransmits), num(a, AttrZeroWindows)
	if _, known := a.Get(AttrClientAddress); !known {
		return // an error would cost more than all of the above
	}
	if client, err := addrPort(a, AttrClientAddress, AttrClientPort); err == nil {
		switch client {
		case r.Source.Addr:
			r.Initiator = InitiatorSource
		case r.Destination.Addr:
			r.Initiator = InitiatorDestination
		}
	}
}

// EventFrom reads what Event.PutTo wrote. Errors are those of RecordFrom, and an unknown kind.
func EventFrom(res pcommon.Resource, lr plog.LogRecord) (Event, error) {
	r, err := RecordFrom(res, lr)
	if err != nil {
		return Event{}, err
	}
	kind, err := ParseEventKind(str(lr.Attributes(), AttrEventKind))
	if err != nil {
		return Event{}, fmt.Errorf("attribute %s: %w", AttrEventKind, err)
	}
	return Event{Kind: kind, Record: r}, nil
}

// ReadIdentity reads the identity that a resource holds, or with PrefixSource or PrefixDestination a peer's from a record.
func ReadIdentity(a pcommon.Map, prefix string) Identity {
	var id Identity
	readIdentity(&id, a, prefix)
	return id
}

// readIdentity overwrites what a holds something for. A resource's node is that of the record.
func readIdentity(id *Identity, a pcommon.Map, prefix string) {
	for name, v := range a.All() {
		if name, ok := strings.CutPrefix(name, prefix); ok && (prefix != "" || name != AttrNodeName) {
			id.read(name, v)
		}
	}
}

func (id *Identity) read(name string, v pcommon.Value) {
	var dst *string
	switch name {
	case AttrCgroupID:
		id.CgroupID = cmp.Or(uint64(v.Int()), id.CgroupID)
		return
	case AttrCgroupPath:
		dst = &id.Cgroup
	case AttrContainerID:
		dst = &id.ContainerID
	case AttrRuntime:
		dst = &id.Runtime
	case AttrPodUID:
		dst = &id.PodUID
	case AttrPodQOSClass:
		dst = &id.QOSClass
	case AttrPod:
		dst = &id.Pod
	case AttrNamespace:
		dst = &id.Namespace
	case AttrContainer:
		dst = &id.Container
	case AttrUnit:
		dst = &id.Unit
	case AttrLabels:
		dst = &id.Labels
	case AttrService:
		dst = &id.Service
	case AttrNodeName:
		dst = &id.KubernetesNode
	case AttrDeployment:
		id.own("Deployment", v)
		return
	case AttrStatefulSet:
		id.own("StatefulSet", v)
		return
	case AttrDaemonSet:
		id.own("DaemonSet", v)
		return
	case AttrCronJob:
		id.own("CronJob", v)
		return
	case AttrJob:
		if id.WorkloadKind != "CronJob" {
			id.own("Job", v)
		}
		return
	case AttrReplicaSet:
		if id.WorkloadKind != "Deployment" {
			id.own("ReplicaSet", v)
		}
		return
	default:
		return
	}
	*dst = cmp.Or(Text(v.Str()), *dst)
}

func (id *Identity) own(kind string, name pcommon.Value) {
	if name.Str() != "" {
		id.Workload, id.WorkloadKind = Text(name.Str()), kind
	}
}

// PutTo writes the status into a log record of the node's resource. EventName is EventNameStatus.
func (s *NetworkStatus) PutTo(lr plog.LogRecord) {
	lr.SetEventName(EventNameStatus)
	lr.SetTimestamp(pcommon.NewTimestampFromTime(s.Time))
	a := lr.Attributes()
	a.EnsureCapacity(22)
	a.PutStr(AttrAgentVersion, s.Version)
	a.PutStr(AttrKernelVersion, s.Kernel)
	a.PutInt(AttrAgentStarted, s.Started.UnixNano())
	a.PutStr(AttrAttachMode, s.AttachMode)
	a.PutInt(AttrAttachPoints, int64(s.AttachPoints))
	a.PutInt(AttrInterval, int64(s.Interval))
	a.PutInt(AttrCountedPackets, int64(s.Packets))
	a.PutInt(AttrCountedBytes, int64(s.Bytes))
	a.PutInt(AttrTotalLostPackets, int64(s.LostPackets))
	a.PutInt(AttrTotalLostBytes, int64(s.LostBytes))
	a.PutInt(AttrTotalLostEvents, int64(s.LostEvents))
	a.PutInt(AttrUnparsedPackets, int64(s.UnparsedPackets))
	a.PutInt(AttrLiveFlows, int64(s.LiveFlows))
	a.PutInt(AttrRingBufferBytes, int64(s.RingBufferBytes))
	a.PutDouble(AttrRingBufferUtilization, s.RingBufferUtilization)
	a.PutInt(AttrFlowTableSize, int64(s.FlowTableSize))
	a.PutInt(AttrFlowTableEntries, int64(s.FlowTableEntries))
	a.PutDouble(AttrPacketRate, s.PacketsPerSecond)
	a.PutDouble(AttrByteRate, s.BytesPerSecond)
	PutProbes(a, s.Probes)
	if len(s.Drops) > 0 {
		drops := a.PutEmptyMap(AttrDrops)
		for reason, packets := range s.Drops {
			drops.PutInt(reason, int64(packets))
		}
	}
	if len(s.Unavailable) > 0 {
		unavailable := a.PutEmptyMap(AttrUnavailable)
		for feature, why := range s.Unavailable {
			unavailable.PutStr(feature, why)
		}
	}
}

// StatusFrom reads what NetworkStatus.PutTo wrote.
func StatusFrom(res pcommon.Resource, lr plog.LogRecord) NetworkStatus {
	a := lr.Attributes()
	s := NetworkStatus{
		Node:             str(res.Attributes(), AttrNodeName),
		Version:          str(a, AttrAgentVersion),
		Kernel:           str(a, AttrKernelVersion),
		Time:             lr.Timestamp().AsTime(),
		Started:          time.Unix(0, int64(num(a, AttrAgentStarted))).UTC(),
		AttachMode:       str(a, AttrAttachMode),
		AttachPoints:     uint32(num(a, AttrAttachPoints)),
		Interval:         time.Duration(num(a, AttrInterval)),
		Packets:          num(a, AttrCountedPackets),
		Bytes:            num(a, AttrCountedBytes),
		LostPackets:      num(a, AttrTotalLostPackets),
		LostBytes:        num(a, AttrTotalLostBytes),
		LostEvents:       num(a, AttrTotalLostEvents),
		UnparsedPackets:  num(a, AttrUnparsedPackets),
		LiveFlows:        num(a, AttrLiveFlows),
		RingBufferBytes:  num(a, AttrRingBufferBytes),
		FlowTableSize:    num(a, AttrFlowTableSize),
		FlowTableEntries: num(a, AttrFlowTableEntries),
	}
	s.RingBufferUtilization = double(a, AttrRingBufferUtilization)
	s.PacketsPerSecond, s.BytesPerSecond = double(a, AttrPacketRate), double(a, AttrByteRate)
	s.Probes = Probes(a)
	if v, ok := a.Get(AttrDrops); ok && v.Type() == pcommon.ValueTypeMap {
		s.Drops = make(map[string]uint64, v.Map().Len())
		for reason, packets := range v.Map().All() {
			s.Drops[Text(reason)] = uint64(packets.Int())
		}
	}
	if v, ok := a.Get(AttrUnavailable); ok && v.Type() == pcommon.ValueTypeMap {
		s.Unavailable = make(map[string]string, v.Map().Len())
		for feature, why := range v.Map().All() {
			s.Unavailable[Text(feature)] = Text(why.Str())
		}
	}
	return s
}

func addrPort(a pcommon.Map, addrKey, portKey string) (netip.AddrPort, error) {
	s := str(a, addrKey)
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("attribute %s: %q is not an IP address", addrKey, s)
	}
	var port int64
	if v, ok := a.Get(portKey); ok {
		port = v.Int()
	}
	if port < 0 || port > math.MaxUint16 {
		return netip.AddrPort{}, fmt.Errorf("attribute %s: %d is not a port", portKey, port)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), nil
}

// Text makes a string that somebody sent UTF-8, as OTLP says it is: an answer with other bytes in it could not be sent.
func Text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func str(a pcommon.Map, key string) string {
	if v, ok := a.Get(key); ok {
		return Text(v.Str())
	}
	return ""
}

func double(a pcommon.Map, key string) float64 {
	if v, ok := a.Get(key); ok {
		return v.Double()
	}
	return 0
}

// seconds reads a duration and rounds it to microseconds, which is what the kernel measures in. What no kernel measures
// (less than nothing, more than 71 minutes, not a number) is none.
func seconds(a pcommon.Map, key string) time.Duration {
	if v, ok := a.Get(key); ok {
		if s := v.Double(); s > 0 && s <= math.MaxUint32*time.Microsecond.Seconds() {
			return time.Duration(s * float64(time.Second)).Round(time.Microsecond)
		}
	}
	return 0
}

func num(a pcommon.Map, key string) uint64 {
	if v, ok := a.Get(key); ok {
		return uint64(v.Int())
	}
	return 0
}
