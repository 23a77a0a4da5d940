//go:build linux

package cluster

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/orb8/orb8/internal/testutil"
)

func TestSimulate(t *testing.T) {
	c, err := openCache()
	require.NoError(t, err)
	_, err = c.program(kwokModule, "kwok")
	testutil.Require(t, "k8s", err == nil, fmt.Sprint(err))
	p := StartControlPlane(t, ControlPlaneOptions{})
	const nodes, pods = 20, 200
	require.NoError(t, p.Simulate(t.Context(), nodes, pods/2))
	require.NoError(t, p.Simulate(t.Context(), nodes, pods), "more of them")
	client, err := p.Client()
	require.NoError(t, err)
	var list *corev1.PodList
	require.Eventually(t, func() bool {
		list, err = client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{FieldSelector: "status.phase=Running"})
		return err == nil && len(list.Items) == pods
	}, readyTimeout, 100*time.Millisecond, "pods do not run")
	perNode, addresses := map[string]int{}, map[string]bool{}
	for _, pod := range list.Items {
		perNode[pod.Spec.NodeName]++
		addresses[pod.Status.PodIP] = true
	}
	assert.Len(t, perNode, nodes)
	assert.Len(t, addresses, pods, "each pod has an address of its own")
	for node, n := range perNode {
		assert.Equal(t, pods/nodes, n, node)
	}
	require.ErrorContains(t, p.Simulate(t.Context(), 0, 1), "no nodes for them")
}
