package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/bpf/network"
)

// Interfaces keeps the tc programs attached to every interface that is wanted, as interfaces come and go.
type Interfaces struct {
	engine *Engine
	hook   tcHook
	wanted func(name string) bool
	// failed is told once for every interface that could not be attached to, and of lost updates.
	failed func(error)
	// receiveBuffer is the size of the netlink sockets' receive buffers in bytes.
	receiveBuffer int

	done chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	known inventory
	// devices is what is known as Devices hands it out; nil when it has to be made anew.
	devices *Devices
}

// receiveBuffer holds the updates of some thousand interfaces that come at once.
const receiveBuffer = 8 << 20

// WatchInterfaces attaches to every interface of the current network namespace whose name is wanted, and follows those
// that appear later until Close. hook is tcx, clsact, or empty for tcx where the kernel has it (6.6) and clsact where not.
func (e *Engine) WatchInterfaces(hook string, wanted func(name string) bool, failed func(error)) (*Interfaces, error) {
	return e.watchInterfaces(hook, wanted, failed, receiveBuffer)
}

func (e *Engine) watchInterfaces(hook string, wanted func(name string) bool, failed func(error), buffer int) (*Interfaces, error) {
	h, err := newTCHook(hook)
	if err != nil {
		return nil, err
	}
	w := &Interfaces{
		engine: e, hook: h, wanted: wanted, failed: failed, receiveBuffer: buffer,
		done: make(chan struct{}), known: newInventory(),
	}
	updates, err := w.begin()
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	w.wg.Add(1)
	go w.follow(updates)
	return w, nil
}

// Close takes the programs off all interfaces.
func (w *Interfaces) Close() error {
	close(w.done)
	w.wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for index, i := range w.known.interfaces {
		errs = append(errs, w.detach(index, i))
	}
	return errors.Join(errs...)
}

// Len returns how many interfaces are attached to.
func (w *Interfaces) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, i := range w.known.interfaces {
		if i.attached != nil {
			n++
		}
	}
	return n
}

// Devices returns what is known now.
func (w *Interfaces) Devices() *Devices {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.devices == nil {
		w.devices = w.known.devices()
	}
	return w.devices
}

// forgetAfter is how many calls to Forget an interface that is gone stays known for: its last packets are in the flow
// table until the first, and may be on their way through the ring buffer until the second.
const forgetAfter = 2

// Forget is to be called after each drain: it lets go of what is known of interfaces that were gone before it.
func (w *Interfaces) Forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for index, i := range w.known.interfaces {
		if i.gone == 0 {
			continue
		}
		if i.gone++; i.gone > forgetAfter {
			delete(w.known.interfaces, index)
			w.devices = nil
		}
	}
}

// list takes stock: it attaches to what is there and lets go of what is not.
func (w *Interfaces) list() error {
	links, err := netlink.LinkList()
	// A list that changes while it is read may lack what changed, and that comes as an update.
	complete := err == nil
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("cannot list network interfaces: %w", err)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("cannot list network addresses: %w", err)
	}
	w.mu.Lock()
	if complete && err == nil {
		clear(w.known.addresses)
	}
	for _, a := range addrs {
		if prefix, ok := prefixOf(a.IPNet.IP, a.IPNet.Mask); ok {
			w.known.address(a.LinkIndex, prefix, true)
		}
	}
	w.mu.Unlock()

	present := make(map[int]bool, len(links))
	for _, l := range links {
		present[l.Attrs().Index] = true
		w.update(l)
	}
	if !complete {
		return nil
	}
	w.mu.Lock()
	var gone []int
	for index, i := range w.known.interfaces {
		if !present[index] && i.gone == 0 {
			gone = append(gone, index)
		}
	}
	w.mu.Unlock()
	for _, index := range gone {
		w.remove(index)
	}
	return nil
}

// update takes what netlink tells of an interface, and attaches to it if it is wanted.
func (w *Interfaces) update(l netlink.Link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.devices = nil
	index := l.Attrs().Index
	i := w.known.set(l)
	if !w.wanted(i.name) {
		if err := w.detach(index, i); err != nil {
			w.failed(fmt.Errorf("cannot let go of interface %s: %w", i.name, err))
		}
		return
	}
	w.attach(index, i)
}

// readdress takes what netlink tells of an address.
func (w *Interfaces) readdress(u netlink.AddrUpdate) {
	prefix, ok := prefixOf(u.LinkAddress.IP, u.LinkAddress.Mask)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.devices = nil
	w.known.address(u.LinkIndex, prefix, u.NewAddr)
	if i := w.known.interfaces[u.LinkIndex]; i != nil && i.attached != nil {
		w.attach(u.LinkIndex, i)
	}
}

func prefixOf(ip []byte, mask []byte) (netip.Prefix, bool) {
	addr, ok := netip.AddrFromSlice(ip)
	ones := 0
	for _, b := range mask {
		for ; b&0x80 != 0; b <<= 1 {
			ones++
		}
	}
	return netip.PrefixFrom(addr.Unmap(), ones), ok
}

// attach puts on an interface the programs that it is to have, or exchanges them when it has come to face an endpoint, or
// ceased to: a pair's far end is often moved into the pod when it has been there for a while.
func (w *Interfaces) attach(index int, i *iface) {
	facing := w.known.facesEndpoint(index)
	dev := network.NetworkInterface{PeerNetns: -1}
	in, out := w.engine.objs.TcToHost, w.engine.objs.TcFromHost
	if facing {
		dev.PeerNetns = int32(i.peerNetns)
		in, out = w.engine.objs.TcFromEndpoint, w.engine.objs.TcToEndpoint
	}
	if i.attached != nil && i.facing == facing {
		return
	}
	err := w.engine.objs.Interfaces.Put(uint32(index), &dev)
	switch {
	case err != nil:
	case i.attached != nil:
		err = i.attached.swap(in, out)
	default:
		i.attached, err = w.hook.attach(index, in, out)
	}
	i.facing = facing
	if err != nil && !isGone(err) {
		w.failed(fmt.Errorf("cannot attach to interface %s: %w", i.name, err))
	}
}

// detach lets go of an interface; the kernel has taken the programs off one that is gone.
func (w *Interfaces) detach(index int, i *iface) error {
	if i.attached == nil {
		return nil
	}
	err := errors.Join(i.attached.Close(), w.engine.objs.Interfaces.Delete(uint32(index)))
	i.attached = nil
	if isGone(err) {
		return nil
	}
	return err
}

// isGone tells whether the reason is that there is no such interface any more: that is no failure.
func isGone(err error) bool { return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOLINK) }

func (w *Interfaces) remove(index int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := w.known.interfaces[index]
	if i == nil || i.gone > 0 {
		return
	}
	w.devices = nil
	delete(w.known.addresses, index)
	if i.attached == nil {
		delete(w.known.interfaces, index)
		return
	}
	i.gone = 1
	if err := w.detach(index, i); err != nil {
		w.failed(fmt.Errorf("cannot let go of interface %s: %w", i.name, err))
	}
}
