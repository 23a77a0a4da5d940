package engine

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/ebpfmap"
	"github.com/orb8/orb8/internal/flow"
)

// reasonMissed stands for packets that could not be looked at, because the kernel dropped them on a CPU that was at that
// moment looking at another one.
const reasonMissed = "missed"

// Drops counts the packets that the kernel drops, by reason, flow and cgroup. It is for one goroutine.
type Drops struct {
	objs    network.DropsObjects
	link    link.Link
	grace   *ebpfmap.GracePeriod
	reasons reasons

	generation uint32
	table      ebpfmap.Drainer[network.DropsDropKey, uint64]
	// undetailed and missed are the kernel's sums as of the last Drain.
	undetailed map[uint32]uint64
	missed     uint64
}

// NewDrops attaches to the tracepoint skb:kfree_skb. It needs BTF, and Linux 5.17, where the tracepoint learned to give
// reasons.
func NewDrops() (*Drops, error) {
	d := &Drops{undetailed: map[uint32]uint64{}}
	if err := d.start(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Drops) start() error {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("cannot read the kernel's types: %w", err)
	}
	const withReason, withReceiver = 3, 4
	args, err := tracepointArguments(kernel, "kfree_skb")
	if err != nil {
		return err
	}
	if args < withReason {
		return errors.New("the tracepoint skb:kfree_skb gives no reason; use Linux 5.17 or later")
	}
	if d.reasons, err = readReasons(kernel); err != nil {
		return err
	}
	spec, err := network.LoadDrops()
	if err != nil {
		return fmt.Errorf("cannot read the program that counts drops: %w", err)
	}
	if err := spec.Variables["has_receiver"].Set(args >= withReceiver); err != nil {
		return fmt.Errorf("cannot set the constants of the program that counts drops: %w", err)
	}
	if err := spec.LoadAndAssign(&d.objs, nil); err != nil {
		return fmt.Errorf("cannot load the program that counts drops: %w", err)
	}
	if d.grace, err = ebpfmap.NewGracePeriod(); err != nil {
		return err
	}
	d.link, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "kfree_skb", Program: d.objs.Dropped})
	if err != nil {
		return fmt.Errorf("cannot attach to the tracepoint skb:kfree_skb: %w", err)
	}
	return nil
}

// Drain hands to yield what was dropped since the last Drain. Time is left to the caller. Drops that the kernel had no
// room to detail have a reason alone.
func (d *Drops) Drain(yield func(*flow.Drop)) error {
	old := d.objs.Drops0
	if d.generation == 1 {
		old = d.objs.Drops1
	}
	if err := d.objs.Generation.Set(d.generation ^ 1); err != nil {
		return fmt.Errorf("cannot flip the table of drops: %w", err)
	}
	d.generation ^= 1
	if err := d.grace.Wait(); err != nil {
		return err
	}
	if _, err := d.table.Drain(old, func(k *network.DropsDropKey, packets *uint64) {
		yield(d.drop(k, *packets))
	}); err != nil {
		return err
	}
	return errors.Join(d.drainUndetailed(yield), d.drainMissed(yield))
}

func (d *Drops) drop(k *network.DropsDropKey, packets uint64) *flow.Drop {
	drop := &flow.Drop{Reason: d.reasons.name(k.Reason), Packets: packets, CgroupID: k.CgroupId}
	if k.Ip != 0 {
		drop.Transport = flow.Transport(k.Transport)
		drop.Source = netip.AddrPortFrom(netip.AddrFrom16(k.Saddr).Unmap(), k.Sport)
		drop.Destination = netip.AddrPortFrom(netip.AddrFrom16(k.Daddr).Unmap(), k.Dport)
	}
	return drop
}

func (d *Drops) drainUndetailed(yield func(*flow.Drop)) error {
	var reason uint32
	var perCPU []uint64
	entries := d.objs.Undetailed.Iterate()
	for entries.Next(&reason, &perCPU) {
		var sum uint64
		for _, n := range perCPU {
			sum += n
		}
		if more := sum - d.undetailed[reason]; more > 0 {
			yield(&flow.Drop{Reason: d.reasons.name(reason), Packets: more})
			d.undetailed[reason] = sum
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("cannot read the drops without details: %w", err)
	}
	return nil
}

// Programs are structs of bpf2go with the programs that count drops.
func (d *Drops) Programs() []any { return []any{&d.objs.DropsPrograms} }

func (d *Drops) drainMissed(yield func(*flow.Drop)) error {
	stats, err := d.objs.Dropped.Stats()
	if err != nil {
		return fmt.Errorf("cannot read how often the program that counts drops was passed over: %w", err)
	}
	if more := stats.RecursionMisses - d.missed; more > 0 {
		yield(&flow.Drop{Reason: reasonMissed, Packets: more})
		d.missed = stats.RecursionMisses
	}
	return nil
}

// Close takes the program off and unloads it.
func (d *Drops) Close() error {
	var errs []error
	if d.link != nil {
		errs = append(errs, d.link.Close())
	}
	if d.grace != nil {
		errs = append(errs, d.grace.Close())
	}
	return errors.Join(append(errs, d.objs.Close())...)
}
