//go:build linux

package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/orb8/orb8/testbed/cluster"
)

// envChurn names the environment variable of how long pods come and go: 10m for the documented measurement.
const envChurn = "ORB8_CHURN"

const (
	// churnPort is the server's port for the first pod; each has one of its own, which says who called without a look at
	// addresses or cgroups.
	churnPort = 20000
	churnPods = 2000
	// churnEvery is how often a pod comes.
	churnEvery = 1500 * time.Millisecond
)

func TestChurn(t *testing.T) {
	length := duration(t, envChurn, time.Minute)
	c := cluster.Start(t)
	truth := newTruth(t, c)
	o := startOrb8(t, c)
	server := startServer(t, c, fmt.Sprintf("%d-%d", churnPort, churnPort+churnPods-1))
	client, err := c.Client()
	require.NoError(t, err)

	churn := &churner{client: client, server: server, gone: map[string]bool{}, running: map[string]time.Time{}}
	tick := time.NewTicker(churnEvery)
	defer tick.Stop()
	for end := time.Now().Add(length); time.Now().Before(end); <-tick.C {
		churn.begin(t)
		churn.end(t)
	}
	require.Eventually(t, func() bool { return churn.end(t) == 0 }, time.Minute, churnEvery, "pods do not end")

	conversations := churn.conversations()
	o.sink.await(t, 0, 30*time.Second, "a connection of each pod from both ends", func(all []record) bool {
		byPort := map[uint16][]record{}
		for _, r := range all {
			byPort[r.source.address.Port()] = append(byPort[r.source.address.Port()], r)
			byPort[r.destination.address.Port()] = append(byPort[r.destination.address.Port()], r)
		}
		for _, conversation := range conversations {
			if atClient, atServer := conversation.connections(byPort[conversation.port]); atClient == 0 || atServer == 0 {
				return false
			}
		}
		return true
	})
	records := o.sink.since(0)
	var wrong []string
	for _, conversation := range conversations {
		wrong = append(wrong, conversation.checkRecords(records)...)
	}
	report(t, wrong)
	wrong, checked := truth.checkAll(records)
	report(t, wrong)
	reused := truth.reused()
	if length >= 10*time.Minute {
		assert.Positive(t, reused, "addresses that were used again")
	}
	t.Logf("%d pods in %s, %d records of containers, %d addresses used again", len(conversations), length, checked, reused)
}

// duration reads one from the environment.
func duration(t *testing.T, variable string, otherwise time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	require.NoError(t, err, "%s", variable)
	return d
}

// serverName is what records must call the server of startServer.
var serverName = name{namespace: "default", pod: "server", container: "answers"}

// startServer starts a server and returns its address.
func startServer(t *testing.T, c *cluster.Cluster, ports string) string {
	t.Helper()
	require.NoError(t, c.Apply(t.Context(), `
apiVersion: v1
kind: Pod
metadata: {name: server}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: answers, image: `+cluster.WorkloadImage+`, args: [serve, "`+ports+`"]}]
`))
	kubectl(t, c, "wait", "pod/server", "--for=condition=Ready", "--timeout=60s")
	return kubectl(t, c, "get", "pod/server", "--output=jsonpath={.status.podIP}")
}

// churner makes pods and deletes them again: of Jobs that have ended, and others while they run.
type churner struct {
	client kubernetes.Interface
	server string
	made   int
	// gone are pods that were deleted, running are those that run since a time.
	gone    map[string]bool
	running map[string]time.Time
}

func churnName(i int) string { return fmt.Sprintf("churn-%d", i) }

// isJob is whether a pod is one of a Job, and ends by itself.
func isJob(i int) bool { return i%2 == 0 }

// begin makes the next pod.
func (c *churner) begin(t *testing.T) {
	t.Helper()
	require.Less(t, c.made, churnPods, "the server has no port for another pod")
	i := c.made
	c.made++
	meta := metav1.ObjectMeta{Name: churnName(i), Labels: map[string]string{"churn": "yes"}}
	grace := int64(0)
	spec := corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: &grace,
		Containers: []corev1.Container{{
			Name: "calls", Image: cluster.WorkloadImage, Args: []string{"call", "-every=200ms", "-for=2s", fmt.Sprintf("%s:%d", c.server, churnPort+i)},
		}},
	}
	var err error
	if isJob(i) {
		template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: meta.Labels}, Spec: spec}
		_, err = c.client.BatchV1().Jobs("default").Create(t.Context(),
			&batchv1.Job{ObjectMeta: meta, Spec: batchv1.JobSpec{Template: template}}, metav1.CreateOptions{})
	} else {
		spec.Containers[0].Args[2] = "-for=1h"
		_, err = c.client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{ObjectMeta: meta, Spec: spec}, metav1.CreateOptions{})
	}
	require.NoError(t, err)
}

// end deletes pods that have ended, and those that will not, after two seconds. It returns how many are left.
func (c *churner) end(t *testing.T) int {
	t.Helper()
	pods, err := c.client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: "churn"})
	require.NoError(t, err)
	for _, pod := range pods.Items {
		if c.gone[pod.Name] {
			continue
		}
		since, runs := c.running[pod.Name]
		if pod.Status.Phase == corev1.PodRunning && !runs {
			c.running[pod.Name] = time.Now()
		}
		job := pod.Labels[batchv1.JobNameLabel]
		switch {
		case job != "" && pod.Status.Phase == corev1.PodSucceeded:
			background := metav1.DeletePropagationBackground
			err = c.client.BatchV1().Jobs("default").Delete(t.Context(), job, metav1.DeleteOptions{PropagationPolicy: &background})
		case job == "" && runs && time.Since(since) > 2*time.Second:
			err = c.client.CoreV1().Pods("default").Delete(t.Context(), pod.Name, metav1.DeleteOptions{})
		default:
			continue
		}
		if err != nil && !apierrors.IsNotFound(err) {
			require.NoError(t, err)
		}
		c.gone[pod.Name] = true
	}
	return c.made - len(c.gone)
}

// conversations are those of all pods that were made.
func (c *churner) conversations() (all []conversation) {
	for i := range c.made {
		client := name{namespace: "default", pod: churnName(i), container: "calls"}
		if isJob(i) {
			client.pod, client.workload = client.pod+"-", client.pod
		}
		all = append(all, conversation{port: uint16(churnPort + i), client: client, server: serverName})
	}
	return all
}
