//go:build linux

package e2e

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
)

// TestTruth shows that what the other tests rely on finds mistakes.
func TestTruth(t *testing.T) {
	now := time.Now()
	const web, webSandbox, old = "web0123456789", "sandboxofweb0", "sandboxofold0"
	truth := &truth{
		containers: map[string]container{
			web:        {podUID: "1", name: name{namespace: "shop", pod: "web", container: "nginx"}},
			webSandbox: {podUID: "1", name: name{namespace: "shop", pod: "web"}},
			old:        {podUID: "2", name: name{namespace: "shop", pod: "old"}},
		},
		cgroups: map[uint64]string{7: web},
		leases: map[string][]lease{"10.244.0.9": {
			{sandbox: old, from: now.Add(-2 * time.Hour), to: now.Add(-time.Hour)}, {sandbox: webSandbox, from: now.Add(-30 * time.Minute)},
		}},
	}
	named := end{cgroup: 7, containerID: web, podUID: "1", name: name{namespace: "shop", pod: "web", container: "nginx"}}
	with := func(e end, change func(*end)) end { change(&e); return e }
	at := func(e end, address string) end { e.address = netip.MustParseAddrPort(address); return e }
	byAddress := at(end{podUID: "1", name: name{namespace: "shop", pod: "web"}}, "10.244.0.9:80")
	oldPod := at(end{podUID: "2", name: name{namespace: "shop", pod: "old"}}, "10.244.0.9:80")
	for _, tt := range []struct {
		name string
		end  end
		ago  time.Duration
		want string // empty: nothing wrong
	}{
		{name: "all is said", end: named},
		{name: "sandbox", end: with(named, func(e *end) { e.cgroup, e.containerID, e.container = 0, webSandbox, "" })},
		{name: "not of a pod", end: at(end{}, "192.0.2.1:80")},
		{name: "by address", end: byAddress},
		{name: "by address, then", end: oldPod, ago: 90 * time.Minute},
		{name: "no pod name", end: with(named, func(e *end) { e.pod = "" }), want: "is of shop/web/nginx"},
		{name: "no container name", end: with(named, func(e *end) { e.container = "" }), want: "is of shop/web/nginx"},
		{name: "another namespace", end: with(named, func(e *end) { e.namespace = "default" }), want: "is of shop/web/nginx"},
		{name: "cgroup without a container", end: end{cgroup: 7}, want: "cgroup 7 is of container"},
		{name: "container of another", end: with(named, func(e *end) { e.containerID = old }), want: "cgroup 7 is of container"},
		{name: "unheard of", end: end{containerID: "nobody0000000"}, want: "was never there"},
		{name: "address without a name", end: at(end{}, "10.244.0.9:80"), want: "was not of this pod then"},
		{name: "address of an earlier pod", end: oldPod, want: "was not of this pod then"},
		{name: "address of a later pod", end: byAddress, ago: 90 * time.Minute, want: "was not of this pod then"},
		{name: "address of no pod", end: at(byAddress, "192.0.2.1:80"), want: "is no address of a pod"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			when := now.Add(-tt.ago)
			for _, r := range []record{
				{event: flow.EventNameFlow, start: when, end: when, source: tt.end},
				{event: flow.EventNameFlow, start: when, end: when, destination: tt.end},
				{event: syscalls.EventNameCounts, start: when, end: when, local: tt.end},
			} {
				wrong := truth.check(r)
				if tt.want == "" {
					assert.Empty(t, wrong)
				} else if assert.NotEmpty(t, wrong) {
					assert.Contains(t, wrong[0], tt.want)
				}
			}
		})
	}
}
