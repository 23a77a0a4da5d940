package ebpfmap

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// GracePeriod waits until every BPF program that was running has ended. The kernel does that (synchronize_rcu) before
// it returns from an update of a map of maps: see maybe_wait_bpf_programs in kernel/bpf/syscall.c, since Linux 4.19.
type GracePeriod struct {
	outer, inner *ebpf.Map
}

// NewGracePeriod makes the map of maps.
func NewGracePeriod() (*GracePeriod, error) {
	innerSpec := &ebpf.MapSpec{Name: "grace_inner", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	inner, err := ebpf.NewMap(innerSpec)
	if err != nil {
		return nil, fmt.Errorf("cannot create the grace period's inner map: %w", err)
	}
	outer, err := ebpf.NewMap(&ebpf.MapSpec{Name: "grace", Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1,
		InnerMap: innerSpec})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot create the grace period's map: %w", err), inner.Close())
	}
	return &GracePeriod{outer: outer, inner: inner}, nil
}

// Wait returns when every program that ran when it was called has ended.
func (g *GracePeriod) Wait() error {
	if err := g.outer.Put(uint32(0), g.inner); err != nil {
		return fmt.Errorf("cannot wait for running BPF programs: %w", err)
	}
	return nil
}

// Close removes the maps.
func (g *GracePeriod) Close() error { return errors.Join(g.outer.Close(), g.inner.Close()) }
