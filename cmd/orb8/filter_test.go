package main

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

func parseFilter(args ...string) ([]*orb8v1.FlowFilter, error) {
	cmd := &cobra.Command{}
	f := addFlowFilters(cmd, &app{})
	err := cmd.ParseFlags(args)
	return f.allow.flows(), err
}

func TestFilterFlags(t *testing.T) {
	in, out := orb8v1.Direction_DIRECTION_INGRESS, orb8v1.Direction_DIRECTION_EGRESS
	tests := []struct {
		name string
		args string
		want *orb8v1.FlowFilter
	}{
		{"none", "", nil},
		{"pod", "--pod cart-0 --pod shop/cart-1,web", &orb8v1.FlowFilter{Pods: []string{"cart-0", "shop/cart-1", "web"}}},
		{"namespace", "--namespace shop,kube-system", &orb8v1.FlowFilter{Namespaces: []string{"shop", "kube-system"}}},
		{"workload", "--workload cart,shop/db", &orb8v1.FlowFilter{Workloads: []string{"cart", "shop/db"}}},
		{"service", "--service cart --service shop/db", &orb8v1.FlowFilter{Services: []string{"cart", "shop/db"}}},
		{
			"label", "--label app=web,tier!=cache -l env",
			&orb8v1.FlowFilter{Labels: []string{"app=web,tier!=cache", "env"}},
		},
		{"name", "--name *.example.com,db", &orb8v1.FlowFilter{Names: []string{"*.example.com", "db"}}},
		{"node", "--node a,b", &orb8v1.FlowFilter{Nodes: []string{"a", "b"}}},
		{
			"from and to", "--from shop/ --to svc/shop/db:5432 --port 5432",
			&orb8v1.FlowFilter{
				Source:      &orb8v1.EndpointFilter{Namespaces: []string{"shop"}},
				Destination: &orb8v1.EndpointFilter{Services: []string{"shop/db"}, Ports: []uint32{5432}}, Ports: []uint32{5432},
			},
		},
		{"container", "--container nginx,c0ffee", &orb8v1.FlowFilter{Containers: []string{"nginx", "c0ffee"}}},
		{
			"ip", "--ip 10.0.0.1,10.0.0.0/8 --ip FD00:0::1,::/0",
			&orb8v1.FlowFilter{Ips: []string{"10.0.0.1", "10.0.0.0/8", "fd00::1", "::/0"}},
		},
		{"port", "--port 1 --port 443,65535", &orb8v1.FlowFilter{Ports: []uint32{1, 443, 65535}}},
		{
			"protocol", "--protocol tcp,UDP,icmp6 --protocol icmpv6,0,255",
			&orb8v1.FlowFilter{Protocols: []string{"tcp", "udp", "ipv6-icmp", "ipv6-icmp", "0", "255"}},
		},
		{"direction", "--direction ingress,out", &orb8v1.FlowFilter{Directions: []orb8v1.Direction{in, out}}},
		{
			"all of them", "--pod a --namespace b --container c --ip ::1 --port 5 --protocol sctp --direction Egress",
			&orb8v1.FlowFilter{
				Pods: []string{"a"}, Namespaces: []string{"b"}, Containers: []string{"c"}, Ips: []string{"::1"},
				Ports: []uint32{5}, Protocols: []string{"sctp"}, Directions: []orb8v1.Direction{out},
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseFilter(strings.Fields(tt.args)...)
			require.NoError(t, err)
			if tt.want == nil {
				assert.Empty(t, got)
				return
			}
			require.Len(t, got, 1)
			assert.True(t, proto.Equal(tt.want, got[0]), "want %v, got %v", tt.want, got[0])
		})
	}
}

func TestFilterFlagsRefuse(t *testing.T) {
	// Each error names the flag, the value and what is allowed.
	tests := []struct{ flag, value, allowed string }{
		{"pod", "", "use NAME or NAMESPACE/NAME"},
		{"service", "/db", "use NAME or NAMESPACE/NAME"},
		{"workload", "shop/", "use NAME or NAMESPACE/NAME"},
		{"label", " ", "a selector must not be empty"},
		{"name", "", "must not be empty"},
		{"namespace", "a,", "must not be empty"},
		{"container", ",", "must not be empty"},
		{"ip", "10.0.0", "an address such as 10.0.0.7 or fe80::1, or a prefix such as 10.0.0.0/8"},
		{"ip", "10.0.0.0/33", "an address such as"},
		{"ip", "fe80::1%eth0", "an address such as"},
		{"ip", "localhost", "an address such as"},
		{"port", "0", "a number from 1 to 65535"},
		{"port", "65536", "a number from 1 to 65535"},
		{"port", "http", "a number from 1 to 65535"},
		{"port", "-1", "a number from 1 to 65535"},
		{"protocol", "bla", "tcp, udp, icmp, ipv6-icmp, sctp or a number from 0 to 255"},
		{"protocol", "256", "a number from 0 to 255"},
		{"direction", "both", "ingress, egress or transit"},
	}
	for _, tt := range tests {
		t.Run(tt.flag+" "+tt.value, func(t *testing.T) {
			_, err := parseFilter("--"+tt.flag, tt.value)
			require.Error(t, err)
			assert.Contains(t, err.Error(), "--"+tt.flag)
			assert.Contains(t, err.Error(), strconv.Quote(tt.value))
			assert.Contains(t, err.Error(), tt.allowed)
		})
	}
}

func TestAnyOf(t *testing.T) {
	assert.Equal(t, "a or b", anyOf([]string{"a", "b"}))
	assert.Equal(t, "a, b or c", anyOf([]string{"a", "b", "c"}))
}

// FuzzFilterValues holds every accepted value to what the server is promised.
func FuzzFilterValues(f *testing.F) {
	for _, seed := range []string{"10.0.0.1", "10.0.0.0/8", "::ffff:1.2.3.4", "fe80::1%eth0", "443", "0443", "tcp", "ICMPv6", "6", "007", "ingress", "in", "syn", ",", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if ip, err := parseIP(s); err == nil {
			_, addrErr := netip.ParseAddr(ip)
			_, prefixErr := netip.ParsePrefix(ip)
			assert.True(t, addrErr == nil || prefixErr == nil, "%q became %q", s, ip)
		}
		if port, err := parsePort(s); err == nil {
			assert.True(t, port >= 1 && port <= 65535, "%q became %d", s, port)
		}
		if protocol, err := parseProtocol(s); err == nil {
			again, err := parseProtocol(protocol)
			require.NoError(t, err)
			assert.Equal(t, protocol, again, "the name that the API uses is its own")
			assert.Equal(t, strings.ToLower(protocol), protocol)
		}
		if direction, err := parseDirection(s); err == nil {
			assert.NotEqual(t, orb8v1.Direction_DIRECTION_UNSPECIFIED, direction)
		}
		if kind, err := parseKind(s); err == nil {
			assert.Contains(t, packetKinds(), kind)
		}
		if limit, err := parseLimit(s); err == nil {
			n, err := strconv.ParseUint(s, 10, 32)
			require.NoError(t, err)
			assert.EqualValues(t, n, limit)
		}
		var names []string
		if err := each(&names, parseName)(s); err == nil {
			assert.Len(t, names, strings.Count(s, ",")+1)
			assert.NotContains(t, names, "")
		}
	})
}
