package flow

import (
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

func at(second int) time.Time {
	return time.Date(2026, 1, 2, 3, 4, second, 0, time.UTC)
}

// tcpRecord has every field of a TCP flow set that the receiver sets.
func tcpRecord() Record {
	return Record{
		Start: at(1), End: at(2), Direction: Egress, Transport: TCP,
		Source: Endpoint{
			Addr:     netip.MustParseAddrPort("10.0.0.1:40000"),
			Identity: Identity{Process: "curl", PID: 4242},
		},
		Destination: Endpoint{Addr: netip.MustParseAddrPort("10.0.0.2:443"), Name: "shop.example.com"},
		Interfaces:  []string{"veth0", "br0"},
		TCPFlags:    0xff, Bytes: 1 << 62, Packets: 1 << 61, Connections: 3,
		TCPHealth: TCPHealth{
			ClientISN: math.MaxUint32, ServerISN: 1, HasISNs: true,
			SRTT: 1500 * time.Microsecond, MinRTT: 250 * time.Microsecond, Handshake: 2 * time.Second,
			Retransmits: 7, ZeroWindows: 8,
		},
		Initiator: InitiatorSource, Ended: true, Outcome: OutcomeClosed, LostPackets: 9,
	}
}

func with(r Record, change func(*Record)) Record {
	change(&r)
	return r
}

func TestRecordSurvivesTheRoundTrip(t *testing.T) {
	tests := map[string]Record{
		"TCP": tcpRecord(),
		"TCP, server's end": with(tcpRecord(), func(r *Record) {
			r.Direction, r.Initiator, r.Outcome = Ingress, InitiatorDestination, OutcomeReset
			r.Source, r.Destination = Endpoint{Addr: r.Source.Addr}, Endpoint{Addr: r.Destination.Addr, Identity: r.Source.Identity}
		}),
		"TCP, initial sequence numbers of 0": with(tcpRecord(), func(r *Record) { r.ClientISN, r.ServerISN = 0, 0 }),
		"TCP over IPv6, nothing known": {
			Start: at(1), End: at(1), Direction: Ingress, Transport: TCP,
			Source:      Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::1]:1")},
			Destination: Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::2]:65535")},
		},
		"UDP in transit": {
			Start: at(1), End: at(1), Direction: Transit, Transport: UDP,
			Source:      Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:53")},
			Destination: Endpoint{Addr: netip.MustParseAddrPort("10.0.0.2:5353")},
			Interfaces:  []string{"eth0"},
		},
		"ICMPv6": {
			Start: at(1), End: at(1), Direction: Egress, Transport: ICMPv6,
			Source:      Endpoint{Addr: netip.MustParseAddrPort("[fe80::1]:0")},
			Destination: Endpoint{Addr: netip.MustParseAddrPort("[ff02::1]:0")},
			ICMPType:    255, ICMPCode: 254, Bytes: 64, Packets: 1, Connections: 1,
		},
		"a protocol without a name": {
			Start: at(1), End: at(1), Direction: Egress, Transport: 255,
			Source:      Endpoint{Addr: netip.MustParseAddrPort("0.0.0.0:0")},
			Destination: Endpoint{Addr: netip.MustParseAddrPort("255.255.255.255:0")},
		},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			lr := plog.NewLogRecord()
			want.PutTo(lr)
			assert.Equal(t, EventNameFlow, lr.EventName())
			id, _ := lr.Attributes().Get(AttrConnectionID)
			assert.Equal(t, want.ConnectionID(), id.Str())
			got, err := RecordFrom(pcommon.NewResource(), lr)
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
}

// A field that nobody thought of when it was added must not get lost on the way.
func TestRoundTripTestHasEveryField(t *testing.T) {
	full := tcpRecord()
	full.Node, full.Source.Name = "node-a", "cart.example.com"
	v := reflect.ValueOf(full)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if name != "ICMPType" && name != "ICMPCode" {
			assert.False(t, v.Field(i).IsZero(), name)
		}
	}
	res, lr := pcommon.NewResource(), plog.NewLogRecord()
	full.PutTo(lr)
	res.Attributes().PutStr(AttrNodeName, full.Node)
	got, err := RecordFrom(res, lr)
	require.NoError(t, err)
	assert.Equal(t, full, got)
}

func TestIdentitiesComeFromResourceAndRecord(t *testing.T) {
	local := map[string]any{
		AttrCgroupID: int64(7), AttrCgroupPath: "/a", AttrContainerID: "c0ffee", AttrRuntime: "containerd", AttrPodUID: "uid",
		AttrPodQOSClass: "burstable", AttrPod: "web-0", AttrNamespace: "shop", AttrContainer: "nginx", AttrUnit: "nginx.service",
		AttrNodeName: "node-a", AttrLabels: "app=web",
	}
	for _, d := range []Direction{Ingress, Egress} {
		t.Run(d.String(), func(t *testing.T) {
			sent := with(tcpRecord(), func(r *Record) { r.Direction = d })
			*sent.Local() = Endpoint{Addr: sent.Local().Addr, Identity: Identity{Process: "nginx", PID: 99}}
			*sent.Peer() = Endpoint{Addr: sent.Peer().Addr}
			res, lr := pcommon.NewResource(), plog.NewLogRecord()
			sent.PutTo(lr)
			require.NoError(t, res.Attributes().FromRaw(local))
			prefix := PrefixDestination
			if d == Ingress {
				prefix = PrefixSource
			}
			lr.Attributes().PutStr(prefix+AttrPod, "db-0")
			lr.Attributes().PutInt(prefix+AttrCgroupID, 8)
			lr.Attributes().PutStr(prefix+AttrStatefulSet, "db")
			lr.Attributes().PutStr(prefix+AttrService, "postgres")
			lr.Attributes().PutStr(prefix+AttrLabels, "app=db")
			lr.Attributes().PutStr(prefix+AttrNodeName, "node-b")

			got, err := RecordFrom(res, lr)
			require.NoError(t, err)
			assert.Equal(t, "node-a", got.Node)
			assert.Equal(t, Identity{
				CgroupID: 7, Cgroup: "/a", ContainerID: "c0ffee", Runtime: "containerd", PodUID: "uid", QOSClass: "burstable",
				Pod: "web-0", Namespace: "shop", Container: "nginx", Unit: "nginx.service", Process: "nginx", PID: 99,
				Labels: "app=web",
			}, got.Local().Identity)
			assert.Equal(t, Identity{
				CgroupID: 8, Pod: "db-0", Workload: "db", WorkloadKind: "StatefulSet", Service: "postgres", KubernetesNode: "node-b",
				Labels: "app=db",
			}, got.Peer().Identity)
		})
	}
}

// The outermost owner is the workload, in whatever order they come.
func TestWorkload(t *testing.T) {
	for _, tt := range []struct{ first, second, want string }{
		{AttrReplicaSet, AttrDeployment, "Deployment"},
		{AttrDeployment, AttrReplicaSet, "Deployment"},
		{AttrJob, AttrCronJob, "CronJob"},
		{AttrCronJob, AttrJob, "CronJob"},
		{AttrReplicaSet, AttrPod, "ReplicaSet"},
		{AttrPod, AttrJob, "Job"},
		{AttrDaemonSet, AttrPod, "DaemonSet"},
	} {
		a := pcommon.NewMap()
		a.PutStr(tt.first, tt.first)
		a.PutStr(tt.second, tt.second)
		id := ReadIdentity(a, "")
		assert.Equal(t, tt.want, id.WorkloadKind, "%v", tt)
		assert.Equal(t, "k8s."+strings.ToLower(tt.want)+".name", id.Workload)
	}
}

func TestEventSurvivesTheRoundTrip(t *testing.T) {
	for _, kind := range []EventKind{EventNew, EventSYN, EventFIN, EventRST} {
		t.Run(kind.String(), func(t *testing.T) {
			// An event is a packet: it has no past, no end and no health.
			want := Event{Kind: kind, Record: with(tcpRecord(), func(r *Record) {
				r.Start, r.Ended, r.Outcome, r.LostPackets = r.End, false, OutcomeUnknown, 0
				r.TCPHealth = TCPHealth{ClientISN: 1, ServerISN: 2, HasISNs: true}
			})}
			lr := plog.NewLogRecord()
			want.PutTo(lr)
			assert.Equal(t, EventNameEvent, lr.EventName())
			got, err := EventFrom(pcommon.NewResource(), lr)
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
	lr := plog.NewLogRecord()
	r := tcpRecord()
	r.PutTo(lr)
	_, err := EventFrom(pcommon.NewResource(), lr)
	assert.ErrorContains(t, err, "attribute orb8.event.kind: event kind \"\": use new")
}

func TestStatusSurvivesTheRoundTrip(t *testing.T) {
	// Every field gets a value of its own, also those that are yet to be added.
	var want NetworkStatus
	v := reflect.ValueOf(&want).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Interface().(type) {
		case string:
			f.SetString(v.Type().Field(i).Name)
		case time.Time:
			f.Set(reflect.ValueOf(at(i)))
		case float64:
			f.SetFloat(0.25)
		case time.Duration:
			f.SetInt(int64(i) * int64(time.Second))
		case uint32, uint64:
			f.SetUint(uint64(100 + i))
		case map[string]uint64:
			f.Set(reflect.ValueOf(map[string]uint64{"no_socket": 3}))
		case map[string]string:
			f.Set(reflect.ValueOf(map[string]string{"feature": "reason"}))
		case []ProbeCost:
			f.Set(reflect.ValueOf([]ProbeCost{{Program: "cgroup_egress", Runs: 3, RunTime: time.Second}}))
		default:
			require.Fail(t, "a kind of field that this test cannot set", v.Type().Field(i).Name)
		}
	}
	res, lr := pcommon.NewResource(), plog.NewLogRecord()
	want.PutTo(lr)
	res.Attributes().PutStr(AttrNodeName, want.Node)
	assert.Equal(t, EventNameStatus, lr.EventName())
	assert.Equal(t, want, StatusFrom(res, lr))
}

func TestMalformedRecords(t *testing.T) {
	tests := map[string]struct {
		change func(pcommon.Map)
		says   string
	}{
		"no source":         {func(a pcommon.Map) { a.Remove(AttrSourceAddress) }, `attribute source.address: "" is not an IP address`},
		"name for an IP":    {func(a pcommon.Map) { a.PutStr(AttrDestinationAddress, "db") }, `attribute destination.address: "db" is not an IP address`},
		"number for an IP":  {func(a pcommon.Map) { a.PutInt(AttrSourceAddress, 10) }, "attribute source.address"},
		"no transport":      {func(a pcommon.Map) { a.Remove(AttrTransport) }, `attribute network.transport: protocol ""`},
		"unknown transport": {func(a pcommon.Map) { a.PutStr(AttrTransport, "256") }, `attribute network.transport: protocol "256": use tcp`},
		"no direction":      {func(a pcommon.Map) { a.Remove(AttrDirection) }, `attribute orb8.flow.direction: direction ""`},
		"unknown direction": {func(a pcommon.Map) { a.PutStr(AttrDirection, "up") }, `direction "up": use ingress`},
		"unknown outcome":   {func(a pcommon.Map) { a.PutStr(AttrOutcome, "lost") }, `attribute orb8.connection.outcome: outcome "lost": use closed`},
		"port beyond 65535": {func(a pcommon.Map) { a.PutInt(AttrSourcePort, 70000) }, "attribute source.port: 70000 is not a port"},
		"port below 0":      {func(a pcommon.Map) { a.PutInt(AttrDestinationPort, -1) }, "attribute destination.port: -1 is not a port"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, lr := tcpRecord(), plog.NewLogRecord()
			r.PutTo(lr)
			tt.change(lr.Attributes())
			_, err := RecordFrom(pcommon.NewResource(), lr)
			assert.ErrorContains(t, err, tt.says)
		})
	}
}

func TestInitiatorIsNeitherEndThatIsNotThere(t *testing.T) {
	r, lr := tcpRecord(), plog.NewLogRecord()
	r.PutTo(lr)
	lr.Attributes().PutStr(AttrClientAddress, "192.0.2.1")
	got, err := RecordFrom(pcommon.NewResource(), lr)
	require.NoError(t, err)
	assert.Equal(t, InitiatorUnknown, got.Initiator)
}

func TestNamesAndNumbers(t *testing.T) {
	for _, d := range []Direction{Ingress, Egress, Transit} {
		got, err := ParseDirection(d.String())
		assert.NoError(t, err)
		assert.Equal(t, d, got)
	}
	for n := range 256 {
		got, err := ParseTransport(Transport(n).String())
		assert.NoError(t, err)
		assert.Equal(t, Transport(n), got)
	}
	for o := OutcomeUnknown; o <= OutcomeTimeout; o++ {
		got, err := ParseOutcome(o.String())
		assert.NoError(t, err)
		assert.Equal(t, o, got)
	}
	for k := EventNew; k.String() != "unknown"; k++ {
		got, err := ParseEventKind(k.String())
		assert.NoError(t, err)
		assert.Equal(t, k, got)
	}
	assert.Equal(t, "unknown", Direction(0).String())
	assert.Empty(t, Outcome(200).String())
	_, err := ParseEventKind("unknown")
	assert.Error(t, err)
}

func TestConnectionID(t *testing.T) {
	base := tcpRecord()
	plain := with(base, func(r *Record) { r.TCPHealth = TCPHealth{} })
	swap := func(r *Record) { r.Source, r.Destination = r.Destination, r.Source }
	translate := func(r *Record) {
		r.Source.Addr, r.Destination.Addr = netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::1]:2")
	}
	tests := map[string]struct {
		of     Record
		change func(*Record)
		same   bool
	}{
		"the other direction":          {base, swap, true},
		"the other end":                {base, func(r *Record) { r.Direction = Ingress }, true},
		"another node":                 {base, func(r *Record) { r.Node = "node-b" }, true},
		"translated addresses":         {base, translate, true},
		"another client's number":      {base, func(r *Record) { r.ClientISN-- }, false},
		"another server's number":      {base, func(r *Record) { r.ServerISN++ }, false},
		"swapped numbers":              {base, func(r *Record) { r.ClientISN, r.ServerISN = r.ServerISN, r.ClientISN }, false},
		"without a handshake":          {base, func(r *Record) { r.TCPHealth = TCPHealth{} }, false},
		"plain, the other direction":   {plain, swap, true},
		"plain, the other end":         {plain, func(r *Record) { r.Direction = Ingress }, true},
		"plain, counts and identities": {plain, func(r *Record) { r.Bytes, r.Source.Identity = 1, Identity{Pod: "web-0"} }, true},
		"plain, translated addresses":  {plain, translate, false},
		"plain, another port":          {plain, func(r *Record) { r.Source.Addr = netip.MustParseAddrPort("10.0.0.1:40001") }, false},
		"plain, ports swapped between the ends": {plain, func(r *Record) {
			r.Source.Addr, r.Destination.Addr = netip.MustParseAddrPort("10.0.0.1:443"), netip.MustParseAddrPort("10.0.0.2:40000")
		}, false},
		"plain, another transport":                    {plain, func(r *Record) { r.Transport = UDP }, false},
		"plain, numbers without a handshake are none": {plain, func(r *Record) { r.ClientISN, r.ServerISN = 5, 6 }, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			changed := with(tt.of, tt.change)
			if tt.same {
				assert.Equal(t, tt.of.ConnectionID(), changed.ConnectionID())
			} else {
				assert.NotEqual(t, tt.of.ConnectionID(), changed.ConnectionID())
			}
			assert.Regexp(t, "^[0-9a-f]{16}$", changed.ConnectionID())
		})
	}
}

// It is written down in other systems: what it is made of must not change.
func TestConnectionIDIsStable(t *testing.T) {
	r := tcpRecord()
	r.ClientISN, r.ServerISN = 0x01020304, 0x05060708
	assert.Equal(t, "7eb5108b368a78ed", r.ConnectionID())
	r.HasISNs = false
	assert.Equal(t, "2ce027fbcc05e83e", r.ConnectionID())
}

func TestAttributesOfAnotherTypeAreNone(t *testing.T) {
	lr := plog.NewLogRecord()
	for _, key := range []string{AttrDrops, AttrUnavailable, AttrKernelVersion} {
		lr.Attributes().PutInt(key, 1)
	}
	lr.Attributes().PutStr(AttrCountedBytes, "many")
	got := StatusFrom(pcommon.NewResource(), lr)
	assert.Empty(t, got.Drops)
	assert.Empty(t, got.Unavailable)
	assert.Empty(t, got.Kernel)
	assert.Zero(t, got.Bytes)
}

func FuzzRecordFrom(f *testing.F) {
	f.Add("10.0.0.1", int64(40000), "tcp", "egress", "closed", int64(-1), 1.5, "10.0.0.1")
	f.Add("fe80::1%eth0", int64(-5), "255", "INGRESS", "", int64(math.MaxInt64), math.Inf(1), "")
	f.Add("::ffff:10.0.0.1", int64(1<<40), "icmpv6", "transit", "x", int64(math.MinInt64), math.NaN(), "::1")
	f.Fuzz(func(t *testing.T, addr string, port int64, transport, direction, outcome string, number int64, seconds float64, client string) {
		res, lr := pcommon.NewResource(), plog.NewLogRecord()
		a := lr.Attributes()
		for _, key := range []string{AttrSourceAddress, AttrDestinationAddress} {
			a.PutStr(key, addr)
		}
		for _, key := range []string{AttrSourcePort, AttrDestinationPort, AttrClientPort} {
			a.PutInt(key, port)
		}
		for _, key := range []string{
			AttrFlowStart, AttrBytes, AttrPackets, AttrConnections, AttrTCPFlags, AttrICMPType, AttrICMPCode, AttrLostPackets, AttrClientISN,
			AttrServerISN, AttrRetransmits, AttrZeroWindows, AttrProcessPID, PrefixSource + AttrCgroupID,
		} {
			a.PutInt(key, number)
		}
		for _, key := range []string{AttrSRTT, AttrMinRTT, AttrHandshake} {
			a.PutDouble(key, seconds)
		}
		a.PutStr(AttrTransport, transport)
		a.PutStr(AttrDirection, direction)
		a.PutStr(AttrOutcome, outcome)
		a.PutStr(AttrClientAddress, client)
		a.PutInt(AttrInterfaces, number)
		r, err := RecordFrom(res, lr)
		if err != nil {
			return
		}
		// What was taken is a record like any other: it can be named, written, and read again as the same connection.
		again := plog.NewLogRecord()
		r.PutTo(again)
		second, err := RecordFrom(res, again)
		require.NoError(t, err)
		assert.Equal(t, r.Source.Addr, second.Source.Addr)
		assert.Equal(t, r.Bytes, second.Bytes)
		if r.HasISNs == second.HasISNs { // they are written for TCP only
			assert.Equal(t, r.ConnectionID(), second.ConnectionID())
		}
		assert.GreaterOrEqual(t, r.SRTT, time.Duration(0))
	})
}

func BenchmarkPutTo(b *testing.B) {
	r := tcpRecord()
	b.ReportAllocs()
	for b.Loop() {
		r.PutTo(plog.NewLogRecord())
	}
}

func BenchmarkRecordFrom(b *testing.B) {
	r, res, lr := tcpRecord(), pcommon.NewResource(), plog.NewLogRecord()
	r.PutTo(lr)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := RecordFrom(res, lr); err != nil {
			b.Fatal(err)
		}
	}
}
