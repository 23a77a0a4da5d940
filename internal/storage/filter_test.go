package storage

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/orb8/orb8/internal/flow"
)

const containerID = "c0ffee0123456789c0ffee0123456789c0ffee0123456789c0ffee0123456789"

// tcp4 goes from a pod to an address outside, udp6 from an address outside to a pod whose container is named like a
// hexadecimal number.
func tcp4() *flow.Record {
	return &flow.Record{
		Node:      "node-a",
		Direction: flow.Egress,
		Transport: flow.TCP,
		Source: flow.Endpoint{
			Addr:     netip.MustParseAddrPort("10.244.0.4:41000"),
			Identity: flow.Identity{Namespace: "shop", Pod: "web-0", Container: "nginx", ContainerID: containerID, Labels: "app=web,tier=front", Cgroup: "/kubepods/pod1/c1"},
		},
		Destination: flow.Endpoint{
			Addr: netip.MustParseAddrPort("192.0.2.7:443"), Name: "api.Example.com", Identity: flow.Identity{Namespace: "public", Service: "api"},
		},
	}
}

func udp6() *flow.Record {
	return &flow.Record{
		Node:      "node-b",
		Direction: flow.Ingress,
		Transport: flow.UDP,
		Source:    flow.Endpoint{Addr: netip.MustParseAddrPort("[2001:db8::9]:53")},
		Destination: flow.Endpoint{
			Addr:     netip.MustParseAddrPort("[2001:db8:1::4]:41001"),
			Identity: flow.Identity{Namespace: "data", Pod: "db-0", Container: "db", ContainerID: "dbdb" + containerID[4:], Workload: "db"},
		},
	}
}

func TestFilterFields(t *testing.T) {
	prefixes := func(s ...string) []netip.Prefix {
		var p []netip.Prefix
		for _, v := range s {
			p = append(p, netip.MustParsePrefix(v))
		}
		return p
	}
	tests := []struct {
		name       string
		filter     Filter
		tcp4, udp6 bool
	}{
		{"nothing set", Filter{}, true, true},
		{"pod at the source", Filter{Pods: []string{"web-0"}}, true, false},
		{"pod at the destination", Filter{Pods: []string{"db-0"}}, false, true},
		{"any of two pods", Filter{Pods: []string{"web-0", "db-0"}}, true, true},
		{"a pod's prefix is not the pod", Filter{Pods: []string{"web"}}, false, false},
		{"qualified pod", Filter{Pods: []string{"shop/web-0"}}, true, false},
		{"qualified pod of another namespace", Filter{Pods: []string{"data/web-0"}}, false, false},
		{"namespace", Filter{Namespaces: []string{"data"}}, false, true},
		{"container name", Filter{Containers: []string{"nginx"}}, true, false},
		{"container name that is short and hexadecimal", Filter{Containers: []string{"db"}}, false, true},
		{"whole container id", Filter{Containers: []string{containerID}}, true, false},
		{"container id by 4 digits", Filter{Containers: []string{"c0ff"}}, true, false},
		{"container id by 3 digits", Filter{Containers: []string{"c0f"}}, false, false},
		{"container id by its end", Filter{Containers: []string{"456789"}}, false, false},
		{"address", Filter{Prefixes: prefixes("192.0.2.7/32")}, true, false},
		{"IPv4 prefix", Filter{Prefixes: prefixes("10.244.0.0/16")}, true, false},
		{"IPv6 prefix", Filter{Prefixes: prefixes("2001:db8:1::/48")}, false, true},
		{"all of IPv4", Filter{Prefixes: prefixes("0.0.0.0/0")}, true, false},
		{"all of IPv6", Filter{Prefixes: prefixes("::/0")}, false, true},
		{"server port", Filter{Ports: []uint16{443}}, true, false},
		{"client port", Filter{Ports: []uint16{41001}}, false, true},
		{"transport", Filter{Transports: []flow.Transport{flow.UDP, flow.ICMP}}, false, true},
		{"direction", Filter{Directions: []flow.Direction{flow.Egress}}, true, false},
		{"service", Filter{Services: []string{"api"}}, true, false},
		{"qualified service", Filter{Services: []string{"public/api"}}, true, false},
		{"service of another namespace", Filter{Services: []string{"shop/api"}}, false, false},
		{"workload", Filter{Workloads: []string{"data/db", "data/db-0"}}, false, true},
		{"DNS name", Filter{Names: []string{"*.example.com"}}, true, false},
		{"any DNS name", Filter{Names: []string{"*"}}, true, false},
		{"label", Filter{Labels: []LabelSelector{selector("app=web")}}, true, false},
		{"label that only an address lacks", Filter{Labels: []LabelSelector{selector("app!=web")}}, false, true},
		{"cgroup", Filter{Cgroups: []string{"/kubepods/pod1"}}, true, false},
		{"cgroup whose name begins the same", Filter{Cgroups: []string{"/kubepods/pod"}}, false, false},
		{"cgroup of the other end", Filter{Destination: EndFilter{Cgroups: []string{"/kubepods"}}}, false, false},
		{"node", Filter{Nodes: []string{"node-a"}}, true, false},
		{"source", Filter{Source: EndFilter{Pods: []string{"web-0"}}}, true, false},
		{"source that is the destination", Filter{Source: EndFilter{Pods: []string{"db-0"}}}, false, false},
		{"destination", Filter{Destination: EndFilter{Workloads: []string{"db"}, Ports: []uint16{41001}}}, false, true},
		{"destination by two fields of which one is not", Filter{Destination: EndFilter{Workloads: []string{"db"}, Ports: []uint16{53}}}, false, false},
		{"from and to", Filter{
			Source:      EndFilter{Namespaces: []string{"shop"}, Labels: []LabelSelector{selector("app")}},
			Destination: EndFilter{Services: []string{"api"}, Names: []string{"api.*"}, Prefixes: prefixes("192.0.2.0/24")},
		}, true, false},
		{"to and from", Filter{Source: EndFilter{Services: []string{"api"}}, Destination: EndFilter{Namespaces: []string{"shop"}}}, false, false},
		{"all fields", Filter{
			Pods: []string{"web-0"}, Namespaces: []string{"shop"}, Containers: []string{"nginx"},
			Prefixes: prefixes("192.0.2.0/24"), Ports: []uint16{443},
			Transports: []flow.Transport{flow.TCP}, Directions: []flow.Direction{flow.Egress},
		}, true, false},
		{"all fields but one", Filter{Pods: []string{"web-0"}, Namespaces: []string{"shop"}, Ports: []uint16{80}}, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.tcp4, tt.filter.match(view{own: tcp4()}), "IPv4 TCP flow")
			assert.Equal(t, tt.udp6, tt.filter.match(view{own: udp6()}), "IPv6 UDP flow")
		})
	}
}

func TestSelection(t *testing.T) {
	web, db, tcp := Filter{Pods: []string{"web-0"}}, Filter{Pods: []string{"db-0"}}, Filter{Transports: []flow.Transport{flow.TCP}}
	tests := []struct {
		name       string
		selection  Selection
		tcp4, udp6 bool
	}{
		{"empty", Selection{}, true, true},
		{"allow", Selection{Allow: []Filter{web}}, true, false},
		{"allow either", Selection{Allow: []Filter{web, db}}, true, true},
		{"deny", Selection{Deny: []Filter{web}}, false, true},
		{"deny wins over allow", Selection{Allow: []Filter{web, db}, Deny: []Filter{tcp}}, false, true},
		{"an empty filter denies all", Selection{Deny: []Filter{{}}}, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.tcp4, tt.selection.Match(tcp4()), "IPv4 TCP flow")
			assert.Equal(t, tt.udp6, tt.selection.Match(udp6()), "IPv6 UDP flow")
		})
	}
	empty, all := Selection{}, Selection{Allow: []Filter{{}}}
	assert.True(t, empty.Empty())
	assert.False(t, all.Empty())
}

func TestSelectionOfBothEnds(t *testing.T) {
	near, far := tcp4(), tcp4()
	*far = flow.Record{
		Node: "node-c", Direction: flow.Ingress, Transport: flow.TCP, Outcome: flow.OutcomeReset,
		Source: flow.Endpoint{Addr: netip.MustParseAddrPort("198.51.100.1:1")},
		Destination: flow.Endpoint{
			Addr: netip.MustParseAddrPort("10.244.0.9:8443"), Identity: flow.Identity{Namespace: "data", Pod: "db-0"},
		},
	}
	tests := []struct {
		name       string
		filter     Filter
		both, near bool
	}{
		{"pod of the near end", Filter{Pods: []string{"web-0"}}, true, true},
		{"pod of the far end", Filter{Pods: []string{"data/db-0"}}, true, false},
		{"address of the far end", Filter{Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}, true, false},
		{"one of each", Filter{Pods: []string{"web-0"}, Ports: []uint16{8443}}, true, false},
		{"from and to", Filter{Source: EndFilter{Pods: []string{"web-0"}}, Destination: EndFilter{Pods: []string{"db-0"}}}, true, false},
		{"to and from", Filter{Source: EndFilter{Pods: []string{"db-0"}}, Destination: EndFilter{Pods: []string{"web-0"}}}, false, false},
		{"a Service and its backend", Filter{Destination: EndFilter{Services: []string{"api"}, Pods: []string{"db-0"}}}, true, false},
		{"node of the far end", Filter{Nodes: []string{"node-c"}}, true, false},
		{"direction is the near end's", Filter{Directions: []flow.Direction{flow.Ingress}}, false, false},
		{"outcome that only the far end knows", Filter{Outcomes: []flow.Outcome{flow.OutcomeReset}}, true, false},
		{"another outcome", Filter{Outcomes: []flow.Outcome{flow.OutcomeClosed}}, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			allow, deny := Selection{Allow: []Filter{tt.filter}}, Selection{Deny: []Filter{tt.filter}}
			assert.Equal(t, tt.both, allow.MatchEnds(near, far))
			assert.Equal(t, !tt.both, deny.MatchEnds(near, far))
			assert.Equal(t, tt.near, allow.Match(near))
		})
	}
	near.Outcome = flow.OutcomeRefused
	refused, reset := Selection{Allow: []Filter{{Outcomes: []flow.Outcome{flow.OutcomeRefused}}}}, Selection{Allow: []Filter{{Outcomes: []flow.Outcome{flow.OutcomeReset}}}}
	assert.True(t, refused.MatchEnds(near, far), "who saw the SYN as well knows better")
	assert.True(t, refused.MatchEnds(far, near))
	assert.False(t, reset.MatchEnds(near, far))
}

func TestSelectionDoesNotAllocate(t *testing.T) {
	selection := Selection{
		Allow: []Filter{{
			Pods: []string{"shop/web-0"}, Containers: []string{"c0ff"}, Ports: []uint16{443}, Labels: []LabelSelector{selector("app=web,!x")},
			Destination: EndFilter{Names: []string{"*"}},
		}},
		Deny: []Filter{{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}},
	}
	r := tcp4()
	r.Destination.Name = "api.example.com"
	assert.True(t, selection.Match(r))
	assert.Zero(t, testing.AllocsPerRun(100, func() { selection.Match(r) }), "the writer matches every event for every subscriber")
}

func BenchmarkSelectionMatch(b *testing.B) {
	selection := Selection{Allow: []Filter{{Namespaces: []string{"data"}}, {Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}}}
	r := tcp4()
	for b.Loop() {
		selection.Match(r)
	}
}
