package engine

import (
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/testutil"
)

// The verdicts of other people's programs.
const (
	actUnspec   = -1
	actOK       = 0
	actShot     = 2
	actRedirect = 7
)

// foreign is a program that counts what it sees and then says what becomes of it, as Cilium's and netobserv's do.
type foreign struct {
	prog *ebpf.Program
	seen *ebpf.Map
}

// newForeign makes one; redirected packets leave by the interface to.
func newForeign(t *testing.T, verdict int, to int) *foreign {
	t.Helper()
	seen, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, seen.Close()) })
	code := asm.Instructions{
		asm.LoadMapValue(asm.R1, seen.FD(), 0),
		asm.Mov.Imm(asm.R2, 1),
		asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
	}
	if verdict == actRedirect {
		code = append(code, asm.Mov.Imm(asm.R1, int32(to)), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call())
	} else {
		code = append(code, asm.Mov.Imm(asm.R0, int32(verdict)))
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, Instructions: append(code, asm.Return()), License: "GPL"})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, prog.Close()) })
	return &foreign{prog, seen}
}

// attach does what its owner would, at both sides of an interface. priority is that of clsact: 1 is what Cilium takes.
func (f *foreign) attach(t *testing.T, hook string, ifindex int, priority uint16) {
	t.Helper()
	if hook == HookTCX {
		for _, side := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: f.prog, Attach: side})
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, l.Close()) })
		}
		return
	}
	err := netlink.QdiscAdd(&netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Parent: netlink.HANDLE_CLSACT, Handle: netlink.MakeHandle(0xffff, 0),
	}})
	if err != nil {
		require.ErrorIs(t, err, unix.EEXIST)
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		require.NoError(t, netlink.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: ifindex, Parent: parent, Handle: 1, Priority: priority, Protocol: unix.ETH_P_ALL},
			Fd:          f.prog.FD(), Name: "foreign", DirectAction: true,
		}))
	}
}

func (f *foreign) count(t *testing.T) (n uint64) {
	t.Helper()
	require.NoError(t, f.seen.Lookup(uint32(0), &n))
	return n
}

// Other people's programs see what they saw, and their word holds; orb8 sees all that comes in, and all that is sent, even
// what they then drop or send elsewhere.
func TestOtherProgramsKeepWorking(t *testing.T) {
	if !inNewNamespace(t) {
		return
	}
	const n = 5
	verdicts := map[string]int{"next": actUnspec, "ok": actOK, "drop": actShot, "redirect": actRedirect}
	for _, hook := range []string{HookTCX, HookClsact} {
		for _, order := range []string{"before orb8", "after orb8"} {
			for name, verdict := range verdicts {
				t.Run(hook+"/"+order+"/"+name, func(t *testing.T) {
					testutil.Require(t, "tcx", hook != HookTCX || defaultTCHook() == HookTCX, "tcx needs Linux 6.6")
					testCoexistence(t, hook, order == "before orb8", verdict, n)
				})
			}
		}
	}
}

func testCoexistence(t *testing.T, hook string, foreignFirst bool, verdict, n int) {
	p := newPod(t)
	outside, inside := p.plug(t, "veth0")
	elsewhere, _ := p.plug(t, "veth1")
	f := newForeign(t, verdict, elsewhere)
	if foreignFirst {
		f.attach(t, hook, outside, 1)
	}
	e := newEngine(t, nil)
	w, err := e.WatchInterfaces(hook, func(name string) bool { return name == "veth0" }, fails(t))
	require.NoError(t, err)
	stop := sync.OnceValue(w.Close)
	t.Cleanup(func() { assert.NoError(t, stop()) })
	if !foreignFirst {
		f.attach(t, hook, outside, 2)
	}

	host := packetSocket(t)
	defer unix.Close(host)
	transmit(t, p.socket, inside, n) // comes in by veth0
	require.Eventually(t, func() bool { return f.count(t) == uint64(n) }, 5*time.Second, time.Millisecond)
	transmit(t, host, outside, n) // goes out by veth0
	require.Eventually(t, func() bool { return f.count(t) == uint64(2*n) }, 5*time.Second, time.Millisecond)

	arrived := func(name string) uint64 {
		l, err := p.handle.LinkByName(name)
		require.NoError(t, err)
		return l.Attrs().Statistics.RxPackets
	}
	want := map[int]struct{ veth0, veth1 int }{actUnspec: {n, 0}, actOK: {n, 0}, actShot: {0, 0}, actRedirect: {0, 2 * n}}[verdict]
	require.Eventually(t, func() bool {
		return arrived("pod-veth0") == uint64(want.veth0) && arrived("pod-veth1") == uint64(want.veth1)
	}, 5*time.Second, time.Millisecond, "the verdict does not hold: %d, %d", arrived("pod-veth0"), arrived("pod-veth1"))

	counted := map[uint8]uint64{}
	for k, flow := range e.drained(t) {
		counted[k.Direction] += flow.Packets
	}
	const ingress, egress = 1, 2
	assert.Equal(t, map[uint8]uint64{ingress: uint64(n), egress: uint64(n)}, counted)

	require.NoError(t, stop())
	transmit(t, p.socket, inside, n)
	require.Eventually(t, func() bool { return f.count(t) == uint64(3*n) }, 5*time.Second, time.Millisecond, "taken off with orb8")
	assert.Empty(t, e.drained(t))
	for _, name := range []string{"veth0", "veth1"} {
		l, err := netlink.LinkByName(name)
		require.NoError(t, err)
		require.NoError(t, netlink.LinkDel(l))
	}
}

// The far end of a pair moves while packets pass: the programs are exchanged, and none passes uncounted.
func TestSwapLeavesNoGap(t *testing.T) {
	if !inNewNamespace(t) {
		return
	}
	for _, hook := range []string{HookTCX, HookClsact} {
		t.Run(hook, func(t *testing.T) {
			testutil.Require(t, "tcx", hook != HookTCX || defaultTCHook() == HookTCX, "tcx needs Linux 6.6")
			p := newPod(t)
			outside, inside := p.plug(t, "veth0")
			e := newEngine(t, func(o *Options) { o.Events = false })
			w, err := e.WatchInterfaces(hook, isVeth, fails(t))
			require.NoError(t, err)
			i := w.known.interfaces[outside]
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for range 200 {
					transmit(t, p.socket, inside, 50)
				}
			}()
			swaps := 0
			pairs := [][2]*ebpf.Program{{e.objs.TcToHost, e.objs.TcFromHost}, {e.objs.TcFromEndpoint, e.objs.TcToEndpoint}}
			for sending := true; sending; swaps++ {
				require.NoError(t, i.attached.swap(pairs[swaps%2][0], pairs[swaps%2][1]))
				// Both pairs are to see packets, however the sender and this loop share the CPUs.
				for before := received(t, "veth0"); sending && received(t, "veth0") == before; {
					select {
					case <-sent:
						sending = false
					default:
					}
				}
			}
			require.Eventually(t, func() bool { return received(t, "veth0") == 10_000 }, 5*time.Second, time.Millisecond)
			byFacing := map[uint8]uint64{}
			var sum uint64
			for k, f := range e.drained(t) {
				byFacing[k.Facing] += f.Packets
				sum += f.Packets
			}
			assert.EqualValues(t, 10_000, sum, "%d swaps, %v", swaps, byFacing)
			assert.Len(t, byFacing, 2, "too few swaps to prove anything: %d", swaps)
			require.NoError(t, w.Close())
			l, err := netlink.LinkByName("veth0")
			require.NoError(t, err)
			require.NoError(t, netlink.LinkDel(l))
			var dev network.NetworkInterface
			assert.ErrorIs(t, e.objs.Interfaces.Lookup(uint32(outside), &dev), ebpf.ErrKeyNotExist)
		})
	}
}
