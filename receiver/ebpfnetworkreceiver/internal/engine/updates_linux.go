package engine

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// resubscribeDelay is how long Interfaces waits when the kernel has refused it its updates.
const resubscribeDelay = time.Second

// updates is a subscription to changes of interfaces and addresses. The kernel ends it, closing a channel, when its buffer
// has overrun.
type updates struct {
	links chan netlink.LinkUpdate
	addrs chan netlink.AddrUpdate
	done  chan struct{}
}

func (w *Interfaces) subscribe() (*updates, error) {
	u := &updates{links: make(chan netlink.LinkUpdate), addrs: make(chan netlink.AddrUpdate), done: make(chan struct{})}
	err := netlink.LinkSubscribeWithOptions(u.links, u.done, netlink.LinkSubscribeOptions{
		ReceiveBufferSize: w.receiveBuffer, ReceiveBufferForceSize: true,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot follow network interfaces: %w", err)
	}
	err = netlink.AddrSubscribeWithOptions(u.addrs, u.done, netlink.AddrSubscribeOptions{
		ReceiveBufferSize: w.receiveBuffer, ReceiveBufferForceSize: true,
	})
	if err != nil {
		close(u.addrs)
		u.close()
		return nil, fmt.Errorf("cannot follow network addresses: %w", err)
	}
	return u, nil
}

// close ends the subscription and waits until nothing more comes.
func (u *updates) close() {
	close(u.done)
	for range u.links {
	}
	for range u.addrs {
	}
}

// begin subscribes and then takes stock, in this order, so that nothing falls between the two.
func (w *Interfaces) begin() (*updates, error) {
	u, err := w.subscribe()
	if err != nil {
		return nil, err
	}
	if err := w.list(); err != nil {
		u.close()
		return nil, err
	}
	return u, nil
}

// follow applies updates until Close. When the kernel has cut them off, it takes stock anew.
func (w *Interfaces) follow(u *updates) {
	defer w.wg.Done()
	for w.apply(u) {
		u.close()
		w.failed(fmt.Errorf("more interfaces changed at once than a buffer of %d bytes holds: taking stock anew", w.receiveBuffer))
		if u = w.beginAgain(); u == nil {
			return
		}
	}
	u.close()
}

// apply returns true when the subscription was cut off, and false at Close.
func (w *Interfaces) apply(u *updates) bool {
	for {
		select {
		case <-w.done:
			return false
		case l, ok := <-u.links:
			switch {
			case !ok:
				return true
			case l.Family != unix.AF_UNSPEC:
				// A bridge telling of its port. The interface is not gone when it ceases to be one.
			case l.Header.Type == unix.RTM_DELLINK:
				w.remove(l.Attrs().Index)
			default:
				w.update(l.Link)
			}
		case a, ok := <-u.addrs:
			if !ok {
				return true
			}
			w.readdress(a)
		}
	}
}

// beginAgain tries until it succeeds; it returns nil at Close.
func (w *Interfaces) beginAgain() *updates {
	for {
		u, err := w.begin()
		if err == nil {
			return u
		}
		w.failed(err)
		select {
		case <-w.done:
			return nil
		case <-time.After(resubscribeDelay):
		}
	}
}
