package engine

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/orb8/orb8/bpf/network"
)

// owners marks sockets with the process that made them, in socket storage that lives and dies with each socket.
type owners struct {
	sockets *ebpf.Map
	objs    network.OwnerObjects
	links   []link.Link
	// pid is this process's id in the first pid namespace; 0 when err is set.
	pid uint32
	err error
}

func newOwners(sockets *ebpf.Map, cgroupPath string) *owners {
	o := &owners{sockets: sockets}
	if o.err = o.start(cgroupPath); o.err != nil {
		o.pid = 0
	}
	return o
}

func (o *owners) start(cgroupPath string) error {
	if cgroupPath == "" {
		return errors.New("there is no cgroup v2 hierarchy to follow new sockets with")
	}
	if err := network.LoadOwnerObjects(&o.objs, &ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{"owners": o.sockets},
	}); err != nil {
		return fmt.Errorf("cannot load the programs that name sockets (Linux 5.11 or later with BTF): %w", err)
	}
	if _, err := o.objs.Whoami.Run(&ebpf.RunOptions{}); err != nil {
		return fmt.Errorf("cannot learn the own process id: %w", err)
	}
	if err := o.objs.OwnPid.Get(&o.pid); err != nil {
		return fmt.Errorf("cannot read the own process id: %w", err)
	}
	// New sockets first: one that is made meanwhile is then marked by either.
	for _, a := range []struct {
		prog *ebpf.Program
		hook ebpf.AttachType
	}{
		{o.objs.SockCreate, ebpf.AttachCGroupInetSockCreate},
		{o.objs.PostBind4, ebpf.AttachCGroupInet4PostBind},
		{o.objs.PostBind6, ebpf.AttachCGroupInet6PostBind},
	} {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroupPath, Attach: a.hook, Program: a.prog})
		if err != nil {
			return fmt.Errorf("cannot follow new sockets of cgroup %s: %w", cgroupPath, err)
		}
		o.links = append(o.links, l)
	}
	return o.markExisting()
}

func (o *owners) markExisting() error {
	it, err := link.AttachIter(link.IterOptions{Program: o.objs.ExistingSockets})
	if err != nil {
		return fmt.Errorf("cannot iterate over open sockets: %w", err)
	}
	defer it.Close()
	r, err := it.Open()
	if err != nil {
		return fmt.Errorf("cannot open the iterator over open sockets: %w", err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("cannot read the iterator over open sockets: %w", err)
	}
	return nil
}

func (o *owners) close() error {
	var errs []error
	for _, l := range o.links {
		errs = append(errs, l.Close())
	}
	return errors.Join(append(errs, o.objs.Close(), o.sockets.Close())...)
}
