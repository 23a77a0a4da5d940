package flowmetricsconnector

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/orb8/orb8/internal/flow"
)

// named notes attributes, which Go hands over in any order.
func named(attributes map[string]string) *naming {
	var n naming
	for name, value := range attributes {
		n.note(name, pcommon.NewValueStr(value))
	}
	return &n
}

func TestWorkloadIsTheBestNameKnown(t *testing.T) {
	// From the worst to the best; each is asked for together with all before it.
	attributes := map[string]string{"address": "203.0.113.9", flow.AttrNamespace: "shop", flow.AttrRuntime: "containerd"}
	for _, step := range []struct{ attribute, value, want string }{
		{"address", "203.0.113.7", "public"},
		{flow.AttrDNSName, "api.example.com", "api.example.com"},
		{flow.AttrCgroupPath, "/system.slice/sshd.service", "/system.slice/sshd.service"},
		{flow.AttrUnit, "sshd.service", "sshd.service"},
		{flow.AttrContainerID, "0123abcd", "0123abcd"},
		{"container.name", "web-1", "web-1"},
		{flow.AttrPodUID, "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"},
		{flow.AttrService, "front", "shop/front"},
		{flow.AttrPod, "checkout-5d4f-x7", "shop/checkout-5d4f-x7"},
		{"k8s.replicaset.name", "checkout-5d4f", "shop/checkout-5d4f"},
		{"k8s.job.name", "report-2907", "shop/report-2907"},
		{"k8s.cronjob.name", "report", "shop/report"},
		{"k8s.daemonset.name", "logs", "shop/logs"},
		{"k8s.statefulset.name", "db", "shop/db"},
		{"k8s.deployment.name", "checkout", "shop/checkout"},
	} {
		attributes[step.attribute] = step.value
		got, ok := named(attributes).workload()
		assert.True(t, ok)
		assert.Equal(t, step.want, got.String(), step.attribute)
	}
}

func TestWorkloadWithoutAnything(t *testing.T) {
	for name, attributes := range map[string]map[string]string{
		"nothing":          {},
		"no address":       {"address": "here"},
		"empty name":       {flow.AttrUnit: ""},
		"only a namespace": {flow.AttrNamespace: "shop"},
	} {
		_, ok := named(attributes).workload()
		assert.False(t, ok, name)
	}
	got, ok := named(map[string]string{flow.AttrPod: "web"}).workload()
	assert.True(t, ok)
	assert.Equal(t, "web", got.String(), "a pod whose namespace is not known")
}

func TestTheResourceImprovesTheName(t *testing.T) {
	for name, test := range map[string]struct {
		record, resource map[string]string
		want             string
	}{
		"better":       {map[string]string{flow.AttrCgroupPath: "/a"}, map[string]string{flow.AttrUnit: "a.service"}, "a.service"},
		"worse":        {map[string]string{flow.AttrUnit: "a.service"}, map[string]string{flow.AttrCgroupPath: "/a"}, "a.service"},
		"in two parts": {map[string]string{flow.AttrPod: "web"}, map[string]string{flow.AttrNamespace: "shop"}, "shop/web"},
		"nothing":      {map[string]string{"address": "10.0.0.1"}, nil, "private"},
		"the address of the resource is not the end's": {
			map[string]string{"address": "10.0.0.1"}, map[string]string{"address": "8.8.8.8"}, "private",
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := named(test.record)
			n.improve(named(test.resource))
			got, ok := n.workload()
			assert.True(t, ok)
			assert.Equal(t, test.want, got.String())
		})
	}
}

func TestKindsOfAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1": "loopback", "127.8.9.10": "loopback", "::1": "loopback",
		"0.0.0.0": "unspecified", "::": "unspecified",
		"224.0.0.251": "multicast", "ff02::1": "multicast", "255.255.255.255": "broadcast",
		"169.254.169.254": "link-local", "fe80::1": "link-local",
		"10.1.2.3": "private", "172.16.0.1": "private", "172.31.255.255": "private", "192.168.0.1": "private", "fd00::1": "private",
		"100.64.0.0": "private", "100.127.255.255": "private",
		"100.63.255.255": "public", "100.128.0.0": "public", "172.32.0.1": "public", "8.8.8.8": "public", "2001:db8::1": "public",
	} {
		assert.Equal(t, want, kindOf(netip.MustParseAddr(address)), address)
	}
	got, ok := named(map[string]string{"address": "::ffff:10.0.0.1"}).workload()
	assert.True(t, ok)
	assert.Equal(t, "private", got.String(), "IPv4 in IPv6")
}
