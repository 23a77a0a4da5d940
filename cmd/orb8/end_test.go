package main

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

func TestParseEnd(t *testing.T) {
	tests := map[string]end{
		"cart-0":                  {kind: endPod, name: "cart-0"},
		"shop/cart-0":             {kind: endPod, name: "shop/cart-0"},
		"pod/cart-0":              {kind: endPod, name: "cart-0"},
		"po/shop/cart-0":          {kind: endPod, name: "shop/cart-0"},
		"pod/a.b":                 {kind: endPod, name: "a.b"},
		"shop/":                   {kind: endNamespace, name: "shop"},
		"ns/shop":                 {kind: endNamespace, name: "shop"},
		"ns/shop/":                {kind: endNamespace, name: "shop"},
		"svc/cart":                {kind: endService, name: "cart"},
		"service/shop/cart":       {kind: endService, name: "shop/cart"},
		"deploy/cart":             {kind: endWorkload, name: "cart"},
		"sts/shop/db":             {kind: endWorkload, name: "shop/db"},
		"workload/db":             {kind: endWorkload, name: "db"},
		"10.0.0.7":                {kind: endAddress, name: "10.0.0.7"},
		"10.0.0.0/8":              {kind: endAddress, name: "10.0.0.0/8"},
		"FD00:0::1":               {kind: endAddress, name: "fd00::1"},
		"[fd00::1]":               {kind: endAddress, name: "fd00::1"},
		"::/0":                    {kind: endAddress, name: "::/0"},
		"ip/10.0.0.7":             {kind: endAddress, name: "10.0.0.7"},
		"cidr/fd00::/8":           {kind: endAddress, name: "fd00::/8"},
		"example.com":             {kind: endName, name: "example.com"},
		"*":                       {kind: endName, name: "*"},
		"*.example.com:443":       {kind: endName, name: "*.example.com", port: 443},
		"name/db":                 {kind: endName, name: "db"},
		"10.0.0.7:53":             {kind: endAddress, name: "10.0.0.7", port: 53},
		"[fd00::1]:443":           {kind: endAddress, name: "fd00::1", port: 443},
		"svc/shop/cart:8080":      {kind: endService, name: "shop/cart", port: 8080},
		"shop/:80":                {kind: endNamespace, name: "shop", port: 80},
		":53":                     {port: 53},
		"cart-0:80":               {kind: endPod, name: "cart-0", port: 80},
		"kube-system/coredns-1:9": {kind: endPod, name: "kube-system/coredns-1", port: 9},
	}
	for s, want := range tests {
		got, err := parseEnd(s)
		require.NoError(t, err, s)
		assert.Equal(t, want, got, s)
	}
}

func TestParseEndRefuses(t *testing.T) {
	for s, says := range map[string]string{
		"":               "use NAME or NAMESPACE/NAME",
		"/":              "a name must not be empty",
		"ns/":            "a name must not be empty",
		"ns/a/b":         `"a/b" is no namespace`,
		"a/b/c":          "use NAME or NAMESPACE/NAME",
		"svc//b":         "use NAME or NAMESPACE/NAME",
		"pod/":           "use NAME or NAMESPACE/NAME",
		"ip/example.com": "use an address such as",
		"name/":          "a name must not be empty",
		"web:http":       `"http" is no port`,
		"web:":           `"" is no port`,
		":":              `"" is no port`,
		"[web]:80":       "is no address in brackets",
		"[::1]80":        "something other than :PORT",
	} {
		_, err := parseEnd(s)
		require.Error(t, err, s)
		assert.Contains(t, err.Error(), says, s)
	}
}

// TestEndsOfOneFlagAreAlternatives holds that values of different kinds do not have to match at the same time.
func TestEndsOfOneFlagAreAlternatives(t *testing.T) {
	got, err := parseFilter("--from", "web,shop/cart-0,10.0.0.0/8", "--to", "svc/db,svc/shop/db,:53,:5353", "--protocol", "tcp")
	require.NoError(t, err)
	pods := &orb8v1.EndpointFilter{Pods: []string{"web", "shop/cart-0"}}
	network := &orb8v1.EndpointFilter{Ips: []string{"10.0.0.0/8"}}
	services := &orb8v1.EndpointFilter{Services: []string{"db", "shop/db"}}
	ports := &orb8v1.EndpointFilter{Ports: []uint32{53, 5353}}
	want := []*orb8v1.FlowFilter{
		{Source: pods, Destination: services, Protocols: []string{"tcp"}},
		{Source: pods, Destination: ports, Protocols: []string{"tcp"}},
		{Source: network, Destination: services, Protocols: []string{"tcp"}},
		{Source: network, Destination: ports, Protocols: []string{"tcp"}},
	}
	require.Len(t, got, len(want))
	for i := range want {
		assert.True(t, proto.Equal(want[i], got[i]), "want %v, got %v", want[i], got[i])
	}
}

func TestCgroupOfFlowsAndLookups(t *testing.T) {
	want := &orb8v1.FlowFilter{Cgroups: []string{"/system.slice/nginx.service"}, Ports: []uint32{53}}
	got, err := parseFilter("--cgroup", "/system.slice/nginx.service", "--port", "53")
	require.NoError(t, err)
	require.Len(t, got, 1)
	assert.True(t, proto.Equal(want, got[0]), "got %v", got[0])
	lookups := (&choice{flow: orb8v1.FlowFilter{Ports: []uint32{53}}, cgroups: want.Cgroups}).lookups()
	require.Len(t, lookups, 1)
	assert.True(t, proto.Equal(want, lookups[0].GetFlow()), "got %v", lookups[0])
}

// TestPortsOfEndsStayTheirs holds that the port of one value says nothing of another one.
func TestPortsOfEndsStayTheirs(t *testing.T) {
	got, err := parseFilter("--to", "svc/a:80,svc/b,svc/c:80")
	require.NoError(t, err)
	require.Len(t, got, 2)
	assert.True(t, proto.Equal(&orb8v1.EndpointFilter{Services: []string{"a", "c"}, Ports: []uint32{80}}, got[0].GetDestination()))
	assert.True(t, proto.Equal(&orb8v1.EndpointFilter{Services: []string{"b"}}, got[1].GetDestination()))
}

// FuzzFilterFlags parses whole command lines: whatever is accepted must say of each end one kind of thing, and lose no value.
func FuzzFilterFlags(f *testing.F) {
	for _, seed := range []string{
		"--from web --to svc/shop/db:5432", "--not --port 53 --pod web", "--from a,b/,10.0.0.0/8,*.x:1 --not --to [::1]:2,:3",
		"-l app=web,tier!=cache --not -l x", "--not --not --port 1", `-l 'env in (a, b)' --name="*.x"`, "--from ns/ns/ --to pod/pod/pod", "--to deploy/a/b:70000",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		filters, err := parseFilters(line, &app{})
		if err != nil {
			return
		}
		for _, c := range append(filters.deny, filters.allow) {
			for _, flow := range c.flows() {
				for _, end := range []*orb8v1.EndpointFilter{flow.GetSource(), flow.GetDestination()} {
					if end == nil {
						continue
					}
					kinds := 0
					for _, values := range [][]string{end.GetPods(), end.GetNamespaces(), end.GetServices(), end.GetWorkloads(), end.GetNames(), end.GetIps()} {
						if len(values) > 0 {
							kinds++
						}
						assert.NotContains(t, values, "")
					}
					assert.LessOrEqual(t, kinds, 1, "%q: %v", line, end)
					assert.True(t, kinds == 1 || len(end.GetPorts()) > 0, "%q: %v", line, end)
					for _, ip := range end.GetIps() {
						_, addrErr := netip.ParseAddr(ip)
						_, prefixErr := netip.ParsePrefix(ip)
						assert.True(t, addrErr == nil || prefixErr == nil, "%q: %q", line, ip)
					}
				}
			}
			values := 0
			for _, f := range endpointFilters(c.from) {
				values += len(f.GetPods()) + len(f.GetNamespaces()) + len(f.GetServices()) + len(f.GetWorkloads()) + len(f.GetNames()) + len(f.GetIps())
			}
			named := 0
			for _, e := range c.from {
				if e.kind != endAny {
					named++
				}
			}
			assert.Equal(t, named, values, line)
		}
	})
}
