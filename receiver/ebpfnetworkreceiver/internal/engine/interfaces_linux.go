package engine

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/bpf/network"
)

// resubscribeDelay is how long Interfaces waits before it asks for link updates again after the kernel cut it off.
const resubscribeDelay = time.Second

// Interfaces keeps the tc programs attached to every interface that is wanted, as interfaces come and go.
type Interfaces struct {
	engine *Engine
	hook   tcHook
	wanted func(name string) bool
	// failed is told once for every interface that could not be attached to, and of lost link updates.
	failed func(error)

	done chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	attached map[int]watched
	// names outlive their interfaces, for the flows that are drained after them.
	names map[uint32]string
}

type attachment interface{ Close() error }

type watched struct {
	attachment
	peerNetns int
}

// maxStaleNames bounds the names kept of interfaces that are gone.
const maxStaleNames = 4096

// WatchInterfaces attaches to every interface of the current network namespace whose name is wanted, and follows those
// that appear later until Close. hook is tcx, clsact, or empty for tcx where the kernel has it (6.6) and clsact where not.
func (e *Engine) WatchInterfaces(hook string, wanted func(name string) bool, failed func(error)) (*Interfaces, error) {
	h, err := newTCHook(hook)
	if err != nil {
		return nil, err
	}
	w := &Interfaces{
		engine: e, hook: h, wanted: wanted, failed: failed,
		done: make(chan struct{}), attached: map[int]watched{}, names: map[uint32]string{},
	}
	// Subscribed before the list is read, so that nothing falls between the two.
	updates, err := w.subscribe()
	if err != nil {
		return nil, err
	}
	if err := w.list(); err != nil {
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
	for index, a := range w.attached {
		errs = append(errs, a.Close())
		delete(w.attached, index)
	}
	return errors.Join(errs...)
}

// Len returns how many interfaces are attached to.
func (w *Interfaces) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.attached)
}

// Name returns the name of an interface that is or was attached to.
func (w *Interfaces) Name(index uint32) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.names[index]
}

func (w *Interfaces) subscribe() (chan netlink.LinkUpdate, error) {
	updates := make(chan netlink.LinkUpdate, 256)
	err := netlink.LinkSubscribeWithOptions(updates, w.done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(err error) {
			select {
			case <-w.done: // closing the socket is an error to its reader
			default:
				w.failed(fmt.Errorf("link updates were cut off, asking anew: %w", err))
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("cannot follow network interfaces: %w", err)
	}
	return updates, nil
}

func (w *Interfaces) follow(updates chan netlink.LinkUpdate) {
	defer w.wg.Done()
	for {
		for u := range updates {
			if u.Header.Type == unix.RTM_DELLINK {
				w.remove(u.Attrs().Index)
			} else {
				w.add(u.Link)
			}
		}
		// The channel is closed when the kernel's buffer overran, or at Close.
		for updates = nil; updates == nil; {
			select {
			case <-w.done:
				return
			case <-time.After(resubscribeDelay):
			}
			var err error
			if updates, err = w.subscribe(); err != nil {
				w.failed(err)
			}
		}
		if err := w.list(); err != nil {
			w.failed(err)
		}
	}
}

// list attaches to what is there and lets go of what is not.
func (w *Interfaces) list() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("cannot list network interfaces: %w", err)
	}
	present := make(map[int]bool, len(links))
	for _, l := range links {
		present[l.Attrs().Index] = true
		w.add(l)
	}
	w.mu.Lock()
	var gone []int
	for index := range w.attached {
		if !present[index] {
			gone = append(gone, index)
		}
	}
	w.mu.Unlock()
	for _, index := range gone {
		w.remove(index)
	}
	return nil
}

func (w *Interfaces) add(l netlink.Link) {
	attrs := l.Attrs()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.wanted(attrs.Name) {
		return
	}
	if old, ok := w.attached[attrs.Index]; ok {
		if old.peerNetns == attrs.NetNsID {
			return
		}
		// The other end has moved into a pod: from now on its packets have another direction.
		delete(w.attached, attrs.Index)
		if err := old.Close(); err != nil {
			w.failed(fmt.Errorf("cannot attach anew to interface %s: %w", attrs.Name, err))
		}
	}
	if err := w.attach(attrs); err != nil {
		// An interface that is already gone again is none of ours.
		if !errors.Is(err, unix.ENODEV) {
			w.failed(fmt.Errorf("cannot attach to interface %s: %w", attrs.Name, err))
		}
		return
	}
	if len(w.names) > maxStaleNames+len(w.attached) {
		for index := range w.names {
			if _, ok := w.attached[int(index)]; !ok {
				delete(w.names, index)
			}
		}
	}
	w.names[uint32(attrs.Index)] = attrs.Name
}

// attach puts the programs on one interface. On a veth whose other end is in another namespace, what comes in was sent
// by the endpoint behind it, a pod; on any other interface the endpoint is this host, and what comes in is for it.
func (w *Interfaces) attach(attrs *netlink.LinkAttrs) error {
	in, out := w.engine.objs.TcToEndpoint, w.engine.objs.TcFromEndpoint
	if attrs.NetNsID >= 0 {
		in, out = out, in
	}
	dev := network.NetworkInterface{PeerNetns: int32(attrs.NetNsID)}
	if err := w.engine.objs.Interfaces.Put(uint32(attrs.Index), &dev); err != nil {
		return err
	}
	a, err := w.hook.attach(attrs.Index, in, out)
	if err != nil {
		return errors.Join(err, w.engine.objs.Interfaces.Delete(uint32(attrs.Index)))
	}
	w.attached[attrs.Index] = watched{a, attrs.NetNsID}
	return nil
}

func (w *Interfaces) remove(index int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a, ok := w.attached[index]
	if !ok {
		return
	}
	delete(w.attached, index)
	// The kernel took the programs off with the interface; this lets go of the link objects.
	err := errors.Join(a.Close(), w.engine.objs.Interfaces.Delete(uint32(index)))
	if err != nil && !errors.Is(err, unix.ENODEV) {
		w.failed(fmt.Errorf("cannot let go of interface %s: %w", w.names[uint32(index)], err))
	}
}
