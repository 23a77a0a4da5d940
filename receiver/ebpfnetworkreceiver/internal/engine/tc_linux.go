package engine

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tcHook attaches a pair of programs to an interface's ingress and egress, never instead of other people's. They come first
// on both sides: whoever comes after a program that accepts a packet for good (TC_ACT_OK, as Cilium's do) never sees it. So
// what goes out is counted even if another program then drops it or sends it elsewhere.
type tcHook interface {
	attach(ifindex int, ingress, egress *ebpf.Program) (attachment, error)
}

// attachment is a pair of attached programs.
type attachment interface {
	// swap exchanges the programs; no packet passes without.
	swap(ingress, egress *ebpf.Program) error
	Close() error
}

// HookTCX and HookClsact are the two ways to a tc program.
const (
	HookTCX    = "tcx"
	HookClsact = "clsact"
)

func newTCHook(name string) (tcHook, error) {
	switch name {
	case HookTCX:
		return tcxHook{}, nil
	case HookClsact:
		return clsactHook{}, nil
	case "":
		return newTCHook(defaultTCHook())
	}
	return nil, fmt.Errorf("tc hook %q: use %s or %s", name, HookTCX, HookClsact)
}

// defaultTCHook asks the kernel's version: tcx came with 6.6, and there is no other way to ask without an interface.
func defaultTCHook() string {
	const linux6_6 = 6<<16 | 6<<8
	if v, err := features.LinuxVersionCode(); err == nil && v < linux6_6 {
		return HookClsact
	}
	return HookTCX
}

type tcxHook struct{}

type tcxLinks [2]link.Link

func (tcxHook) attach(ifindex int, ingress, egress *ebpf.Program) (attachment, error) {
	in, err := link.AttachTCX(link.TCXOptions{
		Interface: ifindex, Program: ingress, Attach: ebpf.AttachTCXIngress, Anchor: link.Head(),
	})
	if err != nil {
		return nil, err
	}
	out, err := link.AttachTCX(link.TCXOptions{
		Interface: ifindex, Program: egress, Attach: ebpf.AttachTCXEgress, Anchor: link.Head(),
	})
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return tcxLinks{in, out}, nil
}

func (l tcxLinks) swap(ingress, egress *ebpf.Program) error {
	return errors.Join(l[0].Update(ingress), l[1].Update(egress))
}

func (l tcxLinks) Close() error { return errors.Join(l[0].Close(), l[1].Close()) }

type clsactHook struct{}

// The name and the handle are how a restarted collector finds, and replaces, what a killed one left behind: unlike a
// link, a filter outlives its process. Of filters with the same priority the newest comes first.
const (
	clsactFilterName = "orb8"
	clsactHandle     = 0x0b8
	clsactPriority   = 1
)

type clsactFilters struct {
	qdisc *netlink.GenericQdisc
	// ours says that the qdisc was added by orb8, now or before it was killed.
	ours bool
	// filters by their parent: ingress or egress.
	filters map[uint32]*netlink.BpfFilter
}

func (clsactHook) attach(ifindex int, ingress, egress *ebpf.Program) (attachment, error) {
	a := &clsactFilters{filters: map[uint32]*netlink.BpfFilter{}, qdisc: &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: ifindex, Parent: netlink.HANDLE_CLSACT, Handle: netlink.MakeHandle(0xffff, 0)},
		QdiscType:  "clsact",
	}}
	switch err := netlink.QdiscAdd(a.qdisc); {
	case err == nil:
		a.ours = true
	case errors.Is(err, unix.EEXIST):
		mine, others, err := clsactUsers(ifindex)
		if err != nil {
			return nil, err
		}
		a.ours = mine > 0 && others == 0
	default:
		return nil, fmt.Errorf("cannot add the clsact qdisc: %w", err)
	}
	if err := a.swap(ingress, egress); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *clsactFilters) swap(ingress, egress *ebpf.Program) error {
	for parent, prog := range map[uint32]*ebpf.Program{netlink.HANDLE_MIN_INGRESS: ingress, netlink.HANDLE_MIN_EGRESS: egress} {
		filter := &netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: a.qdisc.LinkIndex, Parent: parent, Handle: clsactHandle,
				Priority: clsactPriority, Protocol: unix.ETH_P_ALL},
			Fd: prog.FD(), Name: clsactFilterName, DirectAction: true,
		}
		if err := netlink.FilterReplace(filter); err != nil {
			return fmt.Errorf("cannot add a tc filter: %w", err)
		}
		a.filters[parent] = filter
	}
	return nil
}

// Close removes the filters, and the qdisc when it is ours and nobody else has come to use it.
func (a *clsactFilters) Close() error {
	var errs []error
	for _, f := range a.filters {
		errs = append(errs, netlink.FilterDel(f))
	}
	if !a.ours {
		return errors.Join(errs...)
	}
	_, others, err := clsactUsers(a.qdisc.LinkIndex)
	if err == nil && others == 0 {
		err = netlink.QdiscDel(a.qdisc)
	}
	return errors.Join(append(errs, err)...)
}

// clsactUsers counts the filters of orb8 and those of others on an interface's clsact qdisc.
func clsactUsers(ifindex int) (mine, others int, err error) {
	l := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := netlink.FilterList(l, parent)
		if err != nil {
			return 0, 0, fmt.Errorf("cannot list tc filters: %w", err)
		}
		for _, f := range filters {
			if b, ok := f.(*netlink.BpfFilter); ok && b.Name == clsactFilterName {
				mine++
			} else {
				others++
			}
		}
	}
	return mine, others, nil
}
