package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// The receivers that see what is traced.
const (
	networkReceiver = "ebpf_network"
	syscallReceiver = "ebpf_syscall"
)

const (
	// startTimeout is how long a collector may take until it answers: on a cluster its image has to be pulled first.
	startTimeout = 90 * time.Second
	askAgain     = 200 * time.Millisecond
)

// traceNode is how a command traces a node on which nothing of orb8 runs.
type traceNode struct {
	// receiver is the one that sees what the command shows.
	receiver string
	// image, namespace and account are the pod's; the last two empty for what is found.
	image, namespace, account string
	// lifetime is the longest that the pod lives, whatever happens.
	lifetime time.Duration
}

// addTraceNodeFlags gives a trace command the flags that say what to start on a node.
func addTraceNodeFlags(cmd *cobra.Command, receiver string) *traceNode {
	n := &traceNode{receiver: receiver}
	flags := cmd.Flags()
	flags.StringVar(&n.image, "trace-image", traceImage(), "`IMAGE` of the pod that is started for --node NODE where no agent runs")
	flags.StringVar(&n.namespace, "trace-namespace", "", "`NAMESPACE` of that pod, which must allow host paths and capabilities "+
		"(default: the one that has orb8, or else default)")
	flags.StringVar(&n.account, "trace-service-account", "", "service `ACCOUNT` of that pod, which may read pods, for their names "+
		"(default: "+agentAccount+", where it is there)")
	flags.DurationVar(&n.lifetime, "trace-lifetime", time.Hour, "`TIME` after which the cluster ends that pod in any case")
	cmd.Long += "\n\nWith one --node, and neither --server nor --agent, it is that node's agent that is asked. Where none runs, a pod " +
		"is\nstarted there, or a process if it is this host, that ends with the command."
	cmd.Example += "\n\n  # On a node without an agent\n  orb8 trace " + cmd.Use + " --node worker-3"
	return n
}

func traceImage() string {
	tag := version
	if tag == "" {
		tag = "latest"
	}
	return "ghcr.io/orb8/orb8:" + tag
}

// connectTo connects to the collector that sees a node, if the user asks for one node and names no collector. It starts one where there
// is none.
func (n *traceNode) connectTo(ctx context.Context, a *app, nodes []string) error {
	if len(nodes) != 1 || a.server != "" || a.agent != "" {
		return nil
	}
	if n.lifetime < time.Minute {
		return usagef("invalid --trace-lifetime %s: use 1m or more", n.lifetime)
	}
	c, err := n.open(ctx, a, nodes[0])
	if err != nil {
		return interrupted(ctx, err)
	}
	a.connecting.Lock()
	defer a.connecting.Unlock()
	a.connection = c
	return nil
}

func (n *traceNode) open(ctx context.Context, a *app, node string) (*connection, error) {
	if isThisHost(node) {
		if listens(ctx, defaultAgent) {
			return a.target.dial("", defaultAgent)
		}
		return n.startHere(ctx, a, node)
	}
	if !a.kube.there() {
		return nil, fmt.Errorf("node %s is not this host, and there is no kubectl with a cluster to find it in", node)
	}
	ask, cancel := context.WithTimeoutCause(ctx, forwardTimeout, fmt.Errorf("kubectl took longer than %v", forwardTimeout))
	defer cancel()
	over := a.tellWaiting()
	pod, err := a.kube.agentOf(ask, node)
	over()
	switch _, none := errors.AsType[noAgentError](err); {
	case err == nil:
		return a.target.forwarded(ctx, func(context.Context) (string, error) { return pod, nil })
	case !none:
		return nil, err
	}
	return n.startThere(ctx, a, node)
}

// isThisHost is true of the name of this host. Where a cluster has a node of the name, it is one and the same.
func isThisHost(node string) bool {
	name, err := os.Hostname()
	return err == nil && node == name
}

func listens(ctx context.Context, address string) bool {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// awaitAnswer waits until a collector that has just been started reports, or gone says that it never will.
func (c *connection) awaitAnswer(ctx context.Context, gone <-chan struct{}) error {
	for {
		reply, err := c.GetStatus(ctx, connect.NewRequest(&orb8v1.GetStatusRequest{}))
		if err == nil && len(reply.Msg.GetNodes()) > 0 {
			return nil
		}
		select {
		case <-gone:
			return errors.New("it has ended")
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(askAgain):
		}
	}
}
