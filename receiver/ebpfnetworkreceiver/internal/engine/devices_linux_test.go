package engine

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
)

// nothing is an attachment to nothing.
type nothing struct{}

func (nothing) swap(_, _ *ebpf.Program) error { return nil }
func (nothing) Close() error                  { return nil }

// stock is an inventory of these interfaces, of which those with a name that starts with "w" are watched.
func stock(links ...netlink.Link) *inventory {
	v := newInventory()
	for _, l := range links {
		if i := v.set(l); i.name[0] == 'w' {
			i.attached = nothing{}
		}
	}
	return &v
}

func attrs(index int, name string, master, parent, peerNetns int) netlink.LinkAttrs {
	return netlink.LinkAttrs{Index: index, Name: name, MasterIndex: master, ParentIndex: parent, NetNsID: peerNetns}
}

func TestHeights(t *testing.T) {
	nic := func(index int, name string, master int) netlink.Link {
		return &netlink.Device{LinkAttrs: attrs(index, name, master, 0, -1)}
	}
	bridge := func(index int, name string) netlink.Link {
		return &netlink.Bridge{LinkAttrs: attrs(index, name, 0, 0, -1)}
	}
	tests := map[string]struct {
		links   []netlink.Link
		heights map[string]int
	}{
		"apart": {[]netlink.Link{nic(1, "w0", 0), nic(2, "w1", 0)}, map[string]int{"w0": 0, "w1": 0}},
		"bridge": {
			[]netlink.Link{nic(1, "w0", 9), &netlink.Veth{LinkAttrs: attrs(2, "w1", 9, 7, 3)}, bridge(9, "wbr")},
			map[string]int{"w0": 0, "w1": 0, "wbr": 1},
		},
		"bridge without a watched port": {[]netlink.Link{nic(1, "e0", 9), bridge(9, "wbr")}, map[string]int{"wbr": 0}},
		"VLAN of a bond in a bridge": {
			[]netlink.Link{
				nic(1, "w0", 5), nic(2, "w1", 5), &netlink.Bond{LinkAttrs: attrs(5, "wbond", 0, 0, -1)},
				&netlink.Vlan{LinkAttrs: attrs(6, "wbond.7", 9, 5, -1)}, bridge(9, "wbr"), nic(3, "w2", 9),
			},
			map[string]int{"w0": 0, "w1": 0, "wbond": 1, "wbond.7": 2, "wbr": 3, "w2": 0},
		},
		"what lies between is not watched": {
			[]netlink.Link{
				nic(1, "w0", 5), &netlink.Bond{LinkAttrs: attrs(5, "bond", 0, 0, -1)},
				&netlink.Vlan{LinkAttrs: attrs(6, "bond.7", 9, 5, -1)}, bridge(9, "wbr"),
			},
			map[string]int{"w0": 0, "wbr": 1},
		},
		"the wire is in another namespace": {
			[]netlink.Link{&netlink.Macvlan{LinkAttrs: attrs(1, "w0", 0, 4, 2)}, nic(4, "w4", 0)},
			map[string]int{"w0": 0, "w4": 0},
		},
		"tunnel": {
			[]netlink.Link{nic(1, "w0", 0), &netlink.Vxlan{LinkAttrs: attrs(2, "wvx", 0, 0, -1)}},
			map[string]int{"w0": 0, "wvx": overlayHeight},
		},
		"a pair within this namespace, as between two bridges": {
			[]netlink.Link{
				&netlink.Veth{LinkAttrs: attrs(1, "w0", 8, 2, -1)}, &netlink.Veth{LinkAttrs: attrs(2, "w1", 9, 1, -1)},
				bridge(8, "wbr8"), bridge(9, "wbr9"), nic(3, "w3", 9),
			},
			map[string]int{"w0": overlayHeight, "w1": overlayHeight, "wbr8": overlayHeight + 1, "wbr9": overlayHeight + 1, "w3": 0},
		},
		"contradictory news": { // each is told of at another time
			[]netlink.Link{bridge(1, "w0"), nic(1, "w0", 2), nic(2, "w1", 1)}, nil,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := map[string]int{}
			for _, d := range stock(tt.links...).devices().byIndex {
				got[d.Name] = d.Height
			}
			if tt.heights != nil { // else it is enough to come here
				assert.Equal(t, tt.heights, got)
			}
		})
	}
}

func TestWhoFacesAnEndpoint(t *testing.T) {
	pair := func(peerNetns int) netlink.Link {
		return &netlink.Veth{LinkAttrs: attrs(1, "w0", 0, 2, peerNetns)}
	}
	tests := map[string]struct {
		link      netlink.Link
		addresses []string
		want      bool
	}{
		"veth of a pod":                {pair(0), nil, true},
		"veth with a gateway's /32":    {pair(0), []string{"10.244.0.1/32", "fe80::1/64"}, true},
		"veth of a containerized host": {pair(0), []string{"172.18.0.2/16"}, false},
		"the same, IPv6":               {pair(0), []string{"fc00::2/64"}, false},
		"veth with both ends here":     {pair(-1), nil, false},
		"netkit of a pod":              {&netlink.Netkit{LinkAttrs: attrs(1, "w0", 0, 2, 3)}, nil, true},
		"macvlan of a container":       {&netlink.Macvlan{LinkAttrs: attrs(1, "w0", 0, 2, 3)}, nil, false},
		"NIC":                          {&netlink.Device{LinkAttrs: attrs(1, "w0", 0, 0, -1)}, nil, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v := stock(tt.link)
			for _, a := range tt.addresses {
				v.address(1, netip.MustParsePrefix(a), true)
			}
			assert.Equal(t, tt.want, v.devices().Get(1).Endpoint)
			for _, a := range tt.addresses {
				v.address(1, netip.MustParsePrefix(a), false)
				v.address(2, netip.MustParsePrefix(a), false) // of an interface that nobody knows
			}
			assert.Empty(t, v.devices().local)
		})
	}
}

func TestLocalAddresses(t *testing.T) {
	v := stock()
	v.address(1, netip.MustParsePrefix("192.168.0.1/24"), true)
	v.address(2, netip.MustParsePrefix("fd00::1/64"), true)
	d := v.devices()
	for addr, want := range map[string]bool{
		"192.168.0.1": true, "192.168.0.2": false, "fd00::1": true, "fd00::2": false, "127.1.2.3": true, "::1": true,
		"224.0.0.251": true, "ff02::1": true, "255.255.255.255": true, "0.0.0.0": true, "::": true, "8.8.8.8": false,
	} {
		assert.Equal(t, want, d.IsLocal(netip.MustParseAddr(addr)), addr)
	}
}

func TestWhatIsGoneIsKnownUntilItsPacketsAreDrained(t *testing.T) {
	v := stock(&netlink.Device{LinkAttrs: attrs(1, "w0", 0, 0, -1)}, &netlink.Bridge{LinkAttrs: attrs(9, "w9", 0, 0, -1)})
	w := &Interfaces{known: *v, engine: newEngine(t, nil)}
	require.NoError(t, w.engine.objs.Interfaces.Put(uint32(1), make([]byte, 4)))
	w.remove(1)
	w.remove(1) // told of twice
	assert.Equal(t, "w0", w.Devices().Get(1).Name)
	w.Forget()
	assert.Equal(t, "w0", w.Devices().Get(1).Name, "an overflow event may still be on its way")
	w.Forget()
	assert.Empty(t, w.Devices().Get(1).Name)
	assert.EqualValues(t, 1, w.Devices().Get(1).Index)
	assert.Equal(t, "w9", w.Devices().Get(9).Name)
}
