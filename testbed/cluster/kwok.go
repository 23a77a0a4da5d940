//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// simulated marks the nodes that kwok plays.
const simulated = "kwok.x-k8s.io/node"

// Simulate adds nodes that exist in the API alone, with pods spread evenly over them and over ten namespaces, and returns
// when all are made. kwok makes nodes ready and pods running, some 200 a
// second, with addresses and without ids of containers. It can be called again for more.
func (p *ControlPlane) Simulate(ctx context.Context, nodes, pods int) error {
	if !p.daemons.running("kwok") {
		if err := p.startKwok(ctx); err != nil {
			return err
		}
	}
	client, err := p.Client()
	if err != nil {
		return err
	}
	if err := many(nodes, func(i int) error {
		_, err := client.CoreV1().Nodes().Create(ctx, simulatedNode(i), metav1.CreateOptions{})
		return existing(err)
	}); err != nil {
		return fmt.Errorf("cannot make simulated nodes: %w", err)
	}
	if pods == 0 {
		return nil
	}
	if nodes == 0 {
		return errors.New("cannot make simulated pods: no nodes for them")
	}
	if err := many(simulatedNamespaces, func(i int) error { return namespaceFor(ctx, client, i) }); err != nil {
		return fmt.Errorf("cannot make namespaces: %w", err)
	}
	if err := many(pods, func(i int) error {
		pod := simulatedPod(i, i%nodes)
		_, err := client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
		return existing(err)
	}); err != nil {
		return fmt.Errorf("cannot make simulated pods: %w", err)
	}
	return nil
}

func (p *ControlPlane) startKwok(ctx context.Context) error {
	program, err := p.cache.program(kwokModule, "kwok")
	if err != nil {
		return err
	}
	return p.startDaemon(ctx, "kwok", program,
		"--kubeconfig="+p.Kubeconfig(), "--config="+filepath.Join(filepath.Dir(program), stagesFile),
		"--manage-all-nodes=false", "--manage-nodes-with-annotation-selector="+simulated+"=fake",
		// Addresses that the real node's pods do not have.
		"--cidr=10.128.0.0/10", "--node-ip="+NodeIP, "--node-lease-duration-seconds=200", "--server-address=127.0.0.1:0")
}

const simulatedNamespaces = 10

func simulatedNamespace(i int) string { return fmt.Sprintf("simulated-%d", i%simulatedNamespaces) }

// namespaceFor makes a namespace and the service account without which no pod is let in.
func namespaceFor(ctx context.Context, client kubernetes.Interface, i int) error {
	name := simulatedNamespace(i)
	_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if existing(err) != nil {
		return err
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	_, err = client.CoreV1().ServiceAccounts(name).Create(ctx, account, metav1.CreateOptions{})
	return existing(err)
}

func simulatedNode(i int) *corev1.Node {
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("32"), corev1.ResourceMemory: resource.MustParse("256Gi"), corev1.ResourcePods: resource.MustParse("250"),
	}
	name := fmt.Sprintf("simulated-%d", i)
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Annotations: map[string]string{simulated: "fake"},
			Labels: map[string]string{
				corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelTopologyZone: fmt.Sprintf("zone-%c", 'a'+i%3),
			},
		},
		// Pods of others must not be given to a node that does not exist.
		Spec:   corev1.NodeSpec{Taints: []corev1.Taint{{Key: simulated, Value: "fake", Effect: corev1.TaintEffectNoSchedule}}},
		Status: corev1.NodeStatus{Capacity: room, Allocatable: room},
	}
}

func simulatedPod(i, node int) *corev1.Pod {
	app := fmt.Sprintf("app-%d", i/20)
	none := false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("%s-%d", app, i%20), Namespace: simulatedNamespace(i),
			Labels: map[string]string{"app.kubernetes.io/name": app},
		},
		Spec: corev1.PodSpec{
			NodeName: fmt.Sprintf("simulated-%d", node), AutomountServiceAccountToken: &none,
			Tolerations: []corev1.Toleration{{Key: simulated, Operator: corev1.TolerationOpExists}},
			Containers:  []corev1.Container{{Name: "app", Image: WorkloadImage}},
		},
	}
}

// existing is an error but for what is there already.
func existing(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// many calls f for 0 to n-1, several at a time, until one fails.
func many(n int, f func(i int) error) error {
	const workers = 32
	next := make(chan int)
	failed := make(chan error, workers)
	var all sync.WaitGroup
	for range min(n, workers) {
		all.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	err := func() error {
		defer close(next)
		for i := range n {
			select {
			case next <- i:
			case err := <-failed:
				return err
			}
		}
		return nil
	}()
	all.Wait()
	close(failed)
	for e := range failed {
		err = errors.Join(err, e)
	}
	return err
}
