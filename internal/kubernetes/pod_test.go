package kubernetes

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const (
	idA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	idB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	idC = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
)

func TestPodFrom(t *testing.T) {
	started := metav1.NewTime(time.Unix(1000, 0))
	p := podFrom(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			UID: "uid", Name: "web-5d4f8c7b9-x2x4z", Namespace: "shop", CreationTimestamp: metav1.NewTime(time.Unix(990, 0)),
			Labels:          map[string]string{"pod-template-hash": "5d4f8c7b9", "app": "web", "a": "b"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web-5d4f8c7b9", Controller: ptr.To(true)}},
		},
		Spec: corev1.PodSpec{
			NodeName: "node-1",
			Containers: []corev1.Container{
				{Name: "web", Image: "registry.example.com:5000/shop/web:1.2", Ports: []corev1.ContainerPort{{ContainerPort: 8080}}},
				{Name: "dns", Image: "dns@sha256:" + idA, Ports: []corev1.ContainerPort{{ContainerPort: 53, Protocol: corev1.ProtocolUDP}}},
			},
			InitContainers: []corev1.Container{{Name: "init", Image: "busybox"}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: &started,
			PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "2001:db8::1"}},
			ContainerStatuses: []corev1.ContainerStatus{
				{
					Name: "web", ContainerID: "containerd://" + idA, State: running(1005),
					LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: "containerd://" + idB}},
				},
				{Name: "dns", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}},
			},
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "init", ContainerID: "cri-o://" + idC, State: terminated(1004)}},
		},
	})
	assert.Equal(t, []Owner{{"ReplicaSet", "web-5d4f8c7b9"}, {"Deployment", "web"}}, p.Workload)
	assert.Equal(t, []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")}, p.Addresses)
	assert.Equal(t, time.Unix(1000, 0), p.from)
	assert.Equal(t, time.Unix(1005, 0), p.running)
	assert.True(t, p.stopped.IsZero(), "a container runs")
	assert.Equal(t, "a=b,app=web", p.Labels(), "without those that tell replicas apart")
	assert.Empty(t, (&Pod{}).Labels())

	for id, want := range map[string]string{idA: "web", idB: "web", idC: "init"} {
		c, ok := p.Container(id)
		require.True(t, ok, want)
		assert.Equal(t, want, c.Name)
	}
	_, ok := p.Container(strings.Repeat("d", 64))
	assert.False(t, ok, "the sandbox")
	for port, want := range map[Port]string{{8080, 6}: "web", {53, 17}: "dns", {53, 6}: "", {8080, 17}: "", {9999, 6}: ""} {
		c, ok := p.ContainerOf(port)
		assert.Equal(t, want != "", ok, "%v", port)
		if ok {
			assert.Equal(t, want, c.Name)
		}
	}
	assert.Equal(t, "registry.example.com:5000/shop/web", p.Containers[0].Image)
	assert.Equal(t, "dns", p.Containers[1].Image)
}

func running(at int64) corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(time.Unix(at, 0))}}
}

func terminated(at int64) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(time.Unix(at, 0))}}
}

func TestWorkload(t *testing.T) {
	created := time.Date(2026, 1, 2, 3, 4, 30, 0, time.UTC)
	for name, tt := range map[string]struct {
		labels map[string]string
		owner  metav1.OwnerReference
		want   []Owner
	}{
		"none":                 {},
		"not the controller":   {owner: metav1.OwnerReference{Kind: "ReplicaSet", Name: "web"}},
		"StatefulSet":          {owner: owner("StatefulSet", "db"), want: []Owner{{"StatefulSet", "db"}}},
		"ReplicaSet by itself": {owner: owner("ReplicaSet", "web-5d4f8c7b9"), want: []Owner{{"ReplicaSet", "web-5d4f8c7b9"}}},
		"ReplicaSet of another hash": {
			labels: map[string]string{"pod-template-hash": "abc"}, owner: owner("ReplicaSet", "web-5d4f8c7b9"),
			want: []Owner{{"ReplicaSet", "web-5d4f8c7b9"}},
		},
		"Deployment with dashes": {
			labels: map[string]string{"pod-template-hash": "7c9"}, owner: owner("ReplicaSet", "a-b-7c9-7c9"),
			want: []Owner{{"ReplicaSet", "a-b-7c9-7c9"}, {"Deployment", "a-b-7c9"}},
		},
		"CronJob": {
			owner: owner("Job", "backup-29455384"), want: []Owner{{"Job", "backup-29455384"}, {"CronJob", "backup"}},
		},
		"Job of a number that is no minute of these days": {owner: owner("Job", "import-20260102"), want: []Owner{{"Job", "import-20260102"}}},
		"Job of a minute to come":                         {owner: owner("Job", "backup-29455390"), want: []Owner{{"Job", "backup-29455390"}}},
		"Job":                                             {owner: owner("Job", "migrate"), want: []Owner{{"Job", "migrate"}}},
		"mirror pod":                                      {owner: owner("Node", "node-1")},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: tt.labels, CreationTimestamp: metav1.NewTime(created)}}
			if tt.owner.Kind != "" {
				pod.OwnerReferences = []metav1.OwnerReference{tt.owner}
			}
			assert.Equal(t, tt.want, workloadOf(pod))
		})
	}
}

func owner(kind, name string) metav1.OwnerReference {
	return metav1.OwnerReference{Kind: kind, Name: name, Controller: ptr.To(true)}
}

func TestContainersKeepTheirIDs(t *testing.T) {
	older := &Pod{Containers: []Container{{Name: "a", ids: []string{"1", "0"}}, {Name: "b", ids: []string{"5"}}}}
	newer := &Pod{Containers: []Container{{Name: "a", ids: []string{"2", "1"}}, {Name: "b"}}}
	newer.inherit(older)
	assert.Equal(t, []string{"2", "1", "0"}, newer.Containers[0].ids)
	assert.Equal(t, []string{"5"}, newer.Containers[1].ids)
	for i := range 2 * maxInstances {
		newer.Containers[0].addID(string(rune('a' + i)))
	}
	assert.Len(t, newer.Containers[0].ids, maxInstances)
}

func TestImageName(t *testing.T) {
	for image, want := range map[string]string{
		"nginx": "nginx", "nginx:1.27": "nginx", "localhost:5000/nginx": "localhost:5000/nginx",
		"localhost:5000/nginx:1.27@sha256:00": "localhost:5000/nginx", "": "",
	} {
		assert.Equal(t, want, imageName(image), image)
	}
}
