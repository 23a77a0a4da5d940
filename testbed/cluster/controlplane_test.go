//go:build linux

package cluster

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestControlPlane(t *testing.T) {
	p := StartControlPlane(t, ControlPlaneOptions{})
	client, err := p.Client()
	require.NoError(t, err)
	version, err := client.Discovery().ServerVersion()
	require.NoError(t, err)
	assert.Equal(t, KubernetesVersion, version.GitVersion)

	pods := client.CoreV1().Pods("default")
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "server", Image: "web"}}},
	}
	_, err = pods.Create(t.Context(), pod, metav1.CreateOptions{})
	require.NoError(t, err)

	require.NoError(t, p.StopAPIServer())
	_, err = pods.Get(t.Context(), "web", metav1.GetOptions{})
	require.ErrorContains(t, err, "refused")
	require.NoError(t, p.StopAPIServer(), "it is stopped already")
	audit, err := p.Audit("system:masters")
	require.NoError(t, err)
	require.NoError(t, p.StartAPIServer(t.Context()))
	require.ErrorContains(t, p.StartAPIServer(t.Context()), "runs already")
	_, err = pods.Get(t.Context(), "web", metav1.GetOptions{})
	require.NoError(t, err, "what was there before the API server was stopped")

	kubectl, err := p.Kubectl(t.Context(), "get", "pods", "--output=name")
	require.NoError(t, err)
	text, err := kubectl.CombinedOutput()
	require.NoError(t, err, "%s", text)
	assert.Equal(t, "pod/web\n", string(text))
	requests, err := os.ReadFile(audit)
	require.NoError(t, err)
	assert.Regexp(t, `"requestURI":"/api/v1/namespaces/default/pods\?limit=500","verb":"list","user":\{"username":"admin"`, string(requests))
}
