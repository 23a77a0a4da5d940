package engine

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/bpf/network"
)

// pod is a namespace in which nobody speaks unless told to.
type pod struct {
	ns     netns.NsHandle
	handle *netlink.Handle
	// socket sends frames from the interfaces of the namespace.
	socket int
}

func newPod(t *testing.T) *pod {
	t.Helper()
	silence(t) // this namespace too
	p := &pod{ns: otherNamespace(t)}
	var err error
	p.handle, err = netlink.NewHandleAt(p.ns)
	require.NoError(t, err)
	t.Cleanup(p.handle.Close)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends here
		if !assert.NoError(t, netns.Set(p.ns)) {
			return
		}
		silence(t)
		p.socket = packetSocket(t)
	}()
	<-done
	t.Cleanup(func() { assert.NoError(t, unix.Close(p.socket)) })
	return p
}

// silence keeps IPv6 from speaking up on new interfaces of the namespace.
func silence(t *testing.T) {
	t.Helper()
	assert.NoError(t, os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0))
}

// packetSocket sends frames, and receives none.
func packetSocket(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	assert.NoError(t, err)
	return fd
}

// plug makes a veth here whose other end, pod-NAME, is in the pod, and returns the indexes of both.
func (p *pod) plug(t *testing.T, name string) (here, there int) {
	t.Helper()
	addVeth(t, name, "pod-"+name, netlink.NsFd(p.ns))
	outside, err := netlink.LinkByName(name)
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetARPOff(outside))
	require.NoError(t, netlink.LinkSetUp(outside))
	inside, err := p.handle.LinkByName("pod-" + name)
	require.NoError(t, err)
	require.NoError(t, p.handle.LinkSetARPOff(inside))
	require.NoError(t, p.handle.LinkSetUp(inside))
	require.Eventually(t, func() bool {
		outside, err = netlink.LinkByName(name)
		return err == nil && outside.Attrs().OperState == netlink.OperUp
	}, 5*time.Second, 100*time.Microsecond, "%s is not up", name)
	return outside.Attrs().Index, inside.Attrs().Index
}

// transmit sends a frame n times. One that is dropped on its way out is no failure of the sender's.
func transmit(t *testing.T, socket, ifindex int, n int) {
	t.Helper()
	frame := ethernet(0x0800, ipv4(17, nil, udp(10))...)
	frame[5] = 1 // for somebody else: nobody answers
	for range n {
		err := unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifindex, Halen: 6})
		if err != nil {
			require.ErrorIs(t, err, unix.ENOBUFS)
		}
	}
}

func received(t *testing.T, name string) uint64 {
	t.Helper()
	link, err := netlink.LinkByName(name)
	require.NoError(t, err)
	return link.Attrs().Statistics.RxPackets
}

// holdings are what a process has of things that leak.
type holdings struct{ goroutines, files, links, programs, maps int }

func held(t *testing.T) (h holdings) {
	t.Helper()
	h.goroutines = runtime.NumGoroutine()
	files, err := os.ReadDir("/proc/self/fdinfo")
	require.NoError(t, err)
	h.files = len(files)
	for _, f := range files {
		text, err := os.ReadFile("/proc/self/fdinfo/" + f.Name())
		if err != nil {
			continue // the one that read the directory
		}
		switch info := string(text); {
		case strings.Contains(info, "link_id:"):
			h.links++
		case strings.Contains(info, "prog_id:"):
			h.programs++
		case strings.Contains(info, "map_id:"):
			h.maps++
		}
	}
	return h
}

// requireHeld waits until the process has no more than that. It asks on its own goroutine, which is one of those counted.
func requireHeld(t *testing.T, want holdings) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); held(t) != want && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	require.Equal(t, want, held(t))
}

// Pods come and go by the hundred, each with a few packets of its own, while another one talks without a pause.
func TestFiveHundredInterfacesComeAndGo(t *testing.T) {
	const interfaces, packets, everyDrain = 500, 3, 20
	if !inNewNamespace(t) {
		return
	}
	p := newPod(t)
	e := newEngine(t, func(o *Options) { o.FlowTableSize, o.Events = 10_000, false })
	w, err := e.WatchInterfaces("", isVeth, fails(t))
	require.NoError(t, err)
	watched := func(index int) func() bool { return func() bool { return w.Devices().Get(uint32(index)).Endpoint } }
	counted := map[uint64]uint64{}
	drain := func() {
		require.NoError(t, e.Flip())
		_, err := e.Drain(func(k *network.NetworkFlowKey, f *network.NetworkFlow) {
			assert.EqualValues(t, 1, k.Facing, "%s was taken for this host's own", w.Devices().Get(uint32(k.Scope)).Name)
			assert.NotEmpty(t, w.Devices().Get(uint32(k.Scope)).Name, "forgotten too early")
			counted[k.Scope] += f.Packets
		})
		require.NoError(t, err)
		w.Forget()
	}

	steady, inside := p.plug(t, "veth-steady")
	require.Eventually(t, watched(steady), 5*time.Second, time.Millisecond)
	drain()
	before := held(t)
	var stop atomic.Bool
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for pace := time.NewTicker(time.Millisecond); !stop.Load(); <-pace.C {
			transmit(t, p.socket, inside, 10)
		}
	}()
	want := map[uint64]uint64{}
	for i := range interfaces {
		name := fmt.Sprintf("veth%d", i)
		index, there := p.plug(t, name)
		require.Eventually(t, watched(index), 5*time.Second, 100*time.Microsecond)
		transmit(t, p.socket, there, packets)
		require.Eventually(t, func() bool { return received(t, name) == packets }, 5*time.Second, 100*time.Microsecond)
		want[uint64(index)] = packets
		link, err := netlink.LinkByName(name)
		require.NoError(t, err)
		require.NoError(t, netlink.LinkDel(link))
		if i%everyDrain == 0 {
			drain()
		}
	}
	stop.Store(true)
	<-stopped
	require.Eventually(t, func() bool { return w.Len() == 1 }, 5*time.Second, time.Millisecond)
	for range forgetAfter {
		drain()
	}
	want[uint64(steady)] = received(t, "veth-steady")
	assert.Equal(t, want, counted)
	loss, err := e.Losses()
	require.NoError(t, err)
	assert.Zero(t, loss)

	requireHeld(t, before)
	assert.Len(t, w.known.interfaces, 2, "lo and the steady one")
	assert.Len(t, w.Devices().byIndex, 1)
	var index uint32
	var dev network.NetworkInterface
	entries := 0
	for it := e.objs.Interfaces.Iterate(); it.Next(&index, &dev); {
		entries++
	}
	assert.Equal(t, 1, entries, "in the kernel's map of interfaces")
	require.NoError(t, w.Close())
}

// When more changes at once than the kernel keeps for us, it says so and nothing else: what changed must be found out.
func TestUpdatesThatOverrunTheirBuffer(t *testing.T) {
	const rounds, interfaces, tiny = 5, 20, 1 // the kernel makes it some 2 KiB
	if !inNewNamespace(t) {
		return
	}
	p := newPod(t)
	e := newEngine(t, nil)
	var overruns atomic.Int32
	w, err := e.watchInterfaces("", isVeth, func(err error) {
		assert.ErrorContains(t, err, "a buffer of 1 bytes")
		overruns.Add(1)
	}, tiny)
	require.NoError(t, err)
	steady, inside := p.plug(t, "veth-steady")
	require.Eventually(t, func() bool { return w.Devices().Get(uint32(steady)).Endpoint }, 5*time.Second, time.Millisecond)
	before := held(t)
	seen := overruns.Load()
	for range rounds {
		var links []netlink.Link
		w.mu.Lock() // nobody reads updates
		for i := range interfaces {
			name := fmt.Sprintf("veth%d", i)
			addVeth(t, name, "pod-"+name, netlink.NsFd(p.ns))
			link, err := netlink.LinkByName(name)
			require.NoError(t, err)
			links = append(links, link)
		}
		w.mu.Unlock()
		require.Eventually(t, func() bool { return w.Len() == 1+interfaces }, patience, time.Millisecond)
		w.mu.Lock()
		for _, link := range links {
			require.NoError(t, netlink.LinkDel(link))
		}
		w.mu.Unlock()
		require.Eventually(t, func() bool { return w.Len() == 1 }, patience, time.Millisecond)
	}
	overrun := int(overruns.Load() - seen)
	require.GreaterOrEqual(t, overrun, rounds)
	// What an overrun left behind would be there as often. One may be going on at either time.
	after := held(t)
	assert.Less(t, after.goroutines-before.goroutines, overrun)
	assert.Less(t, after.files-before.files, overrun)
	assert.Equal(t, before.links, after.links)

	transmit(t, p.socket, inside, 5)
	require.Eventually(t, func() bool { return received(t, "veth-steady") == 5 }, 5*time.Second, time.Millisecond)
	var packets uint64
	for k, f := range e.drained(t) {
		assert.EqualValues(t, steady, k.Scope)
		packets += f.Packets
	}
	assert.EqualValues(t, 5, packets, "what was watched all the time is watched once")
	require.NoError(t, w.Close())
}
