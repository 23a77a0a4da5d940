package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"
)

const (
	// forwardTimeout is how long a cluster may take until it forwards.
	forwardTimeout = 10 * time.Second
	// What deploy/ installs, and where the query API listens there.
	gatewayName      = "deploy/orb8-gateway"
	agentSelector    = "app.kubernetes.io/name=orb8,app.kubernetes.io/component=agent"
	defaultNamespace = "orb8-system"
	queryPort        = "9090"
)

// kubeOptions say which cluster to look for orb8 in. The way there is kubectl's port-forward: kubectl knows every kind of kubeconfig,
// credential plugin and proxy (docs/adr/0019).
type kubeOptions struct {
	kubeconfig, context string
	// namespace is the one that orb8 is installed in.
	namespace string
}

// named is true where the user asked for a cluster.
func (k *kubeOptions) named() bool { return k.kubeconfig != "" || k.context != "" }

// there is true where there is a cluster to ask: kubectl, and a kubeconfig for it.
func (k *kubeOptions) there() bool {
	if k.named() {
		return true
	}
	if _, err := exec.LookPath("kubectl"); err != nil {
		return false
	}
	if os.Getenv("KUBECONFIG") != "" {
		return true
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(home, ".kube", "config"))
	return err == nil
}

func (k *kubeOptions) command(args ...string) *exec.Cmd {
	var all []string
	if k.kubeconfig != "" {
		all = append(all, "--kubeconfig", k.kubeconfig)
	}
	if k.context != "" {
		all = append(all, "--context", k.context)
	}
	namespace := k.namespace
	if namespace == "" {
		namespace = defaultNamespace
	}
	cmd := exec.Command("kubectl", append(append(all, "--namespace", namespace), args...)...)
	cmd.SysProcAttr = childAttributes()
	// A credential plugin may outlive it with its output open.
	cmd.WaitDelay = time.Second
	return cmd
}

// agentOf returns the pod of the agent on a node.
func (k *kubeOptions) agentOf(ctx context.Context, node string) (string, error) {
	cmd := k.command("get", "pods", "--output", "name", "--selector", agentSelector,
		"--field-selector", "status.phase=Running,spec.nodeName="+node)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	child, err := startChild(cmd)
	if err != nil {
		return "", err
	}
	if err := child.wait(ctx); err != nil {
		return "", kubectlError(ctx, &stderr, err)
	}
	pod, _, _ := strings.Cut(stdout.String(), "\n")
	if pod == "" {
		return "", noAgentError{node}
	}
	return pod, nil
}

// noAgentError is that a node has no agent.
type noAgentError struct{ node string }

func (e noAgentError) Error() string { return "no agent runs on node " + e.node }

// forward is a port of a pod at an address of this host.
type forward struct {
	address string
	close   func()
}

var forwarding = regexp.MustCompile(`^Forwarding from (127\.0\.0\.1:[0-9]+) -> `)

// forward begins to forward the query API of what name is in the cluster.
func (k *kubeOptions) forward(ctx context.Context, name string) (*forward, error) {
	cmd := k.command("port-forward", "--address", "127.0.0.1", name, ":"+queryPort)
	output, input := io.Pipe()
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = input, &stderr
	child, err := startChild(cmd)
	if err != nil {
		return nil, err
	}
	address := make(chan string, 1)
	var reader sync.WaitGroup
	reader.Go(func() {
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			if match := forwarding.FindStringSubmatch(lines.Text()); match != nil {
				select {
				case address <- match[1]:
				default:
				}
			}
		}
	})
	end := func() {
		child.kill()
		input.Close()
		reader.Wait()
	}
	select {
	case at := <-address:
		return &forward{address: at, close: end}, nil
	case <-child.done:
		err = child.err
	case <-ctx.Done():
	}
	end()
	return nil, kubectlError(ctx, &stderr, err)
}

// kubectlError is what kubectl said last, or why it was not waited for.
func kubectlError(ctx context.Context, stderr *bytes.Buffer, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return errors.New(strings.TrimPrefix(last, "error: "))
	}
	return fmt.Errorf("kubectl ended: %v", err)
}

// child is a process that ends with this one.
type child struct {
	cmd  *exec.Cmd
	done chan struct{}
	// err is that of the process, once it is done.
	err error
}

// startChild starts a process. On Linux the kernel ends it when the thread that started it ends: so that thread waits.
func startChild(cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		c.err = cmd.Wait()
		close(c.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", filepath.Base(cmd.Path), err)
	}
	return c, nil
}

// wait waits for the end of the process, but no longer than ctx.
func (c *child) wait(ctx context.Context) error {
	select {
	case <-c.done:
	case <-ctx.Done():
		c.kill()
	}
	return c.err
}

// kill ends the process. It waits for its end.
func (c *child) kill() {
	// It fails only where the process has ended.
	_ = c.cmd.Process.Kill()
	<-c.done
}
