//go:build linux

package gateway

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// serveNames starts an API server that knows the pods of the simulated cluster, in which nothing changes, and returns a kubeconfig
// for it. The testbed's real one would need the machine for itself to hold as many.
func serveNames(t testing.TB, nodes int) (kubeconfig string) {
	t.Helper()
	list := &corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
	for i := range nodes * podsPerNode {
		list.Items = append(list.Items, describe(pod(i)))
	}
	pods, err := json.Marshal(list)
	require.NoError(t, err)
	empty := map[string]string{
		"/api/v1/nodes": `{"apiVersion":"v1","kind":"NodeList"`, "/api/v1/services": `{"apiVersion":"v1","kind":"ServiceList"`,
		"/apis/discovery.k8s.io/v1/endpointslices": `{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSliceList"`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch query := r.URL.Query(); {
		case query.Get("sendInitialEvents") != "":
			// As servers do that do not stream lists: clients then ask for one.
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = w.Write([]byte(`{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Invalid","code":422}`))
		case query.Get("watch") != "":
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case r.URL.Path == "/api/v1/pods":
			_, _ = w.Write(pods)
		case empty[r.URL.Path] != "":
			_, _ = w.Write([]byte(empty[r.URL.Path] + `,"metadata":{"resourceVersion":"1"},"items":[]}`))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	config := api.NewConfig()
	config.Clusters["c"] = &api.Cluster{Server: server.URL}
	config.Contexts["c"] = &api.Context{Cluster: "c"}
	config.CurrentContext = "c"
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, clientcmd.WriteToFile(*config, kubeconfig))
	return kubeconfig
}

func describe(p pod) corev1.Pod {
	controller, started := true, metav1.NewTime(time.Now().Add(-time.Hour).Truncate(time.Second))
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}}
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: p.name(), Namespace: p.namespace(), UID: types.UID(p.uid()), ResourceVersion: "1", CreationTimestamp: started,
			Labels:          map[string]string{"app": p.workload(), "pod-template-hash": "6d4cf56db6"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: p.replicaSet(), UID: "1", Controller: &controller}},
		},
		Spec: corev1.PodSpec{NodeName: nodeName(p.node()), Containers: []corev1.Container{{
			Name: "server", Image: "registry.example/" + p.workload() + ":1", Ports: []corev1.ContainerPort{{ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
		}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: p.address().String(), PodIPs: []corev1.PodIP{{IP: p.address().String()}}, StartTime: &started,
			ContainerStatuses: []corev1.ContainerStatus{{Name: "server", ContainerID: "containerd://" + p.container(), Ready: true, State: running}},
		},
	}
}
