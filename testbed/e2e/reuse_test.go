//go:build linux

package e2e

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/testbed/cluster"
)

// TestAddressMovesWhileAPIServerAway gives the address of one pod to another while the API server, and so everybody who
// asks it, still says that it is the first one's.
func TestAddressMovesWhileAPIServerAway(t *testing.T) {
	c := cluster.Start(t)
	truth := newTruth(t, c)
	o := startOrb8(t, c)
	server := startServer(t, c, "8000-8001")
	for i, pod := range []string{"first", "second"} {
		require.NoError(t, c.Apply(t.Context(), strings.Replace(caller(pod, server, 8000+uint16(i), time.Hour), "Never", "Always", 1)))
		kubectl(t, c, "wait", "pod/"+pod, "--for=condition=Ready", "--timeout=60s")
	}
	address := kubectl(t, c, "get", "pod/first", "--output=jsonpath={.status.podIP}")
	first := conversation{port: 8000, client: name{namespace: "default", pod: "first", container: "calls"}, server: serverName}
	second := conversation{port: 8001, client: name{namespace: "default", pod: "second", container: "calls"}, server: serverName}
	o.sink.await(t, 0, 30*time.Second, "connections of both", func(all []record) bool {
		_, ofFirst := first.connections(all)
		_, ofSecond := second.connections(all)
		return ofFirst > 0 && ofSecond > 0
	})

	require.NoError(t, c.StopAPIServer())
	// A pod whose sandbox has died gets another, with another address: the one after that which was given away last.
	truth.killSandbox(t, "first")
	truth.giveNext(t, address)
	truth.killSandbox(t, "second")
	require.Equal(t, "second", truth.holder(address))

	moved := func(all []record) (rows []record) {
		for _, r := range second.records(all) {
			if r.source.address.Addr().String() == address || r.destination.address.Addr().String() == address {
				rows = append(rows, r)
			}
		}
		return rows
	}
	const enough = 20
	records := o.sink.await(t, 0, 30*time.Second, "records from each end at the address that has moved", func(all []record) bool {
		atClient, atServer := second.connections(moved(all))
		return atClient > enough && atServer > enough
	})
	var wrong []string
	unnamed := 0
	for _, r := range moved(records) {
		client, here := r.source, r.egress
		if !second.fromClient(r) {
			client, here = r.destination, !r.egress
		}
		switch {
		case client.pod == "second" && client.namespace == "default":
		case client.pod == "" && !here:
			unnamed++ // by its address alone it may be left without a name
		default:
			wrong = append(wrong, r.String())
		}
	}
	report(t, wrong)
	t.Logf("%d records, of which %d leave the peer unnamed", len(moved(records)), unnamed)

	require.NoError(t, c.StartAPIServer(t.Context()))
	since := time.Now()
	o.sink.await(t, 0, time.Minute, "the peer's name after the API server has come back", func(all []record) bool {
		for _, r := range moved(all) {
			if !r.egress && second.fromClient(r) && r.start.After(since) && second.client.matches(r.source.name) {
				return true
			}
		}
		return false
	})
}

// fromClient is whether the client sent what the record counts.
func (c conversation) fromClient(r record) bool { return c.isServer(r.destination.address.Port()) }

// killSandbox kills the process that holds a pod's namespaces, and returns when the pod has a new address.
func (r *truth) killSandbox(t *testing.T, pod string) {
	t.Helper()
	sandbox := r.sandbox(pod)
	text, err := os.ReadFile(filepath.Join(r.bundles, sandbox, "init.pid"))
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	require.Eventually(t, func() bool {
		now := r.sandbox(pod)
		return now != "" && now != sandbox
	}, time.Minute, pollInterval, "pod %s gets no new sandbox", pod)
}

// sandbox returns the id of the sandbox whose address a pod has now.
func (r *truth) sandbox(pod string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, all := range r.leases {
		if last := all[len(all)-1]; last.to.IsZero() && r.containers[last.sandbox].pod == pod {
			return last.sandbox
		}
	}
	return ""
}

// holder returns the pod that has an address now.
func (r *truth) holder(address string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.leases[address]
	if len(all) == 0 || !all[len(all)-1].to.IsZero() {
		return ""
	}
	return r.containers[all[len(all)-1].sandbox].pod
}

// giveNext makes the network plugin, which goes through its addresses in turn, give this one to the next pod.
func (r *truth) giveNext(t *testing.T, address string) {
	t.Helper()
	require.Eventually(t, func() bool { return r.holder(address) == "" }, time.Minute, pollInterval, "%s is not free", address)
	before := netip.MustParseAddr(address).Prev().String()
	require.NoError(t, os.WriteFile(filepath.Join(r.addresses, "last_reserved_ip.0"), []byte(before), 0o600))
}
