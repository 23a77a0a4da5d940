package syscallanomalyprocessor

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/orb8/orb8/internal/flow"
)

func mapOf(t testing.TB, raw map[string]any) pcommon.Map {
	m := pcommon.NewMap()
	require.NoError(t, m.FromRaw(raw))
	return m
}

func TestWorkload(t *testing.T) {
	const uuid = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
	for want, raw := range map[string]map[string]any{
		"shop/cart/app": {
			flow.AttrNamespace: "shop", "k8s.deployment.name": "cart", "k8s.replicaset.name": "cart-5d", flow.AttrContainer: "app",
			attrImage: "cart", flow.AttrContainerID: "c0ffee", flow.AttrPod: "cart-5d-x",
		},
		"shop/nightly/app":         {flow.AttrNamespace: "shop", "k8s.cronjob.name": "nightly", "k8s.job.name": "nightly-2811", flow.AttrContainer: "app"},
		"nginx":                    {flow.AttrNamespace: "shop", flow.AttrPod: "bare", attrImage: "nginx:1.27", flow.AttrContainerID: "c0ffee"},
		"localhost:5000/nginx":     {attrImage: "localhost:5000/nginx@sha256:0a1b"},
		"localhost:5000/web/app":   {attrImage: "localhost:5000/web/app:v1"},
		"nginx.service":            {flow.AttrUnit: "nginx.service", flow.AttrCgroupPath: "/system.slice/nginx.service"},
		"getty@*.service":          {flow.AttrUnit: "getty@tty1.service"},
		"session-*.scope":          {flow.AttrUnit: "session-12.scope"},
		"run-*.scope":              {flow.AttrUnit: "run-r0123456789abcdef0123456789abcdef.scope"},
		"php8.service":             {flow.AttrUnit: "php8.service"},
		"systemd-udevd.service":    {flow.AttrUnit: "systemd-udevd.service"},
		"deadbeef.service":         {flow.AttrUnit: "deadbeef.service"},
		"c0ffee":                   {flow.AttrContainerID: "c0ffee", flow.AttrCgroupPath: "/docker/c0ffee"},
		"/user.slice/user-*.slice": {flow.AttrCgroupPath: "/user.slice/user-1000.slice"},
		"/lxc/*/init.scope":        {flow.AttrCgroupPath: "/lxc/" + uuid + "/init.scope"},
		"/vm/a-*.x":                {flow.AttrCgroupPath: "/vm/a-" + uuid + ".x"},
		"/":                        {flow.AttrCgroupPath: "/"},
		"":                         {flow.AttrNamespace: "shop", flow.AttrCgroupID: int64(7), flow.AttrUnit: ""},
	} {
		n := naming{sets: defaultWorkload()}
		assert.Equal(t, want, display(string(n.keyOf(mapOf(t, raw)))), "%v", raw)
	}
	n := naming{sets: defaultWorkload()}
	a := string(n.keyOf(mapOf(t, map[string]any{flow.AttrNamespace: "a", "k8s.job.name": "b", flow.AttrContainer: "c"})))
	b := string(n.keyOf(mapOf(t, map[string]any{flow.AttrNamespace: "a", "k8s.daemonset.name": "b", flow.AttrContainer: "c"})))
	assert.NotEqual(t, a, b, "a Job and a DaemonSet of one name")
}
