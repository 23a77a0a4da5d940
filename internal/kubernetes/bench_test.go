package kubernetes

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// podNumber is a pod of a Deployment, of a cluster with 50 of them on each node.
func podNumber(i int) (*corev1.Pod, netip.Addr) {
	addr := netip.AddrFrom4([4]byte{10, byte(64 + i>>16), byte(i >> 8), byte(i)})
	hash := fmt.Sprintf("%09x", i/10)
	started := metav1.NewTime(time.Unix(1000, 0))
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			UID: types.UID(fmt.Sprintf("0a1b2c3d-4e5f-6071-8293-%012d", i)), Name: fmt.Sprintf("checkout-%s-%05x", hash, i),
			Namespace: fmt.Sprintf("team-%d", i%100), Labels: map[string]string{labelTemplateHash: hash},
			OwnerReferences: []metav1.OwnerReference{owner("ReplicaSet", "checkout-"+hash)},
		},
		Spec: corev1.PodSpec{
			NodeName:   fmt.Sprintf("ip-10-0-%d-%d.eu-west-1.compute.internal", i/50>>8, i/50&255),
			Containers: []corev1.Container{{Name: "server", Image: "registry.example.com/shop/checkout:1.2.3", Ports: []corev1.ContainerPort{{ContainerPort: 8080}}}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: &started, PodIPs: []corev1.PodIP{{IP: addr.String()}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "server", ContainerID: fmt.Sprintf("containerd://%064x", i), State: running(1001)}},
		},
	}, addr
}

// BenchmarkMemory is what a cluster of 50,000 pods takes.
func BenchmarkMemory(b *testing.B) {
	const pods = 50000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		before := heap()
		c := NewCache(true, time.Minute, func() {})
		for i := range pods {
			p, _ := podNumber(i)
			c.setPod(podFrom(p))
		}
		b.ReportMetric(float64(heap()-before)/pods, "B/pod")
		runtime.KeepAlive(c)
	}
}

// BenchmarkAddress is a look-up among 50,000 pods.
func BenchmarkAddress(b *testing.B) {
	c := NewCache(true, time.Minute, func() {})
	var addrs []netip.Addr
	for i := range 50000 {
		p, addr := podNumber(i)
		c.setPod(podFrom(p))
		addrs = append(addrs, addr)
	}
	now := time.Now()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if a := c.Address(addrs[i%len(addrs)], Port{8080, 6}, now, now); a.State != Sure {
			b.Fatal(a.State)
		}
		i += 7919
	}
}
