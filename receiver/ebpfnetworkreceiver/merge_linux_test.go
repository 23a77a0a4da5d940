package ebpfnetworkreceiver

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/receiver/ebpfnetworkreceiver/internal/engine"
)

// A host with two pods on a bridge, two uplinks of which one is a bond, and a process of its own.
const (
	vethA uint32 = iota + 1
	vethB
	cni0
	eth0
	eth1
	slave0
	slave1
	bond0
	unknown
)

var host = engine.NewDevices([]engine.Device{
	{Index: vethA, Name: "vethA", Endpoint: true},
	{Index: vethB, Name: "vethB", Endpoint: true},
	{Index: cni0, Name: "cni0", Height: 1},
	{Index: eth0, Name: "eth0"},
	{Index: eth1, Name: "eth1"},
	{Index: slave0, Name: "slave0"},
	{Index: slave1, Name: "slave1"},
	{Index: bond0, Name: "bond0", Height: 1},
}, []netip.Addr{netip.MustParseAddr(hostIP), netip.MustParseAddr("fd00::1")})

const (
	podA   = "10.244.0.2"
	podB   = "10.244.0.3"
	hostIP = "192.168.0.1"
	world  = "203.0.113.9"
	other  = "198.51.100.7"
)

// look is what an interface saw of a flow.
type look struct {
	device   uint32
	side     int
	packets  uint64
	src, dst string
	// first is when it saw the first packet; with late it is just before the interval ended.
	first  uint64
	late   bool
	change func(*network.NetworkFlow)
}

// observation is what the kernel has of a look, made by the programs that face an endpoint or not.
func (l look) observation(facing bool) (network.NetworkFlowKey, network.NetworkFlow) {
	direction := flow.Ingress
	if (l.side == out) != facing {
		direction = flow.Egress
	}
	k := key(flow.UDP, direction, socketOf(l.src), socketOf(l.dst))
	k.Scope = uint64(l.device)
	if facing {
		k.Facing = 1
	}
	f := network.NetworkFlow{Packets: l.packets, Bytes: 100 * l.packets, FirstNs: 10 + l.first, LastNs: 20}
	if l.change != nil {
		l.change(&f)
	}
	return k, f
}

func socketOf(addr string) string {
	port := uint16(1000)
	if addr == world {
		port = 53
	}
	return netip.AddrPortFrom(netip.MustParseAddr(addr), port).String()
}

// report is what a merged flow is reported as.
type report struct {
	direction flow.Direction
	scope     uint64
	packets   uint64
	path      []string
}

// merged plays intervals on a merger. Each is what the interfaces saw in it; the last is the last of all.
func merged(t *testing.T, intervals ...[]look) [][]report {
	t.Helper()
	m := newMerger()
	var all [][]report
	for i, looks := range intervals {
		ended := int64(i+1) * int64(time.Second)
		m.begin(host, ended)
		for _, l := range looks {
			k, f := observed(l)
			if l.late {
				f.FirstNs = uint64(ended - int64(passingTime)/10)
			}
			m.observe(k, f)
		}
		var reports []report
		m.end(i == len(intervals)-1, func(k *network.NetworkFlowKey, f *network.NetworkFlow) {
			assert.Zero(t, k.Facing, "part of a flow's identity")
			assert.Equal(t, 100*f.Packets, f.Bytes)
			reports = append(reports, report{flow.Direction(k.Direction), k.Scope, f.Packets, m.interfaces(k)})
		})
		slices.SortFunc(reports, func(a, b report) int { return int(a.direction) - int(b.direction) })
		all = append(all, reports)
	}
	return all
}

func observed(l look) (*network.NetworkFlowKey, *network.NetworkFlow) {
	k, f := l.observation(host.Get(l.device).Endpoint)
	return &k, &f
}

// seenBy are looks at one flow of n packets.
func seenBy(src, dst string, n uint64, places ...[2]uint32) []look {
	var looks []look
	for _, p := range places {
		looks = append(looks, look{device: p[0], side: int(p[1]), packets: n, src: src, dst: dst, first: uint64(len(looks))})
	}
	return looks
}

// justNow are looks at packets that came just before the interval ended.
func justNow(looks []look) []look {
	for i := range looks {
		looks[i].late = true
	}
	return looks
}

func entering(device uint32) [2]uint32 { return [2]uint32{device, in} }
func leaving(device uint32) [2]uint32  { return [2]uint32{device, out} }

func TestAPacketCountsOnceForEachEndpoint(t *testing.T) {
	const n = 7
	ingress := func(scope uint32, path ...string) report { return report{flow.Ingress, uint64(scope), n, path} }
	egress := func(scope uint32, path ...string) report { return report{flow.Egress, uint64(scope), n, path} }
	transit := func(path ...string) report { return report{flow.Transit, 0, n, path} }
	tests := map[string]struct {
		looks []look
		want  []report
	}{
		"pod to pod": {
			seenBy(podA, podB, n, leaving(vethB), entering(vethA)),
			[]report{ingress(vethB, "vethA", "vethB"), egress(vethA, "vethA", "vethB")},
		},
		"pod to the world": {
			seenBy(podA, world, n, leaving(eth0), entering(cni0), entering(vethA)),
			[]report{egress(vethA, "vethA", "cni0", "eth0")},
		},
		"the world to a pod": {
			seenBy(world, podA, n, entering(eth0), leaving(cni0), leaving(vethA)),
			[]report{ingress(vethA, "eth0", "cni0", "vethA")},
		},
		"pod to the host": {
			seenBy(podA, hostIP, n, entering(vethA), entering(cni0)),
			[]report{ingress(0, "vethA", "cni0"), egress(vethA, "vethA", "cni0")},
		},
		"the host to a pod": {
			seenBy(hostIP, podA, n, leaving(vethA), leaving(cni0)),
			[]report{ingress(vethA, "cni0", "vethA"), egress(0, "cni0", "vethA")},
		},
		"pod to the host, without a bridge": {
			seenBy(podA, hostIP, n, entering(vethA)), []report{egress(vethA, "vethA")},
		},
		"the host to the world": {seenBy(hostIP, world, n, leaving(eth0)), []report{egress(0, "eth0")}},
		"the world to the host": {seenBy(world, hostIP, n, entering(eth0)), []report{ingress(0, "eth0")}},
		"through a bond": {
			seenBy(hostIP, world, n, leaving(slave0), leaving(bond0)), []report{egress(0, "bond0", "slave0")},
		},
		"into a bond": {
			seenBy(world, hostIP, n, entering(bond0), entering(slave0)), []report{ingress(0, "slave0", "bond0")},
		},
		"from uplink to uplink": {
			seenBy(world, other, n, entering(eth0), leaving(eth1)), []report{transit("eth0", "eth1")},
		},
		"back where it came from": {
			seenBy(world, other, n, entering(eth0), leaving(eth0)), []report{transit("eth0")},
		},
		"from uplink to bond": {
			seenBy(world, other, n, entering(eth0), leaving(bond0), leaving(slave1)), []report{transit("eth0", "bond0", "slave1")},
		},
		"a bond alone": { // its slaves are not watched
			seenBy(world, hostIP, n, entering(bond0)), []report{ingress(0, "bond0")},
		},
		"ECMP from a pod": {
			append(seenBy(podA, world, n, entering(vethA)), append(seenBy(podA, world, 3, leaving(eth0)), seenBy(podA, world, 4, leaving(eth1))...)...),
			[]report{egress(vethA, "vethA", "eth0", "eth1")},
		},
		"ECMP from the host": {
			append(seenBy(hostIP, world, 3, leaving(eth0)), seenBy(hostIP, world, 4, leaving(eth1))...),
			[]report{egress(0, "eth0", "eth1")},
		},
		"ECMP in transit": {
			append(seenBy(world, other, n, entering(slave0)), append(seenBy(world, other, 3, leaving(eth0)), seenBy(world, other, 4, leaving(eth1))...)...),
			[]report{transit("slave0", "eth0", "eth1")},
		},
		"both slaves of a bond": {
			append(seenBy(world, hostIP, n, entering(bond0)), append(seenBy(world, hostIP, 3, entering(slave0)), seenBy(world, hostIP, 4, entering(slave1))...)...),
			[]report{ingress(0, "slave0", "slave1", "bond0")},
		},
		"dropped on the way": { // by the host's firewall, say
			append(seenBy(world, other, n, entering(eth0)), seenBy(world, other, 5, leaving(eth1))...), []report{transit("eth0", "eth1")},
		},
		"where it came from is not watched": {seenBy(world, other, n, leaving(eth0)), []report{transit("eth0")}},
		"a pod that routes": {
			seenBy(world, other, n, entering(eth0), leaving(vethA), entering(vethA), leaving(eth1)),
			[]report{ingress(vethA, "eth0", "vethA", "eth1"), egress(vethA, "eth0", "vethA", "eth1")},
		},
		"multicast of a pod": {
			seenBy(podA, "224.0.0.251", n, entering(vethA), entering(cni0), leaving(vethB), leaving(eth0)),
			[]report{
				ingress(vethB, "vethA", "cni0", "vethB", "eth0"), ingress(0, "vethA", "cni0", "vethB", "eth0"),
				egress(vethA, "vethA", "cni0", "vethB", "eth0"),
			},
		},
		"DHCP of the host": {
			seenBy("0.0.0.0", "255.255.255.255", n, leaving(eth0)), []report{egress(0, "eth0")},
		},
		"loopback": {
			seenBy("127.0.0.1", "127.0.0.1", n, leaving(unknown), entering(unknown)), []report{ingress(0), egress(0)},
		},
		"IPv6": {seenBy("2001:db8::1", "fd00::1", n, entering(eth0)), []report{ingress(0, "eth0")}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := merged(t, tt.looks)[0]
			require.Len(t, got, len(tt.want))
			assert.ElementsMatch(t, tt.want, got)
		})
	}
}

// Where an interval ends, a packet may be between two interfaces: one sees it in this interval, the other in the next.
func TestAPacketOnItsWayWhenAnIntervalEnds(t *testing.T) {
	split := func(first, second []look) [][]look { return [][]look{first, second, nil} }
	tests := map[string]struct {
		intervals [][]look
		want      map[flow.Direction]uint64
	}{
		"from a pod": {
			split(seenBy(podA, world, 1, entering(vethA)), seenBy(podA, world, 1, leaving(eth0))),
			map[flow.Direction]uint64{flow.Egress: 1},
		},
		"to a pod": {
			split(seenBy(world, podA, 1, entering(eth0)), seenBy(world, podA, 1, leaving(vethA))),
			map[flow.Direction]uint64{flow.Ingress: 1},
		},
		"to a pod, in the middle of a flow": {
			split(append(seenBy(world, podA, 101, entering(eth0)), seenBy(world, podA, 100, leaving(vethA))...),
				append(seenBy(world, podA, 99, entering(eth0)), seenBy(world, podA, 100, leaving(vethA))...)),
			map[flow.Direction]uint64{flow.Ingress: 200},
		},
		"in transit": {
			split(seenBy(world, other, 1, entering(eth0)), seenBy(world, other, 1, leaving(eth1))),
			map[flow.Direction]uint64{flow.Transit: 1},
		},
		"in transit, in the middle of a flow": {
			split(append(seenBy(world, other, 101, entering(eth0)), seenBy(world, other, 100, leaving(eth1))...),
				append(seenBy(world, other, 99, entering(eth0)), seenBy(world, other, 100, leaving(eth1))...)),
			map[flow.Direction]uint64{flow.Transit: 200},
		},
		"in transit, at the end of a flow": {
			split(append(seenBy(world, other, 101, entering(eth0)), seenBy(world, other, 100, leaving(eth1))...),
				seenBy(world, other, 1, leaving(eth1))),
			map[flow.Direction]uint64{flow.Transit: 101},
		},
		"up a bond": {
			split(append(seenBy(world, hostIP, 101, entering(slave0)), seenBy(world, hostIP, 100, entering(bond0))...),
				seenBy(world, hostIP, 1, entering(bond0))),
			map[flow.Direction]uint64{flow.Ingress: 101},
		},
		"down a bond": {
			split(append(seenBy(hostIP, world, 101, leaving(bond0)), seenBy(hostIP, world, 100, leaving(slave0))...),
				seenBy(hostIP, world, 1, leaving(slave0))),
			map[flow.Direction]uint64{flow.Egress: 101},
		},
		"down a bond, at the beginning of a flow": {
			split(justNow(seenBy(hostIP, world, 2, leaving(bond0))), seenBy(hostIP, world, 5, leaving(bond0), leaving(slave0))),
			map[flow.Direction]uint64{flow.Egress: 5},
		},
		"down a bond, one packet": {
			split(justNow(seenBy(hostIP, world, 1, leaving(bond0))), seenBy(hostIP, world, 1, leaving(slave0))),
			map[flow.Direction]uint64{flow.Egress: 1},
		},
		"down a bond in transit, one packet": {
			split(justNow(seenBy(world, other, 1, entering(eth0), leaving(bond0))), seenBy(world, other, 1, leaving(slave1))),
			map[flow.Direction]uint64{flow.Transit: 1},
		},
		"up a bond in transit": {
			split(append(seenBy(world, other, 11, entering(slave0)), append(seenBy(world, other, 10, entering(bond0)), seenBy(world, other, 11, leaving(eth1))...)...),
				seenBy(world, other, 1, entering(bond0))),
			map[flow.Direction]uint64{flow.Transit: 11},
		},
		"into a bond and down another, one packet": {
			[][]look{
				justNow(seenBy(world, other, 1, entering(slave0), entering(bond0))),
				justNow(seenBy(world, other, 1, leaving(bond0))), seenBy(world, other, 1, leaving(slave1)), nil,
			},
			map[flow.Direction]uint64{flow.Transit: 1},
		},
		"down a bond that alone is watched": {
			split(justNow(seenBy(hostIP, world, 2, leaving(bond0))), seenBy(hostIP, world, 3, leaving(bond0))),
			map[flow.Direction]uint64{flow.Egress: 5},
		},
		"by a bond that alone is watched, then by an uplink": {
			split(seenBy(hostIP, world, 20, leaving(bond0)), seenBy(hostIP, world, 10, leaving(eth0))),
			map[flow.Direction]uint64{flow.Egress: 30},
		},
		"from a pod to the host": {
			split(seenBy(podA, hostIP, 1, entering(vethA)), seenBy(podA, hostIP, 1, entering(cni0))),
			map[flow.Direction]uint64{flow.Egress: 1, flow.Ingress: 1},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := map[flow.Direction]uint64{}
			for _, reports := range merged(t, tt.intervals...) {
				for _, r := range reports {
					got[r.direction] += r.packets
				}
			}
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestWhatOneSideAloneSawWaitsForTheOther(t *testing.T) {
	dropped := seenBy(world, other, 3, entering(eth0))
	reports := merged(t, dropped, nil, nil)
	assert.Empty(t, reports[0], "it may have come in just now")
	require.Len(t, reports[1], 1, "it went nowhere")
	assert.Equal(t, report{flow.Transit, 0, 3, []string{"eth0"}}, reports[1][0])
	assert.Empty(t, reports[2])

	reports = merged(t, dropped, dropped, dropped, dropped)
	assert.Empty(t, reports[0])
	assert.EqualValues(t, 6, reports[1][0].packets)
	assert.EqualValues(t, 3, reports[2][0].packets, "it is known by now")
	assert.EqualValues(t, 3, reports[3][0].packets)

	assert.Len(t, merged(t, dropped)[0], 1, "after the last interval nothing comes")
}

// The peers count a flow at the interface that saw it first, and miss what then takes another one.
func TestRouteChanges(t *testing.T) {
	through := func(from, to uint32, n uint64) []look { return seenBy(world, other, n, entering(from), leaving(to)) }
	var got []uint64
	var paths [][]string
	for _, reports := range merged(t, through(eth0, eth1, 10), append(through(eth0, eth1, 4), through(slave0, eth1, 6)...), through(slave0, bond0, 10)) {
		require.Len(t, reports, 1)
		got = append(got, reports[0].packets)
		paths = append(paths, reports[0].path)
	}
	assert.Equal(t, []uint64{10, 10, 10}, got)
	assert.Equal(t, [][]string{{"eth0", "eth1"}, {"eth0", "slave0", "eth1"}, {"slave0", "bond0"}}, paths)
}

// A veth's far end moves into a pod when the veth has been watched for a while: the first packets were seen by programs
// that took it for an interface of this host, and looked for the sockets there.
func TestAnInterfaceThatCameToFaceAnEndpoint(t *testing.T) {
	m := newMerger()
	m.begin(host, int64(time.Second))
	for _, facing := range []bool{false, true} {
		k, f := look{device: vethA, side: in, packets: 2, src: podA, dst: world, change: func(f *network.NetworkFlow) {
			f.CgroupId, f.Pid, f.Comm = 77, 7, comm("right")
			if !facing {
				f.CgroupId, f.Pid, f.Comm = 66, 6, comm("wrong")
			}
		}}.observation(facing)
		m.observe(&k, &f)
	}
	var packets uint64
	m.end(true, func(k *network.NetworkFlowKey, f *network.NetworkFlow) {
		packets += f.Packets
		assert.EqualValues(t, flow.Egress, k.Direction)
		assert.EqualValues(t, vethA, k.Scope)
		assert.Contains(t, []uint64{0, 77}, f.CgroupId)
		assert.NotEqual(t, comm("wrong"), f.Comm)
	})
	assert.EqualValues(t, 4, packets)
}

func TestWhoAnEndpointIs(t *testing.T) {
	owned := func(cgroup uint64) func(*network.NetworkFlow) {
		return func(f *network.NetworkFlow) { f.CgroupId, f.Pid, f.Comm = cgroup, uint32(cgroup), comm("x") }
	}
	tests := map[string]struct {
		looks []look
		want  map[flow.Direction]uint64
	}{
		"each end by its own interface": {
			[]look{{device: vethA, side: in, packets: 1, src: podA, dst: podB, change: owned(11)}, {device: vethB, side: out, packets: 1, src: podA, dst: podB, change: owned(22)}},
			map[flow.Direction]uint64{flow.Egress: 11, flow.Ingress: 22},
		},
		"the host by the bridge": {
			[]look{{device: vethA, side: in, packets: 1, src: podA, dst: hostIP, change: owned(11)}, {device: cni0, side: in, packets: 1, src: podA, dst: hostIP, change: owned(33)}},
			map[flow.Direction]uint64{flow.Egress: 11, flow.Ingress: 33},
		},
		"the host by what is above the wire": { // the bond still has the socket's packet
			[]look{{device: slave0, side: out, packets: 1, src: hostIP, dst: world}, {device: bond0, side: out, packets: 1, src: hostIP, dst: world, change: owned(33)}},
			map[flow.Direction]uint64{flow.Egress: 33},
		},
		"nobody in transit": { // although somebody here listens on this port at all addresses
			[]look{{device: eth0, side: in, packets: 1, src: world, dst: other, change: owned(44)}, {device: eth1, side: out, packets: 1, src: world, dst: other}},
			map[flow.Direction]uint64{flow.Transit: 0},
		},
		"nobody else on the way to a pod": {
			[]look{{device: eth0, side: in, packets: 1, src: world, dst: podA, change: owned(44)}, {device: vethA, side: out, packets: 1, src: world, dst: podA, change: owned(11)}},
			map[flow.Direction]uint64{flow.Ingress: 11},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMerger()
			m.begin(host, int64(time.Second))
			for _, l := range tt.looks {
				m.observe(observed(l))
			}
			got := map[flow.Direction]uint64{}
			m.end(true, func(k *network.NetworkFlowKey, f *network.NetworkFlow) {
				got[flow.Direction(k.Direction)] = f.CgroupId
				assert.EqualValues(t, f.CgroupId, f.Pid)
			})
			assert.Equal(t, tt.want, got)
		})
	}
}

// However the packets of a flow are spread over uplinks and intervals, and wherever intervals end, the sum is right.
func FuzzTransitAddsUp(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Add([]byte{0x10, 0x21, 0x90, 0x10, 0x8f})
	f.Fuzz(func(t *testing.T, packets []byte) {
		// Each packet comes in by one of two uplinks and goes out by another; before some of its two sightings an interval ends.
		intervals := [][]look{nil}
		var late []look
		for _, p := range packets {
			now := &intervals[len(intervals)-1]
			*now = append(*now, seenBy(world, other, 1, entering([]uint32{eth0, slave0}[p&1]))...)
			goes := seenBy(world, other, 1, leaving([]uint32{eth1, slave1}[p>>1&1]))
			if p&0x80 == 0 {
				*now = append(*now, goes...)
				continue
			}
			late = append(late, goes...)
			intervals = append(intervals, late)
			late = nil
		}
		intervals = append(intervals, nil)
		var sum uint64
		for _, reports := range merged(t, intervals...) {
			for _, r := range reports {
				require.Equal(t, flow.Transit, r.direction)
				sum += r.packets
			}
		}
		assert.EqualValues(t, len(packets), sum)
	})
}

// Wherever intervals end while packets go down a bond, each counts once.
func FuzzWayDownABondAddsUp(f *testing.F) {
	f.Add([]byte{0x80, 0x80, 1, 0, 0x81}, false)
	f.Add([]byte{0x80, 0x80}, true)
	f.Add([]byte{0x40, 0x80, 0x40, 0, 0xc0, 0x40, 0x80}, true)
	f.Fuzz(func(t *testing.T, packets []byte, transit bool) {
		// Each packet leaves by the bond, and then by one of its slaves; before some of its two sightings an interval ends, and
		// after some there is an interval without packets.
		src, dst := hostIP, world
		if transit {
			src, dst = world, other
		}
		intervals := [][]look{nil}
		for _, p := range packets {
			now := &intervals[len(intervals)-1]
			above := seenBy(src, dst, 1, leaving(bond0))
			if transit {
				above = seenBy(src, dst, 1, entering(eth0), leaving(bond0))
			}
			below := seenBy(src, dst, 1, leaving([]uint32{slave0, slave1}[p&1]))
			if p&0x80 == 0 {
				*now = append(append(*now, above...), below...)
			} else {
				*now = append(*now, justNow(above)...)
				intervals = append(intervals, below)
			}
			if p&0x40 != 0 {
				intervals = append(intervals, nil, nil)
			}
		}
		intervals = append(intervals, nil)
		var sum uint64
		for _, reports := range merged(t, intervals...) {
			for _, r := range reports {
				sum += r.packets
			}
		}
		assert.EqualValues(t, len(packets), sum)
	})
}

func TestMergerForgets(t *testing.T) {
	m := newMerger()
	for range 3 {
		m.begin(host, int64(time.Second))
		m.observe(observed(seenBy(world, other, 1, entering(eth0))[0]))
		m.end(true, func(*network.NetworkFlowKey, *network.NetworkFlow) {})
	}
	for range 2 {
		m.begin(host, int64(time.Second))
		m.end(false, func(*network.NetworkFlowKey, *network.NetworkFlow) { t.Error("reported again") })
	}
	assert.Empty(t, m.now.index)
	assert.Empty(t, m.before.index)
	assert.Empty(t, m.held)
	gone := key(flow.UDP, flow.Transit, world+":1", other+":1")
	assert.Empty(t, m.interfaces(&gone))
}

func BenchmarkMerge(b *testing.B) {
	const flows = 10_000
	for name, places := range map[string][][2]uint32{
		"one interface":    {entering(vethA)},
		"three interfaces": {entering(vethA), entering(cni0), leaving(eth0)},
	} {
		b.Run(name, func(b *testing.B) {
			var keys []network.NetworkFlowKey
			var values []network.NetworkFlow
			for i := range flows {
				for _, l := range seenBy(podA, world, 3, places...) {
					k, f := observed(l)
					k.Sport = uint16(i)
					keys, values = append(keys, *k), append(values, *f)
				}
			}
			m := newMerger()
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				m.begin(host, int64(time.Second))
				for i := range keys {
					m.observe(&keys[i], &values[i])
				}
				m.end(false, func(*network.NetworkFlowKey, *network.NetworkFlow) { n++ })
			}
			require.Equal(b, b.N*flows, n)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/flow")
		})
	}
}

func TestPathsAreSharedBetweenFlows(t *testing.T) {
	m := newMerger()
	m.begin(host, int64(time.Second))
	for i := range 3 {
		for _, l := range seenBy(podA, world, 1, entering(vethA), leaving(eth0)) {
			k, f := observed(l)
			k.Sport = uint16(i)
			m.observe(k, f)
		}
	}
	m.end(true, func(*network.NetworkFlowKey, *network.NetworkFlow) {})
	assert.Len(t, slices.Collect(maps.Keys(m.paths)), 1)
}

func TestWhatIsKnownOfATransitConnection(t *testing.T) {
	m := newMerger()
	m.begin(host, int64(time.Second))
	for _, l := range []look{
		{device: eth0, side: in, packets: 3, src: world, dst: other, first: 1, change: func(f *network.NetworkFlow) {
			f.Connections, f.ClientIsn, f.Seen, f.TcpFlags, f.ZeroWindows = 1, 5, seenSYN, syn, 2
		}},
		{device: eth1, side: out, packets: 4, src: world, dst: other, first: 2, change: func(f *network.NetworkFlow) {
			f.Connections, f.ClientIsn, f.ServerIsn, f.Seen, f.TcpFlags, f.ZeroWindows = 1, 5, 6, seenSYN|seenSYNACK, syn|ack, 2
		}},
	} {
		m.observe(observed(l))
	}
	reported := 0
	m.end(true, func(_ *network.NetworkFlowKey, f *network.NetworkFlow) {
		reported++
		assert.Equal(t, network.NetworkFlow{
			Packets: 4, Bytes: 400, FirstNs: 11, LastNs: 20, Connections: 1, ClientIsn: 5, ServerIsn: 6,
			Seen: seenSYN | seenSYNACK, TcpFlags: syn | ack, ZeroWindows: 2,
		}, *f)
	})
	assert.Equal(t, 1, reported)
}
