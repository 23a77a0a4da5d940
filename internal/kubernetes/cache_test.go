package kubernetes

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	addr1 = netip.MustParseAddr("10.0.0.1")
	addr2 = netip.MustParseAddr("10.0.0.2")
	https = Port{443, 6}
)

// at is a time that tests are written in: seconds.
func at(seconds float64) time.Time { return time.Unix(0, int64(seconds*1e9)) }

// testCache is a cache whose clock the test sets.
type testCache struct {
	*Cache
	clock   time.Time
	changes int
}

func newTestCache(wide bool) *testCache {
	c := &testCache{clock: at(1000)}
	c.Cache = NewCache(wide, 300*time.Second, func() { c.changes++ })
	c.now = func() time.Time { return c.clock }
	return c
}

func pod(uid string, from float64, addresses ...netip.Addr) *Pod {
	return &Pod{UID: uid, Name: uid, from: at(from), Addresses: addresses}
}

// who returns the UID of the pod that had the address at the time, and how sure that is.
func (c *testCache) who(addr netip.Addr, first, last float64) (string, State) {
	a := c.Address(addr, https, at(first), at(last))
	if a.Pod == nil {
		return "", a.State
	}
	return a.Pod.UID, a.State
}

func (c *testCache) expectWho(t *testing.T, addr netip.Addr, first, last float64, uid string, state State) {
	t.Helper()
	gotUID, gotState := c.who(addr, first, last)
	assert.Equal(t, uid, gotUID)
	assert.Equal(t, state, gotState)
}

func TestPodByUID(t *testing.T) {
	c := newTestCache(false)
	_, ok := c.Pod("a")
	assert.False(t, ok)
	c.setPod(&Pod{UID: "a", Name: "old"})
	c.setPod(&Pod{UID: "a", Name: "new", staticUID: "hash"})
	assert.Equal(t, 2, c.changes)
	for _, uid := range []string{"a", "hash"} {
		p, ok := c.Pod(uid)
		require.True(t, ok)
		assert.Equal(t, "new", p.Name)
	}
}

func TestPodByName(t *testing.T) {
	c := newTestCache(false)
	uid := func() string {
		if p, ok := c.PodNamed("ml", "train-0"); ok {
			return p.UID
		}
		return ""
	}
	named := func(uid string, from float64) *Pod {
		return &Pod{UID: uid, Namespace: "ml", Name: "train-0", from: at(from)}
	}
	assert.Empty(t, uid())
	c.setPod(named("a", 900))
	assert.Equal(t, "a", uid())
	c.setPod(named("b", 950))
	assert.Equal(t, "b", uid(), "a StatefulSet calls the next pod as it called the one before")
	c.deletePod(named("a", 900))
	assert.Equal(t, "b", uid(), "the end of the one before comes late")
	c.deletePod(named("b", 950))
	assert.Equal(t, "b", uid(), "deleted pods are kept")
	c.replacePods([]*Pod{named("c", 940)})
	assert.Equal(t, "c", uid())
	c.deletePod(named("c", 940))
	c.clock = at(1301)
	c.Sweep()
	assert.Empty(t, uid())
	assert.Empty(t, c.names)

	p := &Pod{UID: "a", Containers: []Container{{Name: "main", ids: []string{"now", "before"}}, {Name: "waiting"}}}
	id, ok := p.ContainerNamed("main")
	assert.True(t, ok)
	assert.Equal(t, "now", id)
	for _, name := range []string{"waiting", "other"} {
		_, ok = p.ContainerNamed(name)
		assert.False(t, ok)
	}
	assert.Equal(t, "a", p.CgroupUID())
	assert.Equal(t, "hash", (&Pod{UID: "a", staticUID: "hash"}).CgroupUID())
}

func TestDeletedPodsAreKept(t *testing.T) {
	c := newTestCache(false)
	p := pod("a", 900, addr1)
	p.staticUID = "hash"
	c.setPod(p)
	c.clock = at(1010)
	c.deletePod(p)
	c.clock = at(1300)
	c.Sweep()
	_, ok := c.Pod("a")
	assert.True(t, ok)
	c.expectWho(t, addr1, 1000, 1011, "a", Sure)
	c.clock = at(1311)
	c.Sweep()
	for _, uid := range []string{"a", "hash"} {
		_, ok = c.Pod(uid)
		assert.False(t, ok, uid)
	}
	assert.Equal(t, map[string]int{"pod": 0, "address": 0, "service": 0, "endpoint": 0, "node": 0}, c.Sizes())
}

// An address goes to another pod: the time of the record tells whose it is.
func TestAddressByTime(t *testing.T) {
	c := newTestCache(false)
	a := pod("a", 900, addr1)
	c.setPod(a)
	c.expectWho(t, addr1, 999, 1000, "a", Sure)
	stopped := pod("a", 900, addr1)
	stopped.stopped = at(1010)
	c.clock = at(1012)
	c.deletePod(stopped)
	c.expectWho(t, addr1, 1005, 1012, "a", Sure)
	c.expectWho(t, addr1, 1012, 1020, "a", Sure) // began within the time that rounding and closing takes
	c.expectWho(t, addr1, 1013, 1020, "a", Tentative)
	c.clock = at(1020)
	c.setPod(pod("b", 1014, addr1))
	c.expectWho(t, addr1, 1000, 1005, "a", Sure)
	c.expectWho(t, addr1, 1015, 1020, "b", Sure)
	c.expectWho(t, addr1, 1013, 1016, "b", Sure)
	c.expectWho(t, addr1, 1005, 1016, "", Ambiguous)
	c.expectWho(t, addr1, 800, 850, "", Foreign)
}

func TestAddressOfFinishedPod(t *testing.T) {
	c := newTestCache(false)
	job := pod("job", 900, addr1)
	job.over, job.stopped = true, at(905)
	c.setPod(job)
	c.expectWho(t, addr1, 903, 904, "job", Sure)
	c.expectWho(t, addr1, 910, 911, "job", Tentative)
	c.setPod(pod("b", 908, addr1))
	c.expectWho(t, addr1, 910, 911, "b", Sure)

	evicted := pod("evicted", 900, addr2)
	evicted.over = true
	c.setPod(evicted)
	c.expectWho(t, addr2, 950, 950, "", Foreign)

	running := pod("evicted later", 900, addr2)
	c.setPod(running)
	c.clock = at(1020)
	evicted = pod("evicted later", 900, addr2)
	evicted.over = true
	c.setPod(evicted)
	c.expectWho(t, addr2, 1000, 1020, "evicted later", Sure)
	c.expectWho(t, addr2, 1030, 1040, "evicted later", Tentative)
}

func TestSandboxMadeAnew(t *testing.T) {
	c := newTestCache(false)
	c.setPod(pod("a", 900, addr1))
	c.clock = at(1100)
	moved := pod("a", 900, addr2)
	moved.running = at(1095)
	c.setPod(moved)
	c.expectWho(t, addr1, 950, 960, "a", Sure)
	c.expectWho(t, addr1, 1110, 1110, "a", Tentative)
	c.expectWho(t, addr2, 950, 960, "", Foreign)
	c.expectWho(t, addr2, 1095, 1100, "a", Sure)
}

func TestHostNetworkIsTheNode(t *testing.T) {
	c := newTestCache(true)
	c.setNode(&Node{Name: "node-1", Zone: "z", addresses: []netip.Addr{addr1}})
	c.setPod(&Pod{UID: "host", HostNetwork: true, from: at(900)})
	a := c.Address(addr1, https, at(1000), at(1000))
	assert.Nil(t, a.Pod)
	assert.Equal(t, "node-1", a.Node.Name)
	assert.Equal(t, Sure, a.State)
	c.Observe("host", addr1, at(1000), at(1001))
	c.Observe("stranger", addr1, at(1000), at(1001))
	c.expectWho(t, addr1, 1000, 1001, "", Sure)
	c.deleteNode(&Node{Name: "node-1"})
	c.expectWho(t, addr1, 1000, 1001, "", Foreign)
}

func TestReplacePods(t *testing.T) {
	c := newTestCache(false)
	c.replacePods([]*Pod{pod("a", 900, addr1), pod("b", 900, addr2)})
	c.clock = at(1100)
	c.setLost(at(1050))
	c.setLost(time.Time{})
	c.replacePods([]*Pod{pod("b", 900, addr2)})
	c.expectWho(t, addr1, 1080, 1090, "a", Sure) // it was there until now, as nothing says otherwise
	c.expectWho(t, addr2, 1080, 1090, "b", Sure)

	c.setLost(at(1200))
	c.clock = at(1300)
	c.replacePods(nil)
	c.setLost(time.Time{})
	c.expectWho(t, addr2, 1180, 1190, "b", Sure)
	c.expectWho(t, addr2, 1290, 1295, "b", Tentative) // deleted nobody knows when
	p, ok := c.Pod("b")
	require.True(t, ok)
	assert.Equal(t, "b", p.Name)
}

// While the API is away, a pod's own flows say that its address is still its own.
func TestAddressWhileTheAPIIsAway(t *testing.T) {
	c := newTestCache(false)
	c.setPod(pod("a", 900, addr1))
	c.setPod(pod("silent", 900, addr2))
	c.setLost(at(1000))
	c.expectWho(t, addr1, 990, 995, "a", Sure)
	c.expectWho(t, addr1, 1000, 1005, "", Awaited)
	c.Observe("a", addr1, at(1000), at(1005))
	c.expectWho(t, addr1, 1000, 1005, "a", Sure)
	c.expectWho(t, addr1, 1005, 1010, "a", Tentative)
	c.expectWho(t, addr1, 1100, 1110, "", Awaited)
	c.expectWho(t, addr2, 1000, 1005, "", Awaited)
	c.setLost(time.Time{})
	c.expectWho(t, addr1, 1100, 1110, "a", Sure)
}

// While the API is away, or behind, a pod that it has not told of uses the address of another.
func TestAddressThatMovesUnseen(t *testing.T) {
	c := newTestCache(true)
	c.setPod(pod("a", 900, addr1))
	c.Observe("a", addr1, at(1000), at(1005))
	c.setLost(at(1010))
	c.Observe("b", addr1, at(1020), at(1025))
	c.expectWho(t, addr1, 1000, 1005, "a", Sure)
	c.expectWho(t, addr1, 1020, 1025, "", Awaited)
	c.expectWho(t, addr1, 1013, 1016, "", Awaited)
	_, ok := c.Pod("b")
	assert.False(t, ok)

	c.setPod(pod("a", 900, addr1)) // the API still has the old state
	c.setPod(pod("b", 1015, addr1))
	c.deletePod(pod("a", 900, addr1))
	c.setLost(time.Time{})
	c.expectWho(t, addr1, 1020, 1025, "b", Sure)
	c.expectWho(t, addr1, 1000, 1005, "a", Sure)
	c.clock = at(2000)
	c.deletePod(pod("b", 1015, addr1))
	c.clock = at(2301)
	c.Sweep()
	assert.Zero(t, c.Sizes()["pod"])
	assert.Zero(t, c.Sizes()["address"])
}

// What the new holder itself was seen to do is its own, though the former one's last packets might have come as late as that.
func TestAddressThatMovesAtOnce(t *testing.T) {
	c := newTestCache(true)
	c.setPod(pod("a", 900, addr1))
	c.setPod(pod("b", 900, addr2))
	c.Observe("a", addr1, at(1000), at(1005))
	c.setLost(at(1004))
	c.Observe("b", addr1, at(1006), at(1007))
	c.expectWho(t, addr1, 1000, 1005, "a", Sure)
	c.expectWho(t, addr1, 1005.5, 1006.5, "", Ambiguous)
	c.expectWho(t, addr1, 1006, 1006.5, "b", Sure)
	c.Observe("a", addr1, at(1008), at(1009))
	c.expectWho(t, addr1, 1008, 1009, "a", Sure)
	c.expectWho(t, addr1, 1006, 1006.5, "b", Sure)
}

func TestTwoThatUseOneAddressAtOnce(t *testing.T) {
	c := newTestCache(false)
	c.setPod(pod("a", 900, addr1))
	c.Observe("a", addr1, at(1000), at(1022))
	c.Observe("b", addr1, at(1020), at(1025))
	c.expectWho(t, addr1, 1020, 1022, "", Ambiguous)
}

func TestObservationsOfWhatIsNobodys(t *testing.T) {
	c := newTestCache(false)
	c.Observe("nested", addr1, at(1000), at(1005))
	assert.Equal(t, 0, c.Sizes()["address"])
	c.expectWho(t, addr1, 1000, 1005, "", Foreign)
}

// Pods that are only observed are bounded, and forgotten.
func TestObservedPodsAreForgotten(t *testing.T) {
	c := newTestCache(false)
	c.setPod(pod("a", 900, addr1))
	for i := range maxObserved + 10 {
		c.Observe(string(rune(0x10000+i)), addr1, at(1000+float64(i)), at(1000+float64(i)))
	}
	assert.Equal(t, 1+maxObserved, c.Sizes()["pod"])
	c.clock = at(1301)
	c.Sweep()
	assert.Equal(t, 1, c.Sizes()["pod"])
	assert.Zero(t, c.observed)
}

func TestUnknownAddresses(t *testing.T) {
	private, public := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("192.0.2.1")
	c := newTestCache(true)
	c.expect(2)
	c.expectWho(t, private, 1, 1, "", Awaited)
	c.expectWho(t, netip.MustParseAddr("100.64.0.1"), 1, 1, "", Awaited)
	c.expectWho(t, public, 1, 1, "", Foreign)
	c.synced()
	c.synced()
	c.expectWho(t, private, 1, 1, "", Foreign)
	c.setNode(&Node{Name: "n", podCIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.2.0/26")}})
	c.expectWho(t, private, 1, 1, "", Awaited)
	c.expectWho(t, netip.MustParseAddr("10.1.2.64"), 1, 1, "", Foreign)
	c.deleteNode(&Node{Name: "n"})
	c.expectWho(t, private, 1, 1, "", Foreign)

	c.setPod(pod("a", 900, addr1))
	c.expectWho(t, addr2, 1000, 1000, "", Awaited)
	narrow := newTestCache(false)
	narrow.setPod(pod("a", 900, addr1))
	narrow.expectWho(t, addr2, 1000, 1000, "", Foreign)
}

func TestServices(t *testing.T) {
	c := newTestCache(true)
	vip, shared, node := netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.1")
	web := &Service{
		Name: "web", Namespace: "shop", key: "shop/web", clusterIPs: []netip.Addr{vip}, shared: []netip.Addr{shared, node},
		ports: []Port{https}, nodePorts: []Port{{30443, 6}},
	}
	c.setService(web)
	c.setNode(&Node{Name: "node-1", addresses: []netip.Addr{node}})
	service := func(addr netip.Addr, port Port) string {
		if s := c.Address(addr, port, at(1), at(1)).Service; s != nil {
			return s.Namespace + "/" + s.Name
		}
		return ""
	}
	assert.Equal(t, "shop/web", service(vip, https))
	assert.Equal(t, "shop/web", service(vip, Port{}), "an echo request to a Service")
	assert.Equal(t, "shop/web", service(shared, https))
	assert.Empty(t, service(shared, Port{80, 6}))
	assert.Equal(t, "shop/web", service(node, https))
	assert.Equal(t, "shop/web", service(node, Port{30443, 6}))
	assert.Empty(t, service(node, Port{22, 6}))
	assert.Equal(t, "node-1", c.Address(node, https, at(1), at(1)).Node.Name)

	c.setPod(pod("a", 900, addr1))
	backend := &slice{key: "shop/web-1", service: &Service{Name: "web", Namespace: "shop", key: "shop/web"}, endpoints: []endpoint{{addr1, Port{8443, 6}}}}
	c.setSlice(backend)
	c.setSlice(backend)
	s, ok := c.Backend(addr1, Port{8443, 6})
	require.True(t, ok)
	assert.Equal(t, "web", s.Name)
	_, ok = c.Backend(addr1, https)
	assert.False(t, ok)
	c.setSlice(&slice{key: "shop/canary-1", service: &Service{Name: "canary", key: "shop/canary"}, endpoints: backend.endpoints})
	_, ok = c.Backend(addr1, Port{8443, 6})
	assert.False(t, ok, "two Services have it")
	c.deleteSlice(&slice{key: "shop/canary-1"})
	answer := c.Address(addr1, Port{8443, 6}, at(1000), at(1000))
	assert.Equal(t, "a", answer.Pod.UID)
	assert.Equal(t, "web", answer.Service.Name)
	c.replaceSlices(nil)
	c.replaceServices(nil)
	c.replaceNodes(nil)
	assert.Equal(t, map[string]int{"pod": 1, "address": 1, "service": 0, "endpoint": 0, "node": 0}, c.Sizes())
	assert.Empty(t, c.nodePorts)
	assert.Len(t, c.ranges.prefixes, 1)
}
