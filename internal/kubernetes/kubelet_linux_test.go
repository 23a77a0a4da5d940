package kubernetes

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/orb8/orb8/testbed/cluster"
)

// A real kubelet says of a pod what the API server says.
func TestKubeletOfACluster(t *testing.T) {
	c := cluster.Start(t)
	config, err := c.RESTConfig()
	require.NoError(t, err)
	client, err := c.Client()
	require.NoError(t, err)
	pods := client.CoreV1().Pods("default")
	p, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "server"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: cluster.WorkloadImage, Args: []string{"serve", "8000"}}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		p, err = pods.Get(t.Context(), "server", metav1.GetOptions{})
		return err == nil && p.Status.Phase == corev1.PodRunning
	}, 2*soon, 100*time.Millisecond)

	// The kubelet's certificate is one that it signed itself.
	kubelet, err := NewKubelet("https://"+net.JoinHostPort(cluster.NodeIP, "10250"), &tls.Config{InsecureSkipVerify: true}, config)
	require.NoError(t, err)
	defer kubelet.client.CloseIdleConnections()
	require.Eventually(t, func() bool {
		got, err := kubelet.pods(t.Context())
		if err != nil {
			t.Log(err)
			return false
		}
		for _, k := range got {
			if k.UID == string(p.UID) && len(k.Addresses) > 0 {
				want := podFrom(p)
				assert.Equal(t, want, k)
				return true
			}
		}
		return false
	}, soon, time.Second)
}
