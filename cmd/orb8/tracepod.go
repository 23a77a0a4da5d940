package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

const (
	agentAccount = "orb8-agent"
	// keptAfter is how long the cluster keeps a pod that has ended: what it said last is read by then.
	keptAfter = 10 * time.Second
	// deleteTimeout is how long a cluster may take to delete what was made.
	deleteTimeout = 10 * time.Second
)

// startThere starts a pod on a node, and returns a connection that deletes it when it is closed. Should this process not come to that,
// the pod ends when nobody has been connected for a while, and the cluster removes it: it is a Job's.
func (n *traceNode) startThere(ctx context.Context, a *app, node string) (*connection, error) {
	name := "orb8-trace-" + strings.ToLower(rand.Text()[:10])
	namespace, account, err := n.place(ctx, &a.kube)
	if err != nil {
		return nil, err
	}
	kube := a.kube
	kube.namespace = namespace
	if account == "" {
		a.notice("pods are shown by their UIDs: no service account that may read pods; --trace-service-account names one")
	}
	a.notice("starting pod %s/%s on node %s, which has no agent", namespace, name, node)
	manifest, err := json.Marshal(n.job(name, node, account))
	if err != nil {
		return nil, err
	}
	remove := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deleteTimeout)
		defer cancel()
		if _, err := kube.run(ctx, nil, "delete", "job", name, "--cascade=background", "--wait=false", "--ignore-not-found"); err != nil {
			a.notice("cannot delete job %s/%s (%v): the cluster does, soon after", namespace, name, err)
		}
	}
	if _, err := kube.run(ctx, manifest, "create", "--filename", "-"); err != nil {
		remove() // what kubectl did before it was interrupted, for one
		return nil, fmt.Errorf("cannot start a pod on node %s: %w", node, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("it took longer than %v", startTimeout))
	defer cancel()
	c, err := n.reach(ctx, a, &kube, name)
	if err != nil {
		why := kube.whyNot(context.WithoutCancel(ctx), name)
		remove()
		return nil, fmt.Errorf("pod %s on node %s does not answer: %w%s", name, node, err, why)
	}
	closeConnection := c.close
	c.name = "pod " + name
	c.close = func() {
		closeConnection()
		remove()
	}
	return c, nil
}

// place returns where the pod goes, and as whom.
func (n *traceNode) place(ctx context.Context, kube *kubeOptions) (namespace, account string, err error) {
	namespace, account = n.namespace, n.account
	if namespace != "" && account != "" {
		return namespace, account, nil
	}
	installed := *kube
	installed.namespace = cmp.Or(namespace, kube.namespace)
	found, err := installed.run(ctx, nil, "get", "serviceaccount", cmp.Or(account, agentAccount), "--ignore-not-found", "--output", "name")
	switch {
	case err != nil:
		return "", "", err
	case found == "":
		return cmp.Or(namespace, "default"), account, nil
	}
	return installed.namespace, cmp.Or(account, agentAccount), nil
}

// reach connects to the pod of a job, once it runs.
func (n *traceNode) reach(ctx context.Context, a *app, kube *kubeOptions, job string) (*connection, error) {
	for {
		phase, err := kube.run(ctx, nil, "get", "pods", "--selector", "job-name="+job, "--output", "jsonpath={.items[*].status.phase}")
		switch {
		case err != nil:
			return nil, err
		case phase == "Running":
			t := a.target
			t.kube = *kube
			// Neither certificate nor token: the way there is kubectl's, and nobody else is in the pod.
			t.tls, t.tokenFile = tlsOptions{}, ""
			c, err := t.forwarded(ctx, func(context.Context) (string, error) { return "job/" + job, nil })
			if err != nil {
				return nil, err
			}
			if err := c.awaitAnswer(ctx, nil); err != nil {
				c.close()
				return nil, err
			}
			return c, nil
		case phase == "Failed" || phase == "Succeeded":
			return nil, fmt.Errorf("it has ended")
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(askAgain):
		}
	}
}

// whyNot is what the cluster says of a job's pod, as far as it says anything.
func (k *kubeOptions) whyNot(ctx context.Context, job string) (why string) {
	ctx, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	for _, args := range [][]string{
		{"get", "pods", "--selector", "job-name=" + job, "--output", "jsonpath={.items[*].status.containerStatuses[*].state.*.message}"},
		{"get", "events", "--field-selector", "type=Warning,involvedObject.name=" + job, "--output", "jsonpath={.items[-1:].message}"},
		{"logs", "--selector", "job-name=" + job, "--tail", "3"},
	} {
		if said, err := k.run(ctx, nil, args...); err == nil && said != "" {
			why += "; " + strings.ReplaceAll(said, "\n", "; ")
		}
	}
	return why
}

// run runs kubectl and returns what it wrote.
func (k *kubeOptions) run(ctx context.Context, stdin []byte, args ...string) (string, error) {
	cmd := k.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	child, err := startChild(cmd)
	if err != nil {
		return "", err
	}
	if err := child.wait(ctx); err != nil {
		return "", kubectlError(ctx, &stderr, err)
	}
	return strings.TrimSpace(stdout.String()), nil
}

// job is what deploy/agent's DaemonSet runs, on one node and for a while.
func (n *traceNode) job(name, node, account string) map[string]any {
	type m = map[string]any
	labels := m{"app.kubernetes.io/name": "orb8", "app.kubernetes.io/component": "trace"}
	pod := m{
		// Not the scheduler's choice; kubelets take what tolerates their taints.
		"nodeName": node, "tolerations": []m{{"operator": "Exists"}},
		"restartPolicy": "Never", "terminationGracePeriodSeconds": 5,
		"enableServiceLinks": false, "automountServiceAccountToken": account != "",
		"securityContext": m{"seccompProfile": m{"type": "RuntimeDefault"}},
		"containers": []m{{
			"name": "trace", "image": n.image,
			"command": []string{"orb8", "trace", "serve", "--receiver", n.receiver, "--listen", "127.0.0.1:" + queryPort},
			"env":     []m{{"name": "NODE_NAME", "value": node}, {"name": "ORB8_TRACE_NAMES", "value": namesFrom(account)}},
			"securityContext": m{
				"runAsUser": 0, "privileged": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
				"capabilities": m{"drop": []string{"ALL"}, "add": []string{"BPF", "PERFMON", "NET_ADMIN"}},
			},
			"resources": m{"requests": m{"cpu": "50m", "memory": "128Mi"}, "limits": m{"memory": "512Mi"}},
			"volumeMounts": []m{{
				"name": "cgroup", "mountPath": "/host/sys/fs/cgroup", "readOnly": true, "recursiveReadOnly": "IfPossible",
			}},
		}},
		"volumes": []m{{"name": "cgroup", "hostPath": m{"path": "/sys/fs/cgroup", "type": "Directory"}}},
	}
	if account != "" {
		pod["serviceAccountName"] = account
	}
	return m{
		"apiVersion": "batch/v1", "kind": "Job", "metadata": m{"name": name, "labels": labels},
		"spec": m{
			"backoffLimit": 0, "ttlSecondsAfterFinished": int(keptAfter.Seconds()), "activeDeadlineSeconds": int(n.lifetime.Seconds()),
			"template": m{"metadata": m{"labels": labels}, "spec": pod},
		},
	}
}

// namesFrom is the configuration of pod_enrichment.
func namesFrom(account string) string {
	if account == "" {
		return "{}"
	}
	return "{kubernetes: {auth_type: serviceAccount, scope: node}}"
}
