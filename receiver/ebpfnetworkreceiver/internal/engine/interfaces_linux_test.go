package engine

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/testutil"
)

// inNewNamespace returns true in a process of its own, in a network namespace of its own, that runs this test alone. In
// the calling process it starts that one, waits for it and returns false. A namespace of one thread would not do: updates
// of interfaces are handled on another.
func inNewNamespace(t *testing.T) bool {
	t.Helper()
	testutil.Require(t, "bpf", os.Geteuid() == 0, "network namespaces need root")
	const child = "ORB8_TEST_NETNS"
	if os.Getenv(child) == t.Name() {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), child+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return false
}

// otherNamespace makes a further namespace, in which nothing runs.
func otherNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	made := make(chan netns.NsHandle, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here, the handle keeps its namespace
		ns, err := netns.New()
		assert.NoError(t, err)
		made <- ns
	}()
	ns := <-made
	t.Cleanup(func() { assert.NoError(t, ns.Close()) })
	return ns
}

func addVeth(t *testing.T, name, peer string, peerNS any) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	v := netlink.NewVeth(attrs)
	v.PeerName, v.PeerNamespace = peer, peerNS
	require.NoError(t, netlink.LinkAdd(v))
}

func isVeth(name string) bool { return strings.HasPrefix(name, "veth") }

func fails(t *testing.T) func(error) { return func(err error) { assert.NoError(t, err) } }

func TestInterfacesAreFollowed(t *testing.T) {
	if !inNewNamespace(t) {
		return
	}
	for _, hook := range []string{HookTCX, HookClsact} {
		t.Run(hook, func(t *testing.T) {
			testutil.Require(t, "tcx", hook != HookTCX || defaultTCHook() == HookTCX, "tcx needs Linux 6.6")
			e := newEngine(t, nil)
			addVeth(t, "veth0", "other0", nil)
			w, err := e.WatchInterfaces(hook, isVeth, fails(t))
			require.NoError(t, err)
			require.Equal(t, 1, w.Len(), "what is there is watched at once, and other0 is not wanted")

			addVeth(t, "veth1", "other1", nil)
			require.Eventually(t, func() bool { return w.Len() == 2 }, 5*time.Second, time.Millisecond)
			link, err := netlink.LinkByName("veth1")
			require.NoError(t, err)
			index := uint32(link.Attrs().Index)
			require.NoError(t, netlink.LinkDel(link))
			require.Eventually(t, func() bool { return w.Len() == 1 }, 5*time.Second, time.Millisecond)
			assert.Equal(t, "veth1", w.Devices().Get(index).Name, "flows may still be drained")
			assert.ErrorIs(t, e.objs.Interfaces.Lookup(index, &network.NetworkInterface{}), ebpf.ErrKeyNotExist)

			require.NoError(t, w.Close())
			assert.Zero(t, w.Len())
			link, err = netlink.LinkByName("veth0")
			require.NoError(t, err)
			qdiscs, err := netlink.QdiscList(link)
			require.NoError(t, err)
			for _, q := range qdiscs {
				assert.NotEqual(t, "clsact", q.Type(), "left behind")
			}
			require.NoError(t, netlink.LinkDel(link))
		})
	}
}

// A veth's far end is often moved into the pod after the veth was made: from then on what comes in was sent by the pod.
func TestAnEndpointThatMovesAwayTurnsTheDirection(t *testing.T) {
	if !inNewNamespace(t) {
		return
	}
	pod := otherNamespace(t)
	e := newEngine(t, nil)
	w, err := e.WatchInterfaces("", isVeth, fails(t))
	require.NoError(t, err)
	defer func() { assert.NoError(t, w.Close()) }()
	addVeth(t, "veth0", "inside", nil)
	link, err := netlink.LinkByName("veth0")
	require.NoError(t, err)
	var dev network.NetworkInterface
	seen := func() bool { return e.objs.Interfaces.Lookup(uint32(link.Attrs().Index), &dev) == nil }
	require.Eventually(t, seen, 5*time.Second, time.Millisecond)
	assert.EqualValues(t, -1, dev.PeerNetns)

	inside, err := netlink.LinkByName("inside")
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetNsFd(inside, int(pod)))
	require.NoError(t, netlink.LinkSetUp(link))
	require.Eventually(t, func() bool { return seen() && dev.PeerNetns >= 0 }, 5*time.Second, time.Millisecond)
}

func clsactFiltersOf(t *testing.T, name string) (names []string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	require.NoError(t, err)
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := netlink.FilterList(link, parent)
		require.NoError(t, err)
		for _, f := range filters {
			names = append(names, f.(*netlink.BpfFilter).Name)
		}
	}
	return names
}

func TestClsactLeavesOthersAlone(t *testing.T) {
	if !inNewNamespace(t) {
		return
	}
	e := newEngine(t, nil)
	addVeth(t, "veth0", "other0", nil)
	link, err := netlink.LinkByName("veth0")
	require.NoError(t, err)
	index := link.Attrs().Index
	require.NoError(t, netlink.QdiscAdd(&netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Parent: netlink.HANDLE_CLSACT, Handle: netlink.MakeHandle(0xffff, 0),
	}}))
	require.NoError(t, netlink.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL},
		Fd:          e.objs.TcToHost.FD(), Name: "cilium", DirectAction: true,
	}))

	a, err := clsactHook{}.attach(index, e.objs.TcToHost, e.objs.TcFromHost)
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{"cilium", "orb8", "orb8"}, clsactFiltersOf(t, "veth0"))
	require.NoError(t, a.Close())
	assert.Equal(t, []string{"cilium"}, clsactFiltersOf(t, "veth0"))
}

// A filter outlives a killed process: the next one takes its place, and cleans up for both.
func TestClsactReplacesWhatAKilledProcessLeft(t *testing.T) {
	if !inNewNamespace(t) {
		return
	}
	e := newEngine(t, nil)
	addVeth(t, "veth0", "other0", nil)
	link, err := netlink.LinkByName("veth0")
	require.NoError(t, err)
	_, err = clsactHook{}.attach(link.Attrs().Index, e.objs.TcToHost, e.objs.TcFromHost)
	require.NoError(t, err)

	a, err := clsactHook{}.attach(link.Attrs().Index, e.objs.TcToHost, e.objs.TcFromHost)
	require.NoError(t, err)
	assert.Equal(t, []string{"orb8", "orb8"}, clsactFiltersOf(t, "veth0"), "counted twice")
	require.NoError(t, a.Close())
	qdiscs, err := netlink.QdiscList(link)
	require.NoError(t, err)
	for _, q := range qdiscs {
		assert.NotEqual(t, "clsact", q.Type())
	}
}

func TestUnknownHook(t *testing.T) {
	e := newEngine(t, nil)
	_, err := e.WatchInterfaces("xdp", isVeth, fails(t))
	assert.EqualError(t, err, `tc hook "xdp": use tcx or clsact`)
}
