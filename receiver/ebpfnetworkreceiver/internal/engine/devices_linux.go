package engine

import (
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Devices is what was known of interfaces and addresses at one time. It does not change.
type Devices struct {
	byIndex map[uint32]*Device
	local   map[netip.Addr]struct{}
}

// NewDevices knows the interfaces that are watched and the addresses of this host.
func NewDevices(watched []Device, local []netip.Addr) *Devices {
	d := &Devices{byIndex: make(map[uint32]*Device, len(watched)), local: make(map[netip.Addr]struct{}, len(local))}
	for i := range watched {
		d.byIndex[watched[i].Index] = &watched[i]
	}
	for _, addr := range local {
		d.local[addr] = struct{}{}
	}
	return d
}

// Device is an interface that is watched, or was.
type Device struct {
	Index uint32
	Name  string
	// Endpoint tells that an endpoint in another network namespace, a pod, is at the other end: what comes in was sent by
	// it, and what goes out is for it.
	Endpoint bool
	// Height is how many watched interfaces lie between this one and the wire. A packet passes a wire once; an interface
	// that is stacked on others (bridge, bond, VLAN) repeats what they saw.
	Height int
}

// Get returns the device with this index. Of one that was never watched, or is long gone, it knows the index alone.
func (d *Devices) Get(index uint32) *Device {
	if dev, ok := d.byIndex[index]; ok {
		return dev
	}
	return &Device{Index: index}
}

// IsLocal tells whether packets for this address are for this host. Those for many (multicast, limited broadcast) are.
func (d *Devices) IsLocal(addr netip.Addr) bool {
	if addr.IsLoopback() || addr.IsMulticast() || addr.IsUnspecified() || addr == broadcast {
		return true
	}
	_, ok := d.local[addr]
	return ok
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// inventory is all that netlink has told: every interface, for those that are not watched may lie between two that are,
// and every address. It is not safe for concurrent use.
type inventory struct {
	interfaces map[int]*iface
	// addresses are those of each interface, with their subnets.
	addresses map[int]map[netip.Prefix]struct{}
}

// iface is an interface of this network namespace.
type iface struct {
	name, kind string
	// parent and master are indexes, 0 for none: what this one is stacked on (VLAN), and what is stacked on this one (the
	// bridge of a port). peerNetns is the id of the namespace where the parent is, or the other end of a pair; -1: this one.
	parent, master int
	peerNetns      int
	// attached is nil while the interface is not watched. facing tells which programs it has: see flow_key in bpf/network.
	attached attachment
	facing   bool
	// gone counts the calls to Forget since the interface went; 0 while it is there.
	gone int
}

func newInventory() inventory {
	return inventory{interfaces: map[int]*iface{}, addresses: map[int]map[netip.Prefix]struct{}{}}
}

// address takes what netlink tells of an address.
func (v *inventory) address(index int, prefix netip.Prefix, present bool) {
	of := v.addresses[index]
	switch {
	case !present:
		delete(of, prefix)
	case of == nil:
		v.addresses[index] = map[netip.Prefix]struct{}{prefix: {}}
	default:
		of[prefix] = struct{}{}
	}
}

// set takes what netlink tells of an interface.
func (v *inventory) set(l netlink.Link) *iface {
	attrs := l.Attrs()
	i := v.interfaces[attrs.Index]
	if i == nil {
		i = &iface{peerNetns: -1}
		v.interfaces[attrs.Index] = i
	}
	i.name, i.kind = attrs.Name, l.Type()
	i.master = attrs.MasterIndex
	// A pair whose other end is gone goes too. Until then, and while its packets are drained, it is what it was.
	if !i.isPair() || attrs.ParentIndex != 0 {
		i.parent, i.peerNetns = attrs.ParentIndex, attrs.NetNsID
	}
	i.gone = 0
	return i
}

// isPair tells whether the interface is one of two ends, rather than stacked on its parent.
func (i *iface) isPair() bool { return i.kind == "veth" || i.kind == "netkit" }

// isOverlay tells whether the interface carries packets that others carry too: inside of their own, or from the other end
// of a pair that is here as well.
func (i *iface) isOverlay() bool {
	switch i.kind {
	case "vxlan", "geneve", "gre", "gretap", "ip6gre", "ip6gretap", "ipip", "ip6tnl", "sit", "erspan":
		return true
	}
	return i.isPair() && i.peerNetns < 0 && i.parent != 0
}

// facesEndpoint tells whether an endpoint is at the other end of a pair. A pair with a subnet of its own on this end is
// none: it is how this host, itself in a namespace (kind, other labs), is reached.
func (v *inventory) facesEndpoint(index int) bool {
	i := v.interfaces[index]
	if !i.isPair() || i.peerNetns < 0 {
		return false
	}
	for p := range v.addresses[index] {
		if !p.IsSingleIP() && !p.Addr().IsLinkLocalUnicast() {
			return false
		}
	}
	return true
}

// overlayHeight is above any stack.
const overlayHeight = 1 << 10

// devices takes stock of the watched interfaces.
func (v *inventory) devices() *Devices {
	var local []netip.Addr
	for _, of := range v.addresses {
		for p := range of {
			local = append(local, p.Addr())
		}
	}
	below := map[int][]int{}
	for index, i := range v.interfaces {
		if i.master != 0 {
			below[i.master] = append(below[i.master], index)
		}
		if i.parent != 0 && i.peerNetns < 0 && !i.isPair() {
			below[index] = append(below[index], i.parent)
		}
	}
	var watched []Device
	heights := map[int]int{}
	for index, i := range v.interfaces {
		if i.attached == nil && i.gone == 0 {
			continue
		}
		watched = append(watched, Device{
			Index: uint32(index), Name: i.name, Endpoint: v.facesEndpoint(index), Height: v.height(index, below, heights),
		})
	}
	return NewDevices(watched, local)
}

// height is the number of watched interfaces that an interface is stacked on, along the longest way down.
func (v *inventory) height(index int, below map[int][]int, known map[int]int) int {
	if h, ok := known[index]; ok {
		return h
	}
	known[index] = 0 // the kernel stacks no interface on itself, but what netlink tells may be of two times
	h := 0
	if i := v.interfaces[index]; i != nil && i.isOverlay() {
		h = overlayHeight
	}
	for _, lower := range below[index] {
		own := 0
		if i := v.interfaces[lower]; i != nil && (i.attached != nil || i.gone > 0) {
			own = 1
		}
		h = max(h, v.height(lower, below, known)+own)
	}
	known[index] = h
	return h
}
