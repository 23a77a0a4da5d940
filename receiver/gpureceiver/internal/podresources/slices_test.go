package podresources

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func slice(name string, devices map[string]string) *resourcev1.ResourceSlice {
	s := &resourcev1.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       resourcev1.ResourceSliceSpec{Driver: DriverNVIDIA, Pool: resourcev1.ResourcePool{Name: "node-a"}},
	}
	for device, key := range devices {
		value := "GPU-" + device
		s.Spec.Devices = append(s.Spec.Devices, resourcev1.Device{
			Name: device, Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{resourcev1.QualifiedName(key): {StringValue: &value}},
		})
	}
	return s
}

func TestSlices(t *testing.T) {
	client := fake.NewClientset(slice("a", map[string]string{"gpu-0": "uuid", "gpu-1": "gpu.nvidia.com/uuid", "gpu-2": "serial"}))
	var selectors []string
	refuse := false
	client.PrependReactor("list", "resourceslices", func(a clienttesting.Action) (bool, runtime.Object, error) {
		selectors = append(selectors, a.(clienttesting.ListAction).GetListRestrictions().Fields.String())
		return refuse, nil, errors.New("forbidden")
	})
	var failures []error
	s := NewSlices(client, "node-a", func(err error) { failures = append(failures, err) })
	now := time.Now()
	s.now = func() time.Time { return now }

	resolve := func(device string) string {
		uuid, ok := s.Resolve(t.Context(), DriverNVIDIA, "node-a", device)
		assert.Equal(t, ok, uuid != "")
		return uuid
	}
	assert.Equal(t, "GPU-gpu-0", resolve("gpu-0"))
	assert.Equal(t, "GPU-gpu-1", resolve("gpu-1"))
	assert.Empty(t, resolve("gpu-2"))
	assert.Empty(t, resolve("gpu-3"))
	assert.Equal(t, []string{"spec.nodeName=node-a"}, selectors, "not asked again at once")

	_, err := client.ResourceV1().ResourceSlices().Create(t.Context(), slice("b", map[string]string{"gpu-3": "uuid"}), metav1.CreateOptions{})
	require.NoError(t, err)
	assert.Empty(t, resolve("gpu-3"))
	now = now.Add(slicesInterval)
	assert.Equal(t, "GPU-gpu-3", resolve("gpu-3"))

	refuse = true
	for range 2 {
		now = now.Add(slicesInterval)
		assert.Empty(t, resolve("gpu-4"))
		assert.Equal(t, "GPU-gpu-0", resolve("gpu-0"), "what was known stays")
	}
	require.Len(t, failures, 1, "said once")
	assert.EqualError(t, failures[0], "cannot read the ResourceSlices of node node-a, so which GPU a claim has is not known: forbidden")
}

func TestStrategy(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a", Labels: map[string]string{"nvidia.com/gpu.sharing-strategy": "mps"}}}
	client := fake.NewClientset(node)
	var failures []error
	s := NewSlices(client, "node-a", func(err error) { failures = append(failures, err) })
	now := time.Now()
	s.now = func() time.Time { return now }
	assert.Equal(t, "mps", s.Strategy(t.Context()))
	for _, c := range []struct{ label, value, want string }{
		{"cloud.google.com/gke-gpu-sharing-strategy", "time-sharing", "time-slicing"},
		{"nvidia.com/gpu.sharing-strategy", "none", ""},
	} {
		before := s.Strategy(t.Context())
		node.Labels = map[string]string{c.label: c.value}
		_, err := client.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{})
		require.NoError(t, err)
		assert.Equal(t, before, s.Strategy(t.Context()), "not asked again at once")
		now = now.Add(labelsInterval)
		assert.Equal(t, c.want, s.Strategy(t.Context()))
	}
	require.NoError(t, client.CoreV1().Nodes().Delete(t.Context(), "node-a", metav1.DeleteOptions{}))
	now = now.Add(labelsInterval)
	assert.Empty(t, s.Strategy(t.Context()))
	require.Len(t, failures, 1)
	assert.ErrorContains(t, failures[0], "cannot read the labels of node node-a, so how its GPUs are shared is not known: ")
}

func TestPods(t *testing.T) {
	pod := func(name, uid string, annotations map[string]string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name, UID: types.UID(uid), Annotations: annotations}}
	}
	client := fake.NewClientset(pod("train-0", "1", nil), pod("static-node-a", "2", map[string]string{annotationHash: "hash"}))
	var selectors []string
	refuse := false
	client.PrependReactor("list", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		selectors = append(selectors, a.(clienttesting.ListAction).GetListRestrictions().Fields.String())
		return refuse, nil, errors.New("forbidden")
	})
	var failures []error
	s := NewSlices(client, "node-a", func(err error) { failures = append(failures, err) })
	now := time.Now()
	s.now = func() time.Time { return now }

	assert.Empty(t, s.Pods(t.Context(), []string{""}))
	assert.Empty(t, selectors, "nobody is asked for")
	want := map[string]string{"1": "ml/train-0", "hash": "ml/static-node-a"}
	assert.Equal(t, want, s.Pods(t.Context(), []string{"1", "", "3"}))
	assert.Equal(t, want, s.Pods(t.Context(), []string{"3"}))
	assert.Equal(t, []string{"spec.nodeName=node-a"}, selectors, "not asked again at once")
	now = now.Add(slicesInterval)
	assert.Equal(t, want, s.Pods(t.Context(), []string{"1"}))
	assert.Len(t, selectors, 1, "all are known")
	_, err := client.CoreV1().Pods("ml").Create(t.Context(), pod("infer-0", "3", nil), metav1.CreateOptions{})
	require.NoError(t, err)
	want["3"] = "ml/infer-0"
	assert.Equal(t, want, s.Pods(t.Context(), []string{"3"}))

	refuse = true
	for range 2 {
		now = now.Add(slicesInterval)
		assert.Equal(t, want, s.Pods(t.Context(), []string{"4"}), "what was known stays")
	}
	require.Len(t, failures, 1, "said once")
	assert.EqualError(t, failures[0], "cannot list the pods of node node-a, so whose processes use a GPU is not known: forbidden")
}
